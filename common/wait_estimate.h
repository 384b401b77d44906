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

#include "common/clock.h"

namespace tarnfs {

class WaitEstimate {
 public:
  bool is_short() const { return average_ns_.load(std::memory_order_relaxed) < kShortNs; }
  // Runs `answer` and learns from how long it takes.
  template <class Answer>
  auto timed(Clock& clock, const Answer& answer) {
    const Timing timing(*this, clock);
    return answer();
  }
  void note(std::uint64_t elapsed_ns) {
    const std::uint64_t average_ns = average_ns_.load(std::memory_order_relaxed);
    average_ns_.store(average_ns - average_ns / kWeight + elapsed_ns / kWeight, std::memory_order_relaxed);
  }

 private:
  class Timing {
   public:
    Timing(WaitEstimate& estimate, Clock& clock)
        : estimate_(estimate), clock_(clock), began_ns_(clock.monotonic_ns()) {}
    ~Timing() { estimate_.note(clock_.monotonic_ns() - began_ns_); }
    Timing(const Timing&) = delete;
    Timing& operator=(const Timing&) = delete;

   private:
    WaitEstimate& estimate_;
    Clock& clock_;
    const std::uint64_t began_ns_;
  };

  static constexpr std::uint64_t kShortNs = 50'000;
  static constexpr std::uint64_t kWeight = 8;

  std::atomic<std::uint64_t> average_ns_{10 * kShortNs};
};

}  // namespace tarnfs
