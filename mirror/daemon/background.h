// Becoming a daemon: the process that was started waits until the daemon is ready or has failed, and says which.
//
// Thread safety: enter() before the first thread; the rest from the main thread.
#pragma once

#include <string>

#include "common/result.h"

namespace tarnfs {

class Background {
 public:
  // Returns in the child, which has a session of its own; the parent never returns from it.
  Status enter();
  // Lets the parent exit with 0, and closes standard input and output. Does nothing without enter().
  void report_ready();
  // Lets the parent print the line and exit with `code`. False without enter(): nobody waits.
  bool report_failure(const std::string& line, int code);

 private:
  int descriptor_ = -1;  // of the pipe to the parent
};

}  // namespace tarnfs
