#include "fs/daemon/umount_registration.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <vector>

namespace tarnfs {
namespace {

// What a child of a daemon needs: no terminal, and signals that end it.
class SpawnSettings {
 public:
  SpawnSettings() {
    ::posix_spawnattr_init(&attributes_);
    ::posix_spawn_file_actions_init(&files_);
    sigset_t none;
    sigemptyset(&none);
    ::posix_spawnattr_setsigmask(&attributes_, &none);
    ::posix_spawnattr_setflags(&attributes_, POSIX_SPAWN_SETSIGMASK);
    for (const int number : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
      ::posix_spawn_file_actions_addopen(&files_, number, "/dev/null", O_RDWR, 0);
    }
  }
  ~SpawnSettings() {
    ::posix_spawnattr_destroy(&attributes_);
    ::posix_spawn_file_actions_destroy(&files_);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
  const posix_spawnattr_t* attributes() const { return &attributes_; }
  const posix_spawn_file_actions_t* files() const { return &files_; }

 private:
  posix_spawnattr_t attributes_{};
  posix_spawn_file_actions_t files_{};
};

// Runs the program in silence; its exit code.
Result<int> run(std::vector<const char*> words) {
  words.push_back(nullptr);
  const std::array<const char*, 2> environment = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", nullptr};
  const SpawnSettings settings;
  pid_t child = 0;
  const int failed = ::posix_spawn(&child, words.front(), settings.files(), settings.attributes(),
                                   const_cast<char**>(words.data()), const_cast<char**>(environment.data()));
  if (failed != 0) return Error(ErrorCode::kUnsupported, std::string("run ") + words[0] + ": " + std::strerror(failed));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

// A fake mount only writes the tables. It needs an option that the tables keep, as they do all that begin with x-.
Status register_for_umount(const std::string& image, const std::string& mountpoint, const std::string& type) {
  TARNFS_ASSIGN(const int code, run({"/bin/mount", "-i", "-f", "--no-canonicalize", "-t", type.c_str(), "-o",
                                     "x-tarnfs", "--", image.c_str(), mountpoint.c_str()}));
  if (code == 0) return {};
  return Error(ErrorCode::kUnsupported, "mount(8) did not register " + mountpoint + " for umount(8)");
}

bool unmount_registered(const std::string& mountpoint) {
  const auto code = run({"/bin/umount", "-i", "--no-canonicalize", "--", mountpoint.c_str()});
  return code.ok() && *code == 0;
}

}  // namespace tarnfs
