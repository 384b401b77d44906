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
#include <utility>

#include "common/mutex.h"
#include "common/replication.h"

namespace tarnfs {

class PinTable {
 public:
  PinId add(Cp cp) {
    MutexLock lock(mutex_);
    pins_.emplace(++last_, Pin{cp, false});
    return last_;
  }
  void move(PinId pin, Cp cp) {
    MutexLock lock(mutex_);
    const auto found = pins_.find(pin);
    if (found == pins_.end()) return;
    found->second.cp = std::max(found->second.cp, cp);
    found->second.given_up = false;
  }
  void remove(PinId pin) {
    MutexLock lock(mutex_);
    pins_.erase(pin);
  }
  // Gives all pins up, until they are moved to a newer root: the volume is full, and local writers come first. A mirror
  // then stages what lands on blocks that it still shows. Returns how many there were.
  std::size_t give_up_all() {
    MutexLock lock(mutex_);
    std::size_t count = 0;
    for (auto& [id, pin] : pins_) count += std::exchange(pin.given_up, true) ? 0 : 1;
    return count;
  }
  bool is_given_up(PinId pin) {
    MutexLock lock(mutex_);
    const auto found = pins_.find(pin);
    return found == pins_.end() || found->second.given_up;
  }
  Cp oldest(Cp newest_durable) {
    MutexLock lock(mutex_);
    Cp oldest = newest_durable;
    for (const auto& [id, pin] : pins_) {
      if (!pin.given_up) oldest = std::min(oldest, pin.cp);
    }
    return oldest;
  }

 private:
  struct Pin {
    Cp cp;
    bool given_up = false;
  };

  Mutex mutex_;
  PinId last_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::map<PinId, Pin> pins_ TARNFS_GUARDED_BY(mutex_);
};

}  // namespace tarnfs
