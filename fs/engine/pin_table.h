// Which roots somebody still reads: their blocks must not be reused.
//
// Invariants:
//   1. oldest() is the smallest pinned cp, or the newest durable one when nothing is pinned.
//
// Thread safety: any thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>

#include "common/mutex.h"
#include "common/replication.h"

namespace tarnfs {

class PinTable {
 public:
  PinId add(Cp cp) {
    MutexLock lock(mutex_);
    pins_.emplace(++last_, cp);
    return last_;
  }
  void move(PinId pin, Cp cp) {
    MutexLock lock(mutex_);
    if (const auto found = pins_.find(pin); found != pins_.end()) found->second = std::max(found->second, cp);
  }
  void remove(PinId pin) {
    MutexLock lock(mutex_);
    pins_.erase(pin);
  }
  // Gives all pins up: the volume is full, and local writers come first. A mirror then stages what lands on blocks that
  // it still shows. Returns how many there were.
  std::size_t give_up_all() {
    MutexLock lock(mutex_);
    const std::size_t count = pins_.size();
    pins_.clear();
    return count;
  }
  Cp oldest(Cp newest_durable) {
    MutexLock lock(mutex_);
    Cp oldest = newest_durable;
    for (const auto& [id, cp] : pins_) oldest = std::min(oldest, cp);
    return oldest;
  }

 private:
  Mutex mutex_;
  PinId last_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::map<PinId, Cp> pins_ TARNFS_GUARDED_BY(mutex_);
};

}  // namespace tarnfs
