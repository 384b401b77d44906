#include "mirror/channel/key_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>

#include "common/descriptor.h"

namespace tarnfs {
namespace {

constexpr std::string_view kZ85 =
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
constexpr std::size_t kKeyCharacters = 40;
constexpr std::size_t kKeyFileMaxBytes = 64;  // the characters and some blanks around them

constexpr const char* kSecretName = "secret.key";
constexpr const char* kPublicName = "public.key";
constexpr const char* kPeersName = "peers";

Error system_error(const std::string& what, int number) {
  ErrorCode code = ErrorCode::kIo;
  if (number == ENOENT || number == ENOTDIR) code = ErrorCode::kNotFound;
  if (number == EACCES || number == EPERM) code = ErrorCode::kNotPermitted;
  if (number == ELOOP || number == ENXIO) code = ErrorCode::kInvalid;
  if (number == EEXIST) code = ErrorCode::kExists;
  return Error(code, what + ": " + (number == ELOOP ? "it is a symbolic link" : std::strerror(number)));
}

Result<Descriptor> open_directory(int at, const std::string& name, const std::string& path, int more_flags) {
  Descriptor opened(::openat(at, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | more_flags));
  if (!opened) {
    const Error error = system_error("open the key directory " + path, errno);
    if (error.code() != ErrorCode::kNotFound) return error;
    return Error(error.code(), error.message() + "; make one with: tarn keygen DIR");
  }
  return opened;
}

// Nobody but the owner, who is us or root, may do what `others` says.
Status check_owner(const Descriptor& file, const std::string& path, mode_t others, const std::string& remedy) {
  struct stat status = {};
  if (::fstat(file.number(), &status) != 0) return system_error("look at " + path, errno);
  if (status.st_uid != ::geteuid() && status.st_uid != 0) {
    return Error(ErrorCode::kNotPermitted, path + " belongs to user " + std::to_string(status.st_uid) + ", not to " +
                                               std::to_string(::geteuid()) + "; change its owner (chown)");
  }
  if ((status.st_mode & others) != 0) return Error(ErrorCode::kNotPermitted, path + remedy);
  return {};
}

Status check_directory(const Descriptor& directory, const std::string& path) {
  return check_owner(directory, path, S_IWGRP | S_IWOTH,
                     " can be changed by other users, who could let anybody in; do: chmod go-w " + path);
}

Result<Descriptor> open_peers(const std::string& directory) {
  TARNFS_ASSIGN(const Descriptor top, open_directory(AT_FDCWD, directory, directory, 0));
  TARNFS_TRY(check_directory(top, directory));
  const std::string path = directory + "/" + kPeersName;
  TARNFS_ASSIGN(Descriptor peers, open_directory(top.number(), kPeersName, path, O_NOFOLLOW));
  TARNFS_TRY(check_directory(peers, path));
  return peers;
}

// The bytes of a small regular file.
Result<std::string> read_small(const Descriptor& file, const std::string& path) {
  struct stat status = {};
  if (::fstat(file.number(), &status) != 0) return system_error("look at " + path, errno);
  if (!S_ISREG(status.st_mode)) return Error(ErrorCode::kInvalid, path + " is no regular file");
  std::string text(kKeyFileMaxBytes + 1, '\0');
  const ssize_t count = ::read(file.number(), text.data(), text.size());
  if (count < 0) return system_error("read " + path, errno);
  text.resize(static_cast<std::size_t>(count));
  if (text.size() > kKeyFileMaxBytes) return Error(ErrorCode::kInvalid, path + " is too large for a key");
  return text;
}

Result<Descriptor> open_key(int at, const char* name, const std::string& path) {
  Descriptor file(::openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!file) return system_error("open the key " + path, errno);
  return file;
}

std::string_view without_blanks(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

template <class Key>
Result<Key> key_of(std::string_view text) {
  if (text.size() != kKeyCharacters) {
    return Error(ErrorCode::kInvalid, "a key has 40 characters, this has " + std::to_string(text.size()));
  }
  Key key;
  for (std::size_t group = 0; group < kKeyCharacters / 5; ++group) {
    std::uint64_t value = 0;
    for (const char character : text.substr(5 * group, 5)) {
      const std::size_t digit = kZ85.find(character);
      if (digit == std::string_view::npos) return Error(ErrorCode::kInvalid, "it has a character that is not Z85");
      value = value * kZ85.size() + digit;
    }
    if (value > UINT32_MAX) return Error(ErrorCode::kInvalid, "it is not Z85: a group of characters is too large");
    for (std::size_t i = 0; i < 4; ++i) key.bytes.at(4 * group + i) = static_cast<std::byte>(value >> (24 - 8 * i));
  }
  return key;
}

template <class Key>
Result<Key> key_in(const Descriptor& file, const std::string& path) {
  TARNFS_ASSIGN(const std::string text, read_small(file, path));
  auto key = key_of<Key>(without_blanks(text));
  if (!key.ok()) return key.error().in(path);
  return key;
}

// An error of kIo is the machine's, all others are the file's.
Result<PublicKey> read_peer(const Descriptor& peers, const std::string& name, const std::string& path) {
  TARNFS_ASSIGN(const Descriptor file, open_key(peers.number(), name.c_str(), path));
  TARNFS_TRY(check_owner(file, path, S_IWGRP | S_IWOTH, " can be changed by other users; do: chmod go-w " + path));
  return key_in<PublicKey>(file, path);
}

Status write_key(const Descriptor& directory, const char* name, const std::string& path, std::string_view key,
                 mode_t mode) {
  Descriptor file(::openat(directory.number(), name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
  if (!file) return system_error("make the key " + path, errno);
  const std::string line = std::string(key) + "\n";
  const ssize_t written = ::write(file.number(), line.data(), line.size());
  if (written < 0) return system_error("write " + path, errno);
  if (static_cast<std::size_t>(written) != line.size()) return system_error("write " + path, ENOSPC);
  // The umask has no say.
  if (::fchmod(file.number(), mode) != 0) return system_error("set the permissions of " + path, errno);
  if (::fsync(file.number()) != 0) return system_error("write " + path, errno);
  return {};
}

Status check_absent(const Descriptor& directory, const char* name, const std::string& path) {
  struct stat status = {};
  if (::fstatat(directory.number(), name, &status, AT_SYMLINK_NOFOLLOW) == 0) {
    return Error(ErrorCode::kExists, path +
                                         " is there already and is not overwritten; remove it, or give another "
                                         "directory");
  }
  if (errno != ENOENT) return system_error("look at " + path, errno);
  return {};
}

}  // namespace

Result<PublicKey> public_key_of(std::string_view text) {
  return key_of<PublicKey>(text);
}

std::string to_z85(const PublicKey& key) {
  std::string text(kKeyCharacters, '0');
  for (std::size_t group = 0; group < kKeyCharacters / 5; ++group) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < 4; ++i)
      value = value << 8 | std::to_integer<std::uint32_t>(key.bytes.at(4 * group + i));
    for (std::size_t i = 5; i-- > 0; value /= kZ85.size()) text[5 * group + i] = kZ85[value % kZ85.size()];
  }
  return text;
}

Status check_curve() {
  if (zmq_has("curve") == 1) return {};
  return Error(ErrorCode::kUnsupported,
               "this machine's libzmq has no CURVE encryption; install one built with libsodium");
}

Result<std::string> make_key_directory(const std::string& directory) {
  TARNFS_TRY(check_curve());
  if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
    return system_error("make the directory " + directory, errno);
  }
  TARNFS_ASSIGN(const Descriptor top, open_directory(AT_FDCWD, directory, directory, 0));
  TARNFS_TRY(check_directory(top, directory));
  const std::string secret_path = directory + "/" + kSecretName;
  const std::string public_path = directory + "/" + kPublicName;
  TARNFS_TRY(check_absent(top, kSecretName, secret_path));
  TARNFS_TRY(check_absent(top, kPublicName, public_path));
  if (::mkdirat(top.number(), kPeersName, 0700) != 0 && errno != EEXIST) {
    return system_error("make the directory " + directory + "/" + kPeersName, errno);
  }
  std::array<char, kKeyCharacters + 1> public_key{};
  std::array<char, kKeyCharacters + 1> secret_key{};
  if (zmq_curve_keypair(public_key.data(), secret_key.data()) != 0) return system_error("make a pair of keys", errno);
  const Status secret = write_key(top, kSecretName, secret_path, secret_key.data(), 0600);
  std::fill(secret_key.begin(), secret_key.end(), '\0');
  if (!secret.ok()) return secret.error();
  TARNFS_TRY(write_key(top, kPublicName, public_path, public_key.data(), 0644));
  if (::fsync(top.number()) != 0) return system_error("write " + directory, errno);
  return public_path;
}

Result<SecretKey> read_secret_key(const std::string& directory) {
  TARNFS_ASSIGN(const Descriptor top, open_directory(AT_FDCWD, directory, directory, 0));
  TARNFS_TRY(check_directory(top, directory));
  const std::string path = directory + "/" + kSecretName;
  TARNFS_ASSIGN(const Descriptor file, open_key(top.number(), kSecretName, path));
  TARNFS_TRY(check_owner(file, path, S_IRWXG | S_IRWXO,
                         " is secret and other users can reach it; do: chmod 600 " + path +
                             ", and make new keys if somebody may have read it"));
  return key_in<SecretKey>(file, path);
}

Result<PeerKeys> read_peer_keys(const std::string& directory) {
  TARNFS_ASSIGN(Descriptor peers, open_peers(directory));
  TARNFS_ASSIGN(Descriptor listed, open_directory(peers.number(), ".", directory, 0));
  const std::unique_ptr<DIR, int (*)(DIR*)> list(::fdopendir(listed.number()), &::closedir);
  if (!list) return system_error("read the directory " + directory + "/" + kPeersName, errno);
  [[maybe_unused]] const int now_of_the_list = listed.release();
  const std::string where = directory + "/" + kPeersName;
  PeerKeys found;
  std::size_t count = 0;
  for (errno = 0; const dirent* entry = ::readdir(list.get()); errno = 0) {
    const std::string name = entry->d_name;
    if (name.starts_with(".")) continue;
    std::string path = where + "/";
    path += name;
    if (++count > kPeerKeysMax) {
      return Error(ErrorCode::kInvalid, directory + "/" + kPeersName + " has more than " +
                                            std::to_string(kPeerKeysMax) + " files; remove some");
    }
    const auto key = read_peer(peers, name, path);
    if (key.ok()) {
      found.keys.push_back({name, *key});
    } else if (key.error().code() == ErrorCode::kIo) {
      return key.error();
    } else if (key.error().code() != ErrorCode::kNotFound) {  // removed meanwhile
      found.problems.push_back(key.error().message());
    }
  }
  if (errno != 0) return system_error("read the directory " + directory + "/" + kPeersName, errno);
  return found;
}

Result<PublicKey> read_mirror_key(const std::string& directory, const std::string& url) {
  TARNFS_ASSIGN(const PeerKeys peers, read_peer_keys(directory));
  const std::string place = url.substr(url.find("//") == std::string::npos ? 0 : url.find("//") + 2);
  const std::string host = place.substr(0, place.rfind(':'));
  for (const std::string& wanted : {place, host}) {
    for (const PeerKey& peer : peers.keys) {
      if (peer.name == wanted) return peer.key;
    }
  }
  if (peers.keys.size() == 1) return peers.keys.front().key;
  const std::string where = directory + "/" + kPeersName;
  if (!peers.problems.empty()) return Error(ErrorCode::kInvalid, peers.problems.front());
  if (peers.keys.empty()) {
    return Error(ErrorCode::kNotFound, where + " is empty; copy the mirror's public.key there as " + host);
  }
  return Error(ErrorCode::kNotFound,
               where + " has several keys and none is named " + place + " or " + host + "; name the mirror's so");
}

}  // namespace tarnfs
