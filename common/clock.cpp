#include "common/clock.h"

#include <sys/random.h>
#include <time.h>

#include <cstring>

#include "common/result.h"

namespace tarnfs {
namespace {

class SystemClock final : public Clock {
 public:
  Timestamp now() override {
    // The one that the kernel takes for timestamps: what it notes and what we note must not seem to go back in time.
    timespec ts{};
    ::clock_gettime(CLOCK_REALTIME_COARSE, &ts);
    return {ts.tv_sec, static_cast<std::uint32_t>(ts.tv_nsec)};
  }
  std::uint64_t monotonic_ns() override {
    timespec ts{};
    ::clock_gettime(CLOCK_MONOTONIC, &ts);
    return static_cast<std::uint64_t>(ts.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(ts.tv_nsec);
  }
  std::uint64_t random() override {
    std::uint64_t bits = 0;
    TARNFS_ASSERT(::getrandom(&bits, sizeof bits, 0) == sizeof bits);
    return bits;
  }
};

}  // namespace

Id128 Clock::random_id() {
  Id128 id;
  const std::uint64_t halves[2] = {random(), random()};
  std::memcpy(id.bytes.data(), halves, sizeof halves);
  id.bytes[6] = static_cast<std::uint8_t>((id.bytes[6] & 0x0f) | 0x40);  // RFC 9562: version 4, variant 1
  id.bytes[8] = static_cast<std::uint8_t>((id.bytes[8] & 0x3f) | 0x80);
  return id;
}

Clock& system_clock() {
  static SystemClock clock;
  return clock;
}

}  // namespace tarnfs
