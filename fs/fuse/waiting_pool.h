// Threads for requests that have to wait: for a disk, or for a consistency point.
//
// Purpose: over io_uring each queue has one thread, which handles its requests one after the other. What waits there
// holds up every request behind it, so it is handed over to these threads.
//
// Invariants:
//   1. A job that run() took is run, also when the pool is being closed.
//   2. The threads live as long as the pool: the kernel ends io_uring requests whose submitting thread is gone, so the
//      pool must outlive the rings that its jobs reply to.
//   3. Jobs run under no lock.
//
// Thread safety: all functions may be called from any thread; close() and the destructor not from a job.
// Ownership: the pool owns its threads.
#pragma once

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "common/mutex.h"

namespace tarnfs {

class WaitingPool {
 public:
  explicit WaitingPool(unsigned thread_count);
  ~WaitingPool();
  WaitingPool(const WaitingPool&) = delete;
  WaitingPool& operator=(const WaitingPool&) = delete;

  // Takes `job`, unless the pool is closed: then it returns false, and the caller does the job itself.
  bool run(std::function<void()> job);
  // Returns when every job that was taken is done. None is taken any more.
  void close();

 private:
  void work();

  Mutex mutex_;
  Condition changed_;
  std::deque<std::function<void()>> jobs_ TARNFS_GUARDED_BY(mutex_);
  unsigned running_ TARNFS_GUARDED_BY(mutex_) = 0;
  bool closed_ TARNFS_GUARDED_BY(mutex_) = false;
  bool ending_ TARNFS_GUARDED_BY(mutex_) = false;
  Condition drained_;
  std::vector<std::thread> threads_;
};

}  // namespace tarnfs
