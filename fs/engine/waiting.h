// Whether the calling thread may wait for a disk, a consistency point or space.
//
// Purpose: over io_uring one thread serves all requests of a processor's queue. An operation that runs there inside a
// NoWaitScope does not wait: it fails with kWouldWait before it has changed anything, and is done again elsewhere.
//
// Invariants:
//   1. An operation that fails with kWouldWait has changed nothing that anybody can see.
//   2. Short waits on locks and on the gate, which answer from memory, do not count.
//
// Thread safety: a scope belongs to the thread that made it.
// Errors: kWouldWait is for the front end alone; no user sees it.
#pragma once

#include <utility>

namespace tarnfs {

class NoWaitScope {
 public:
  friend class WaitScope;

  NoWaitScope() : outer_(std::exchange(innermost, this)) {}
  ~NoWaitScope() { innermost = outer_; }
  NoWaitScope(const NoWaitScope&) = delete;
  NoWaitScope& operator=(const NoWaitScope&) = delete;

  // Whether this thread is inside of one, and may not wait.
  static bool is_active() { return innermost != nullptr; }
  // The request of the innermost scope is not answered here.
  static void put_off() {
    if (innermost != nullptr) innermost->is_put_off_ = true;
  }
  bool is_put_off() const { return is_put_off_; }

 private:
  static inline thread_local NoWaitScope* innermost = nullptr;

  NoWaitScope* const outer_;
  bool is_put_off_ = false;
};

// What must be done to its end: inside it the thread may wait again.
class WaitScope {
 public:
  WaitScope() : outer_(std::exchange(NoWaitScope::innermost, nullptr)) {}
  ~WaitScope() { NoWaitScope::innermost = outer_; }
  WaitScope(const WaitScope&) = delete;
  WaitScope& operator=(const WaitScope&) = delete;

 private:
  NoWaitScope* const outer_;
};

}  // namespace tarnfs
