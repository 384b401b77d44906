#include "fs/control/background.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "common/log.h"
#include "fs/control/command_line.h"

namespace tarnfs {
namespace {

constexpr char kReady = '+';
constexpr char kFailed = '-';
constexpr char kUsage = '?';

void write_all(const Descriptor& to, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(to.number(), text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(count));
  }
}

// In the parent: waits for the report and turns it into an exit code.
int wait_for_report(const std::string& program, const Descriptor& from) {
  std::string report;
  std::array<char, 1024> bytes{};
  for (;;) {
    const ssize_t count = ::read(from.number(), bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    report.append(bytes.data(), static_cast<std::size_t>(count));
  }
  if (report.empty()) {
    return tell_failure(program,
                        Error(ErrorCode::kIo, "the daemon died before it could be used; see the system's log"));
  }
  if (report.front() == kReady) return kExitDone;
  return tell_failure(program, Error(report.front() == kUsage ? ErrorCode::kUsage : ErrorCode::kIo, report.substr(1)));
}

// Whoever started the command may wait for the end of what it writes.
void let_go_of_terminal() {
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0) return;
  for (const int number : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(null, number);
  if (null > STDERR_FILENO) ::close(null);
}

Error system_error(const std::string& what) {
  return Error(ErrorCode::kIo, what + ": " + std::strerror(errno));
}

}  // namespace

Result<Background> Background::enter(bool foreground, const std::string& program) {
  if (foreground) {
    open_log(LogTarget::kStandardError, program);
    return Background(program, Descriptor());
  }
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return system_error("make a pipe");
  Descriptor from(ends[0]);
  Descriptor to(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return system_error("start the daemon");
  if (child > 0) {
    to = Descriptor();
    std::fflush(stdout);
    ::_exit(wait_for_report(program, from));
  }
  ::setsid();
  if (::chdir("/") != 0) return system_error("go to /");
  ::umask(0);
  open_log(LogTarget::kSyslog, program);
  return Background(program, std::move(to));
}

void Background::ready() {
  if (!report_) return;
  let_go_of_terminal();
  write_all(report_, std::string_view(&kReady, 1));
  report_ = Descriptor();
}

int Background::failed(const Error& error) {
  const bool usage = error.code() == ErrorCode::kUsage;
  if (!report_) return tell_failure(program_, error);
  write_all(report_, std::string(1, usage ? kUsage : kFailed) + error.describe());
  report_ = Descriptor();
  return usage ? kExitUsage : kExitFailed;
}

Result<Descriptor> prepare_daemon_process() {
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // an image that may not become longer (RLIMIT_FSIZE) is an error, no end
  // Memory that this process asks for must not be waited for by writing to the file systems that it serves. Needs a
  // right that containers may not have; it is a precaution.
  ::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, number);
  if (::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return system_error("block signals");
  Descriptor signals(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals) return system_error("make a signalfd");
  return signals;
}

int take_signal(const Descriptor& signals) {
  signalfd_siginfo info{};
  const ssize_t count = ::read(signals.number(), &info, sizeof info);
  return count == sizeof info ? static_cast<int>(info.ssi_signo) : 0;
}

}  // namespace tarnfs
