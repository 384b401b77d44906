#include "fs/control/unix_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>

namespace tarnfs {
namespace {

constexpr int kBacklog = 128;
constexpr int kConnectSeconds = 5;

Error socket_error(const std::string& what, const std::string& path, int number) {
  ErrorCode code = ErrorCode::kIo;
  if (number == ECONNREFUSED || number == ENOENT) code = ErrorCode::kDisconnected;
  if (number == EACCES || number == EPERM) code = ErrorCode::kNotPermitted;
  return Error(code, what + " " + path + ": " + std::strerror(number));
}

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return Error(ErrorCode::kInvalid, "control socket " + path + ": the path must have 1 to " +
                                          std::to_string(sizeof address.sun_path - 1) + " bytes");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Result<Descriptor> new_socket(const std::string& path) {
  Descriptor descriptor(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!descriptor) return socket_error("make control socket", path, errno);
  return descriptor;
}

Status make_nonblocking(const Descriptor& descriptor, const std::string& path) {
  if (::fcntl(descriptor.number(), F_SETFL, O_NONBLOCK) == 0) return {};
  return socket_error("set up control socket", path, errno);
}

// Removes a socket that nobody listens on any more.
Status remove_stale(const std::string& path) {
  struct stat found {};
  if (::lstat(path.c_str(), &found) != 0) return {};
  if (!S_ISSOCK(found.st_mode)) {
    return Error(ErrorCode::kExists, "control socket " + path + ": there is something else; remove it");
  }
  const auto connected = connect_to(path);
  if (connected.ok() || connected.error().code() != ErrorCode::kDisconnected) {
    return Error(ErrorCode::kBusy, "control socket " + path + " is in use by another process");
  }
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return socket_error("remove stale control socket", path, errno);
  return {};
}

}  // namespace

Result<Descriptor> listen_at(const std::string& path) {
  TARNFS_ASSIGN(const sockaddr_un address, address_of(path));
  TARNFS_TRY(remove_stale(path));
  TARNFS_ASSIGN(Descriptor descriptor, new_socket(path));
  // The mode of the descriptor becomes that of the file.
  if (::fchmod(descriptor.number(), 0600) != 0) return socket_error("set the mode of control socket", path, errno);
  if (::bind(descriptor.number(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return socket_error("make control socket", path, errno);
  }
  if (::listen(descriptor.number(), kBacklog) != 0) return socket_error("listen on control socket", path, errno);
  TARNFS_TRY(make_nonblocking(descriptor, path));
  return descriptor;
}

Result<Descriptor> connect_to(const std::string& path) {
  TARNFS_ASSIGN(const sockaddr_un address, address_of(path));
  TARNFS_ASSIGN(Descriptor descriptor, new_socket(path));
  // Waits only while the other side's backlog is full; a descriptor that does not wait would fail then.
  timeval patience{};
  patience.tv_sec = kConnectSeconds;
  ::setsockopt(descriptor.number(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (::connect(descriptor.number(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return socket_error("connect to control socket", path, errno);
  }
  TARNFS_TRY(make_nonblocking(descriptor, path));
  return descriptor;
}

int milliseconds_until(Deadline deadline) {
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
  return static_cast<int>(std::clamp<long long>(left + 1, 0, INT_MAX));
}

Status wait_for_events(const Descriptor& descriptor, short events, Deadline deadline) {
  pollfd waited{descriptor.number(), events, 0};
  for (;;) {
    const int count = ::poll(&waited, 1, milliseconds_until(deadline));
    if (count > 0) return {};
    if (count < 0 && errno != EINTR) return Error(ErrorCode::kIo, std::string("poll: ") + std::strerror(errno));
    if (std::chrono::steady_clock::now() >= deadline) return Error(ErrorCode::kTimeout);
  }
}

}  // namespace tarnfs
