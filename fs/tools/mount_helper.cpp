#include "fs/tools/mount_helper.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <filesystem>
#include <fstream>

namespace tarnfs {
namespace {

namespace fs = std::filesystem;

bool has_option(const std::string& list, std::string_view option) {
  const std::string within = "," + list + ",";
  return within.find("," + std::string(option) + ",") != std::string::npos;
}

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
  if (!has_option(given, "nodev") && !has_option(given, "dev")) add("dev");
  if (!has_option(given, "nosuid") && !has_option(given, "suid")) add("suid");
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
