// Key files, who is let in, and how refusals are told.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "mirror/channel/key_directory.h"
#include "mirror/channel/refusal_log.h"
#include "mirror/channel/zap_decision.h"
#include "mirror/channel/zmq_channel.h"
#include "tests/support/key_directories.h"

using namespace tarnfs;
using namespace tarnfs::testing;

namespace fs = std::filesystem;

namespace {

unsigned mode_of(const fs::path& path) {
  struct stat status = {};
  REQUIRE(::lstat(path.c_str(), &status) == 0);
  return status.st_mode & 07777U;
}

std::string line_of(const fs::path& path) {
  std::ifstream in(path);
  std::string line;
  REQUIRE(std::getline(in, line));
  return line;
}

void change_mode(const fs::path& path, unsigned mode) {
  REQUIRE(::chmod(path.c_str(), mode) == 0);
}

std::string bytes_of(const PublicKey& key) {
  return {reinterpret_cast<const char*>(key.bytes.data()), key.bytes.size()};
}

PeerKeys peers_with(const std::string& name, const PublicKey& key) {
  PeerKeys peers;
  peers.keys.push_back({name, key});
  return peers;
}

std::vector<std::string> request_of(const PublicKey& key) {
  return {"1.0", "1", "tarnfs", "192.0.2.7", "", "CURVE", bytes_of(key)};
}

}  // namespace

TEST_CASE("keygen makes what it says, and overwrites nothing") {
  const TemporaryDirectory top;
  const ::mode_t before = ::umask(0077);
  const Keys keys(top, "keys");
  ::umask(before);
  CHECK(mode_of(keys.directory()) == 0700);
  CHECK(mode_of(keys.file("secret.key")) == 0600);
  CHECK(mode_of(keys.file("public.key")) == 0644);
  CHECK(fs::is_empty(keys.file("peers")));
  CHECK(line_of(keys.file("secret.key")).size() == 40);
  CHECK(line_of(keys.file("public.key")).size() == 40);
  CHECK(line_of(keys.file("secret.key")) != line_of(keys.file("public.key")));
  CHECK(read_secret_key(keys.directory()).ok());

  const std::string secret = line_of(keys.file("secret.key"));
  const auto again = make_key_directory(keys.directory());
  CHECK(again.error().code() == ErrorCode::kExists);
  CHECK(again.error().message().find("secret.key") != std::string::npos);
  fs::remove(keys.file("secret.key"));
  CHECK(make_key_directory(keys.directory()).error().code() == ErrorCode::kExists);
  CHECK_FALSE(fs::exists(keys.file("secret.key")));
  fs::remove(keys.file("public.key"));
  CHECK(make_key_directory(keys.directory()).ok());
  CHECK(line_of(keys.file("secret.key")) != secret);
  CHECK(make_key_directory((top.path() / "no" / "such").string()).error().code() == ErrorCode::kNotFound);
}

TEST_CASE("Z85: the example of its specification, and what it is not") {
  // HelloWorld of ZeroMQ RFC 32, four times, is 32 bytes.
  const std::string text = "HelloWorldHelloWorldHelloWorldHelloWorld";
  const auto key = public_key_of(text);
  REQUIRE(key.ok());
  CHECK(key->bytes[0] == std::byte{0x86});
  CHECK(key->bytes[1] == std::byte{0x4F});
  CHECK(key->bytes[7] == std::byte{0x5B});
  CHECK(to_z85(*key) == text);
  for (const std::string& wrong : {std::string(), std::string(39, '0'), std::string(41, '0'), std::string(40, '#'),
                                   std::string(39, '0') + "~", std::string(39, '0') + " ", std::string(40, '\0')}) {
    CAPTURE(wrong);
    CHECK(public_key_of(wrong).error().code() == ErrorCode::kInvalid);
  }
}

TEST_CASE("a secret key that others can reach is refused, with what to do") {
  const TemporaryDirectory top;
  const Keys keys(top, "keys");
  for (const unsigned mode : {0640U, 0604U, 0620U, 0601U}) {
    CAPTURE(mode);
    change_mode(keys.file("secret.key"), mode);
    const auto read = read_secret_key(keys.directory());
    CHECK(read.error().code() == ErrorCode::kNotPermitted);
    CHECK(read.error().message().find("chmod 600 " + keys.file("secret.key").string()) != std::string::npos);
  }
  change_mode(keys.file("secret.key"), 0600);
  for (const unsigned mode : {0770U, 0707U, 0777U}) {
    CAPTURE(mode);
    change_mode(keys.directory(), mode);
    CHECK(read_secret_key(keys.directory()).error().message().find("chmod go-w") != std::string::npos);
    CHECK(read_peer_keys(keys.directory()).error().code() == ErrorCode::kNotPermitted);
    CHECK(make_key_directory(keys.directory()).error().code() == ErrorCode::kNotPermitted);
  }
  change_mode(keys.directory(), 0755);
  CHECK(read_secret_key(keys.directory()).ok());
  fs::rename(keys.file("secret.key"), keys.file("elsewhere"));
  fs::create_symlink("elsewhere", keys.file("secret.key"));
  CHECK(read_secret_key(keys.directory()).error().message().find("symbolic link") != std::string::npos);
  fs::remove(keys.file("secret.key"));
  CHECK(read_secret_key(keys.directory()).error().code() == ErrorCode::kNotFound);
  CHECK(read_secret_key((top.path() / "none").string()).error().message().find("tarn keygen") != std::string::npos);
}

TEST_CASE("keys of another user are refused") {
  if (::geteuid() != 0) return;
  const TemporaryDirectory top;
  const Keys keys(top, "keys");
  REQUIRE(::chown(keys.file("secret.key").c_str(), 12345, 0) == 0);
  CHECK(read_secret_key(keys.directory()).error().message().find("user 12345") != std::string::npos);
  CHECK(read_peer_keys(keys.directory()).ok());
  REQUIRE(::chown(keys.file("peers").c_str(), 12345, 0) == 0);
  CHECK(read_peer_keys(keys.directory()).error().code() == ErrorCode::kNotPermitted);
}

TEST_CASE("files among the peers that are no keys count for nothing") {
  const TemporaryDirectory top;
  const Keys keys(top, "keys");
  const Keys other(top, "other");
  keys.trust(other, "other");
  write_file(keys.peer("long"), std::string(1000, '0'));
  write_file(keys.peer("short"), "abc");
  write_file(keys.peer("empty"), "");
  write_file(keys.peer(".hidden"), "no key, and an editor's");
  fs::create_symlink(other.file("public.key"), keys.peer("link"));
  REQUIRE(::mkfifo(keys.peer("fifo").c_str(), 0600) == 0);
  fs::create_directory(keys.peer("directory"));
  write_file(keys.peer("shared"), line_of(other.file("public.key")) + "\n");
  change_mode(keys.peer("shared"), 0666);
  const auto peers = read_peer_keys(keys.directory());
  REQUIRE(peers.ok());
  REQUIRE(peers->keys.size() == 1);
  CHECK(peers->keys[0].name == "other");
  CHECK(to_z85(peers->keys[0].key) == line_of(other.file("public.key")));
  CHECK(peers->problems.size() == 7);
  CHECK(check_keys("tcp://192.0.2.1:7410", keys.directory()).error().code() == ErrorCode::kInvalid);

  fs::remove_all(keys.file("peers"));
  fs::create_directory_symlink(other.file("peers"), keys.file("peers"));
  CHECK_FALSE(read_peer_keys(keys.directory()).ok());
}

TEST_CASE("more peers than there may be let nobody in") {
  const TemporaryDirectory top;
  const Keys keys(top, "keys");
  const Keys other(top, "other");
  for (std::size_t i = 0; i < kPeerKeysMax; ++i) keys.trust(other, std::to_string(i));
  CHECK(read_peer_keys(keys.directory()).ok());
  keys.trust(other, "one more");
  CHECK(read_peer_keys(keys.directory()).error().code() == ErrorCode::kInvalid);
}

TEST_CASE("the mirror's key: by address, by host, or the only one") {
  const TemporaryDirectory top;
  const Keys primary(top, "primary");
  const Keys first(top, "first");
  const Keys second(top, "second");
  const auto key_for = [&](const std::string& url) {
    const auto key = read_mirror_key(primary.directory(), url);
    return key.ok() ? to_z85(*key) : key.error().message();
  };
  CHECK(key_for("tcp://10.0.0.1:7410").find("copy the mirror's public.key there as 10.0.0.1") != std::string::npos);
  primary.trust(first, "anything");
  CHECK(key_for("tcp://10.0.0.1:7410") == line_of(first.file("public.key")));
  primary.trust(second, "10.0.0.2");
  CHECK(key_for("tcp://10.0.0.2:7410") == line_of(second.file("public.key")));
  CHECK(key_for("tcp://10.0.0.1:7410").find("several keys") != std::string::npos);
  primary.trust(first, "10.0.0.2:7411");
  CHECK(key_for("tcp://10.0.0.2:7411") == line_of(first.file("public.key")));
  CHECK(key_for("tcp://10.0.0.2:7410") == line_of(second.file("public.key")));
}

TEST_CASE("let in is exactly who has a key of the peers") {
  const PublicKey key = *public_key_of("HelloWorldHelloWorldHelloWorldHelloWorld");
  PublicKey near = key;
  near.bytes[31] ^= std::byte{1};
  const Result<PeerKeys> peers(peers_with("somebody", key));
  const ZapDecision yes = decide(request_of(key), peers);
  CHECK(yes.allowed);
  CHECK(yes.user_id == to_z85(key));
  CHECK(reply_of(yes) == std::vector<std::string>{"1.0", "1", "200", "OK", to_z85(key), ""});
  const ZapDecision no = decide(request_of(near), peers);
  CHECK_FALSE(no.allowed);
  CHECK(no.reason.find(to_z85(near)) != std::string::npos);
  CHECK(no.address == "192.0.2.7");
  CHECK(reply_of(no) == std::vector<std::string>{"1.0", "1", "400", "No access", "", ""});
  CHECK_FALSE(decide(request_of(key), Result<PeerKeys>(PeerKeys{})).allowed);
  CHECK_FALSE(decide(request_of(key), Result<PeerKeys>(Error(ErrorCode::kIo, "no descriptors"))).allowed);
  for (std::size_t count = 0; count < 7; ++count) {
    auto frames = request_of(key);
    frames.resize(count);
    CHECK_FALSE(decide(frames, peers).allowed);
  }
  auto frames = request_of(key);
  frames.emplace_back("more");
  CHECK_FALSE(decide(frames, peers).allowed);
  const struct {
    std::size_t place;
    const char* text;
  } wrong_frames[] = {{0, "2.0"}, {5, "NULL"}, {5, "PLAIN"}, {6, "short"}, {6, ""}};
  for (const auto& wrong : wrong_frames) {
    CAPTURE(wrong.text);
    frames = request_of(key);
    frames.at(wrong.place) = wrong.text;
    CHECK_FALSE(decide(frames, peers).allowed);
  }
}

TEST_CASE("a refusal is told once for each address and minute, in bounded memory") {
  std::vector<std::string> lines;
  RefusalLog log([&](const std::string& line) { lines.push_back(line); });
  const RefusalLog::Instant start{};
  for (int i = 0; i < 1000; ++i) log.note_at("192.0.2.1", "no key", start + std::chrono::milliseconds(i));
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].find("192.0.2.1: no key") != std::string::npos);
  log.note_at("192.0.2.1", "no key", start + RefusalLog::kQuiet);
  CHECK(lines.size() == 2);
  for (int i = 0; i < 100000; ++i) log.note_at(std::to_string(i), "no key", start + RefusalLog::kQuiet);
  CHECK(log.addresses() <= RefusalLog::kAddressesMax + 1);
  CHECK(lines.size() <= RefusalLog::kAddressesMax + 2);
  // A minute later there is room for new ones.
  log.note_at("192.0.2.9", "no key", start + 2 * RefusalLog::kQuiet);
  CHECK(lines.back().find("192.0.2.9") != std::string::npos);
}

TEST_CASE("without keys only loopback is taken") {
  for (const char* url : {"tcp://127.0.0.1:7410", "tcp://127.9.9.9:7410", "tcp://[::1]:7410", "tcp://localhost:7410"}) {
    CAPTURE(url);
    CHECK(is_loopback_url(url));
    CHECK(check_keys(url, "").ok());
    CHECK(zmq_channel_factory(url).ok());
  }
  for (const char* url : {"tcp://192.0.2.1:7410", "tcp://mirror.example:7410", "tcp://127.example.org:7410",
                          "tcp://127.0.0.1.example.org:7410", "tcp://[::]:7410", "tcp://[2001:db8::1]:7410"}) {
    CAPTURE(url);
    CHECK_FALSE(is_loopback_url(url));
    const auto factory = zmq_channel_factory(url);
    CHECK(factory.error().code() == ErrorCode::kRefused);
    CHECK(factory.error().message().find("tarn keygen") != std::string::npos);
  }
  for (const char* url : {"tcp://*:0", "tcp://0.0.0.0:0", "tcp://[::]:0"}) {
    CAPTURE(url);
    CHECK(listen_zmq(url).error().code() == ErrorCode::kRefused);
  }
  const TemporaryDirectory top;
  const Keys keys(top, "keys");
  ZmqOptions options;
  options.keys_directory = keys.directory();
  CHECK(listen_zmq("tcp://0.0.0.0:0", options).ok());
  change_mode(keys.file("secret.key"), 0644);
  CHECK(listen_zmq("tcp://0.0.0.0:0", options).error().code() == ErrorCode::kNotPermitted);
}
