#include "fs/tools/mount_helper.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "fs/tools/remount.h"

namespace tarnfs {

namespace fs = std::filesystem;

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

}  // namespace tarnfs
