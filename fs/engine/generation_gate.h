// Operations pass in their generation; a consistency point closes the gate for the moment in which it opens the next.
//
// Invariants:
//   1. Between enter() and leave() the open generation does not change.
//   2. Nobody waits for a disk or a network between enter() and leave().
//
// Thread safety: any thread; a thread that is inside must not enter again.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "common/clock.h"
#include "common/mutex.h"

namespace tarnfs {

class GenerationGate {
 public:
  struct Entry {
    std::size_t lane = 0;         // to leave by
    std::uint64_t waited_ns = 0;  // for a closed gate
  };

  // Reads the clock only when the gate is closed.
  Entry enter(Clock& clock) TARNFS_NO_THREAD_SAFETY_ANALYSIS {
    const std::size_t lane = lane_of_this_thread();
    if (lanes_[lane].mutex.try_lock_shared()) return {lane, 0};
    const std::uint64_t began_ns = clock.monotonic_ns();
    lanes_[lane].mutex.lock_shared();
    return {lane, clock.monotonic_ns() - began_ns};
  }
  void leave(std::size_t lane) TARNFS_NO_THREAD_SAFETY_ANALYSIS { lanes_[lane].mutex.unlock_shared(); }

  // Waits until nobody is inside and keeps everybody out.
  void close() TARNFS_NO_THREAD_SAFETY_ANALYSIS {
    for (Lane& lane : lanes_) lane.mutex.lock();
  }
  void open() TARNFS_NO_THREAD_SAFETY_ANALYSIS {
    for (Lane& lane : lanes_) lane.mutex.unlock();
  }

 private:
  static constexpr std::size_t kLanes = 16;
  struct alignas(64) Lane {
    SharedMutex mutex;
  };

  static std::size_t lane_of_this_thread() {
    static std::atomic<std::size_t> next{0};
    thread_local const std::size_t lane = next.fetch_add(1, std::memory_order_relaxed) % kLanes;
    return lane;
  }

  std::array<Lane, kLanes> lanes_;
};

}  // namespace tarnfs
