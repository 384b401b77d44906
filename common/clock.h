// The seam to time and randomness, so that a whole system can be run from one printed seed.
//
// Thread safety: all functions may be called from any thread.
#pragma once

#include <cstdint>

#include "common/types.h"

namespace tarnfs {

class Clock {
 public:
  virtual ~Clock() = default;
  // The time of day, for timestamps of files.
  virtual Timestamp now() = 0;
  // Nanoseconds that only grow, for intervals.
  virtual std::uint64_t monotonic_ns() = 0;
  // 64 random bits.
  virtual std::uint64_t random() = 0;

  Id128 random_id();
};

// The real one: CLOCK_REALTIME, CLOCK_MONOTONIC and getrandom(2).
Clock& system_clock();

}  // namespace tarnfs
