#include "mirror/daemon/background.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace tarnfs {
namespace {

// What the daemon says: one byte with the exit code, then a line for standard error.
[[noreturn]] void wait_for_daemon(int descriptor, pid_t child) {
  std::string report;
  std::array<char, 4096> bytes;
  for (;;) {
    const ssize_t count = ::read(descriptor, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    report.append(bytes.data(), static_cast<std::size_t>(count));
  }
  if (report.empty()) {
    int status = 0;
    ::waitpid(child, &status, 0);
    std::fprintf(stderr, "tarn-mirrord: the daemon died before it was ready; start it with -f to see why\n");
    ::_exit(1);
  }
  if (report.size() > 1) std::fprintf(stderr, "%s\n", report.c_str() + 1);
  ::_exit(report[0]);
}

void write_all(int descriptor, const std::string& text) {
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t count = ::write(descriptor, text.data() + done, text.size() - done);
    if (count < 0 && errno != EINTR) return;  // the parent is gone: nobody is left to tell
    if (count > 0) done += static_cast<std::size_t>(count);
  }
}

}  // namespace

Status Background::enter() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return Error(ErrorCode::kIo, std::string("pipe: ") + std::strerror(errno));
  const pid_t child = ::fork();
  if (child < 0) return Error(ErrorCode::kIo, std::string("fork: ") + std::strerror(errno));
  if (child > 0) {
    ::close(ends[1]);
    wait_for_daemon(ends[0], child);
  }
  ::close(ends[0]);
  descriptor_ = ends[1];
  ::setsid();
  if (::chdir("/") != 0) return Error(ErrorCode::kIo, std::string("chdir /: ") + std::strerror(errno));
  return {};
}

void Background::report_ready() {
  if (descriptor_ < 0) return;
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null >= 0) {
    for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(null, standard);
    ::close(null);
  }
  write_all(descriptor_, std::string(1, '\0'));
  ::close(descriptor_);
  descriptor_ = -1;
}

bool Background::report_failure(const std::string& line, int code) {
  if (descriptor_ < 0) return false;
  write_all(descriptor_, static_cast<char>(code) + line);
  ::close(descriptor_);
  descriptor_ = -1;
  return true;
}

}  // namespace tarnfs
