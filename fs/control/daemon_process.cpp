#include "fs/control/daemon_process.h"

#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <optional>

#include "fs/control/unix_socket.h"

namespace tarnfs {
namespace {

namespace fs = std::filesystem;

fs::path directory_of(pid_t pid) {
  return fs::path("/proc") / std::to_string(pid);
}

std::optional<pid_t> pid_of(const std::string& name) {
  pid_t pid = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
  if (error != std::errc() || end != name.data() + name.size() || pid <= 0) return std::nullopt;
  return pid;
}

Descriptor open_process(pid_t pid) {
  return Descriptor(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
}

}  // namespace

DaemonProcess process_behind(const Descriptor& socket, const std::string& socket_path) {
  DaemonProcess daemon;
  daemon.socket_path = socket_path;
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(socket.number(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid > 0) {
    daemon.pid = peer.pid;
    daemon.process = open_process(peer.pid);
  }
  return daemon;
}

std::vector<DaemonProcess> daemon_processes(const std::string& directory) {
  std::vector<DaemonProcess> found;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(directory, failed)) {
    if (entry.path().extension() != ".sock") continue;
    const auto socket = connect_to(entry.path().string());
    if (!socket.ok()) continue;  // nobody's any more
    found.push_back(process_behind(*socket, entry.path().string()));
  }
  std::sort(found.begin(), found.end(),
            [](const DaemonProcess& left, const DaemonProcess& right) { return left.socket_path < right.socket_path; });
  return found;
}

bool has_open(pid_t pid, const std::string& path) {
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(directory_of(pid) / "fd", failed)) {
    std::error_code unreadable;
    if (fs::read_symlink(entry.path(), unreadable) == path && !unreadable) return true;
  }
  return false;
}

bool is_program(pid_t pid, std::string_view program) {
  std::string name;
  std::getline(std::ifstream(directory_of(pid) / "comm"), name);
  return name == program;
}

Descriptor process_with_open_file(std::string_view program, const std::string& path) {
  std::vector<pid_t> found;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator("/proc", failed)) {
    const auto pid = pid_of(entry.path().filename().string());
    if (pid && is_program(*pid, program) && has_open(*pid, path)) found.push_back(*pid);
  }
  return found.size() == 1 ? open_process(found.front()) : Descriptor();
}

}  // namespace tarnfs
