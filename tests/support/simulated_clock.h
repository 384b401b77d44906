// A clock and a source of randomness that give the same answers in every run from one seed.
//
// Thread safety: as Clock.
#pragma once

#include <atomic>

#include "common/clock.h"

namespace tarnfs::testing {

// Spreads the bits of a counter (splitmix64).
inline std::uint64_t mix_bits(std::uint64_t value) {
  value += 0x9e3779b97f4a7c15ULL;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

class SimulatedClock final : public Clock {
 public:
  explicit SimulatedClock(std::uint64_t seed) : seed_(seed) {}
  Timestamp now() override { return Timestamp{1'700'000'000, static_cast<std::uint32_t>(ticks_.fetch_add(1) + 1)}; }
  std::uint64_t monotonic_ns() override { return ticks_.fetch_add(1); }
  void advance(std::uint64_t ns) { ticks_.fetch_add(ns); }
  std::uint64_t random() override { return mix_bits(seed_ + draws_.fetch_add(1)); }

 private:
  const std::uint64_t seed_;
  std::atomic<std::uint64_t> ticks_{0};
  std::atomic<std::uint64_t> draws_{0};
};

}  // namespace tarnfs::testing
