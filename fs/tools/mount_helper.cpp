#include "fs/tools/mount_helper.h"

#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "fs/tools/remount.h"

namespace tarnfs {
namespace {

namespace fs = std::filesystem;

bool is_number(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
}

bool has_open(const fs::path& process, const std::string& path) {
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(process / "fd", failed)) {
    std::error_code unreadable;
    if (fs::read_symlink(entry.path(), unreadable) == path && !unreadable) return true;
  }
  return false;
}

}  // namespace

std::string options_for_mount(const std::string& given, bool sloppy) {
  std::string options = given;
  const auto add = [&options](std::string_view option) {
    options += (options.empty() ? "" : ",") + std::string(option);
  };
  if (!has_mount_option(given, "nodev") && !has_mount_option(given, "dev")) add("dev");
  if (!has_mount_option(given, "nosuid") && !has_mount_option(given, "suid")) add("suid");
  if (sloppy) add("sloppy");
  return options;
}

std::vector<std::string> candidates_for(std::string_view name) {
  std::vector<std::string> paths;
  std::error_code failed;
  const fs::path self = fs::read_symlink("/proc/self/exe", failed);
  if (!failed) {
    const fs::path directory = self.parent_path();
    for (const fs::path& place : {directory, directory.parent_path() / "bin", directory.parent_path() / "sbin"}) {
      paths.push_back((place / name).string());
    }
  }
  for (const char* place : {"/usr/local/sbin/", "/usr/local/bin/", "/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"}) {
    paths.push_back(place + std::string(name));
  }
  return paths;
}

Result<int> run_and_wait(const std::vector<std::string>& words) {
  std::vector<char*> arguments;
  arguments.reserve(words.size() + 1);
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  pid_t child = 0;
  const int failed = ::posix_spawnp(&child, arguments[0], nullptr, nullptr, arguments.data(), environ);
  if (failed != 0) return Error(ErrorCode::kUnsupported, "run " + words[0] + ": " + std::strerror(failed));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

Descriptor process_with_open_file(std::string_view program, const std::string& path) {
  std::vector<pid_t> found;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator("/proc", failed)) {
    const std::string number = entry.path().filename().string();
    if (!is_number(number)) continue;
    std::string name;
    std::getline(std::ifstream(entry.path() / "comm"), name);
    if (name == program && has_open(entry.path(), path)) found.push_back(static_cast<pid_t>(std::stol(number)));
  }
  if (found.size() != 1) return {};
  return Descriptor(static_cast<int>(::syscall(SYS_pidfd_open, found.front(), 0)));
}

}  // namespace tarnfs
