// How a daemon starts: the command returns once the daemon can be used, or with its error.
//
// Invariants:
//   1. The process forks before it has threads; the parent only waits for the report and exits.
//   2. The parent exits with 0 after ready(), and with 1 after failed() or when the daemon dies without a report.
//
// Thread safety: one thread.
#pragma once

#include <string>

#include "common/descriptor.h"
#include "common/result.h"

namespace tarnfs {

class Background {
 public:
  // In the foreground it does not fork, and logs go to standard error. Otherwise only the child returns, in a session
  // of its own, and logs go to syslog.
  static Result<Background> enter(bool foreground, const std::string& program);

  // The daemon can be used: the command returns, and the daemon lets go of its terminal.
  void ready();
  // Tells why it cannot. Returns the exit code for the daemon itself.
  int failed(const Error& error);

 private:
  Background(std::string program, Descriptor report) : program_(std::move(program)), report_(std::move(report)) {}

  std::string program_;
  Descriptor report_;  // none in the foreground, and after the report
};

// What every daemon does before it has threads: ignores SIGPIPE, blocks SIGTERM, SIGINT and SIGHUP for all threads to
// come and returns a descriptor that they are read from, and tells the kernel that this process serves file systems.
Result<Descriptor> prepare_daemon_process();
// The next signal that arrived there; 0 when there is none.
int take_signal(const Descriptor& signals);

}  // namespace tarnfs
