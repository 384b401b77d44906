// Ends a test that hangs, with a message that says in what.
//
// Thread safety: all functions may be called from any thread.
#pragma once

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "common/mutex.h"

namespace tarnfs::testing {

class Watchdog {
 public:
  explicit Watchdog(std::chrono::seconds patience) : patience_(patience), thread_([this] { watch(); }) {}
  ~Watchdog() {
    {
      MutexLock lock(mutex_);
      finished_ = true;
      changed_.notify_all();
    }
    thread_.join();
  }
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // Something new begins, and has all the time again.
  void begin(const std::string& what) {
    MutexLock lock(mutex_);
    what_ = what;
    ++beginnings_;
    changed_.notify_all();
  }

 private:
  void watch() {
    MutexLock lock(mutex_);
    std::uint64_t seen = beginnings_;
    auto until = std::chrono::steady_clock::now() + patience_;
    while (!finished_) {
      const auto now = std::chrono::steady_clock::now();
      if (beginnings_ != seen) {
        seen = beginnings_;
        until = now + patience_;
      }
      if (now >= until) {
        std::fprintf(stderr, "watchdog: no end within %lld s: %s\n", static_cast<long long>(patience_.count()),
                     what_.c_str());
        std::abort();
      }
      changed_.wait_for(mutex_, until - now);
    }
  }

  const std::chrono::seconds patience_;
  Mutex mutex_;
  Condition changed_;
  std::string what_ TARNFS_GUARDED_BY(mutex_) = "the start";
  std::uint64_t beginnings_ TARNFS_GUARDED_BY(mutex_) = 0;
  bool finished_ TARNFS_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace tarnfs::testing
