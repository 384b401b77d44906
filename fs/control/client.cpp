#include "fs/control/client.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "fs/control/mount_table.h"

namespace tarnfs {
namespace {

// A daemon answers `status` from memory.
constexpr std::chrono::seconds kStatusTimeout{5};

Status send_line(const Descriptor& socket, std::string line, Deadline deadline) {
  while (!line.empty()) {
    const ssize_t count = ::send(socket.number(), line.data(), line.size(), MSG_NOSIGNAL);
    if (count >= 0) {
      line.erase(0, static_cast<std::size_t>(count));
    } else if (errno == EAGAIN) {
      TARNFS_TRY(wait_for_events(socket, POLLOUT, deadline));
    } else if (errno != EINTR) {
      return Error(ErrorCode::kDisconnected, std::string("the daemon hung up: ") + std::strerror(errno));
    }
  }
  return {};
}

Result<std::string> receive_line(const Descriptor& socket, Deadline deadline) {
  std::string received;
  std::array<char, 65536> bytes{};
  while (received.size() <= kControlResponseMaxBytes) {
    TARNFS_TRY(wait_for_events(socket, POLLIN, deadline));
    const ssize_t count = ::recv(socket.number(), bytes.data(), bytes.size(), 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (count <= 0) return Error(ErrorCode::kDisconnected, "the daemon hung up without an answer");
    received.append(bytes.data(), static_cast<std::size_t>(count));
    const std::size_t end = received.find('\n');
    if (end != std::string::npos) return received.substr(0, end);
  }
  return Error(ErrorCode::kTooBig, "the daemon's answer is too long");
}

Result<std::string> ask(const Descriptor& socket, const ControlRequest& request, std::chrono::milliseconds timeout) {
  const Deadline deadline = std::chrono::steady_clock::now() + timeout;
  TARNFS_TRY(send_line(socket, encode_request(request) + "\n", deadline));
  TARNFS_ASSIGN(const std::string line, receive_line(socket, deadline));
  return decode_response(line);
}

Error explain(const Error& error, const std::string& socket_path) {
  if (error.code() != ErrorCode::kTimeout || !error.message().empty()) return error;
  return Error(ErrorCode::kTimeout, "the daemon behind " + socket_path + " did not answer in time");
}

bool is_socket(const std::string& path) {
  struct stat found {};
  return ::stat(path.c_str(), &found) == 0 && S_ISSOCK(found.st_mode);
}

}  // namespace

std::string default_control_directory() {
  if (::geteuid() == 0) return "/run/tarnfs";
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && *runtime == '/') return std::string(runtime) + "/tarnfs";
  return "/tmp/tarnfs-" + std::to_string(::geteuid());
}

std::string control_path_of(const std::string& directory, const std::string& volume_uuid, const std::string& role) {
  return directory + "/" + volume_uuid + "-" + role + ".sock";
}

Result<std::string> ask_daemon(const std::string& socket_path, const ControlRequest& request,
                               std::chrono::milliseconds timeout) {
  TARNFS_ASSIGN(const Descriptor socket, connect_to(socket_path));
  auto answer = ask(socket, request, timeout);
  if (!answer.ok()) return explain(answer.error(), socket_path);
  return answer;
}

Result<FoundDaemon> daemon_at(const std::string& socket_path) {
  TARNFS_ASSIGN(const Descriptor socket, connect_to(socket_path));
  FoundDaemon found{process_behind(socket, socket_path), {}, {}};
  auto answer = ask(socket, {.command = "status", .arguments = {}}, kStatusTimeout);
  if (!answer.ok()) return explain(answer.error(), socket_path);
  found.status_json = std::move(*answer);
  TARNFS_ASSIGN(found.status, status_report_of(found.status_json));
  return found;
}

std::vector<FoundDaemon> all_daemons(const std::string& directory) {
  std::vector<FoundDaemon> daemons;
  for (const DaemonProcess& process : daemon_processes(directory)) {
    auto found = daemon_at(process.socket_path);
    if (found.ok()) daemons.push_back(std::move(*found));
  }
  return daemons;
}

Result<FoundDaemon> daemon_of(const std::string& target, const std::string& directory) {
  if (is_socket(target)) return daemon_at(target);
  auto canonical = canonical_path(target);
  if (!canonical.ok()) return canonical.error();
  const auto mounted = tarnfs_mount_at(read_mount_table(), *canonical);
  const std::string image = mounted ? mounted->source : *canonical;
  std::vector<DaemonProcess> processes = daemon_processes(directory);
  std::stable_partition(processes.begin(), processes.end(),
                        [&](const DaemonProcess& process) { return has_open(process.pid, image); });
  for (const DaemonProcess& process : processes) {
    auto found = daemon_at(process.socket_path);
    if (!found.ok()) continue;
    if (found->status.mountpoint == *canonical || found->status.image == *canonical) return std::move(*found);
  }
  return Error(ErrorCode::kNotFound,
               target + " is no mountpoint, image or control socket of a running tarnfs daemon; see tarn status");
}

// Opening with O_PATH walks to the place but asks nothing of what is mounted on it.
Result<std::string> canonical_path(const std::string& path) {
  const Descriptor opened(::open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!opened) return Error(ErrorCode::kNotFound, path + ": " + std::strerror(errno));
  const std::string link = "/proc/self/fd/" + std::to_string(opened.number());
  std::array<char, PATH_MAX> target{};
  const ssize_t length = ::readlink(link.c_str(), target.data(), target.size());
  if (length < 0) return Error(ErrorCode::kIo, path + ": " + std::strerror(errno));
  return std::string(target.data(), static_cast<std::size_t>(length));
}

}  // namespace tarnfs
