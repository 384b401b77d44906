// Whether requests of one kind are worth handing to another thread.
//
// Purpose: waking another thread costs 50 to 100 microseconds, about as long as a disk takes for a small read. A
// request that is answered from memory, as most are, is better answered where it came; one that waits for a slow disk
// is not. Nobody knows before, so the latest of its kind tell.
//
// Invariants:
//   1. At first everything is expected to wait.
//   2. One slow request makes the next ones of its kind be handed over.
//
// Thread safety: all functions may be called from any thread at once; a note that is lost does no harm.
#pragma once

#include <atomic>
#include <cstdint>

namespace tarnfs {

class WaitEstimate {
 public:
  bool is_short() const { return average_ns_.load(std::memory_order_relaxed) < kShortNs; }
  void note(std::uint64_t elapsed_ns) {
    const std::uint64_t average_ns = average_ns_.load(std::memory_order_relaxed);
    average_ns_.store(average_ns - average_ns / kWeight + elapsed_ns / kWeight, std::memory_order_relaxed);
  }

 private:
  static constexpr std::uint64_t kShortNs = 50'000;
  static constexpr std::uint64_t kWeight = 8;

  std::atomic<std::uint64_t> average_ns_{10 * kShortNs};
};

}  // namespace tarnfs
