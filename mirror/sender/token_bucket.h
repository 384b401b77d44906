// A limit of a rate: what may be sent now, and else when.
//
// Purpose: `tarn limit`. A message may be sent when nothing is owed; what it has too many bytes is owed until the rate
// has paid for it. So messages of any size get through, and over a second or more the rate holds.
//
// Invariants:
//   1. In any time t at most rate * t + the burst + one message are spent.
//
// Thread safety: none; one thread.
#pragma once

#include <algorithm>
#include <cstdint>

namespace tarnfs {

class TokenBucket {
 public:
  // 0: no limit. A bucket that is new, or has had no limit, is full.
  void set_rate(std::uint64_t bytes_per_second, std::uint64_t now_ns) {
    if (bytes_per_second == rate_bytes_) return;
    fill(now_ns);
    if (rate_bytes_ == 0) saved_bytes_ = burst_bytes(bytes_per_second);
    rate_bytes_ = bytes_per_second;
    saved_bytes_ = std::min(saved_bytes_, burst_bytes(rate_bytes_));
    filled_ns_ = now_ns;
  }
  void spend(std::uint64_t bytes) {
    if (rate_bytes_ != 0) saved_bytes_ -= static_cast<double>(bytes);
  }
  // How long from now until something may be sent; 0: now.
  std::uint64_t wait_ns(std::uint64_t now_ns) {
    fill(now_ns);
    if (rate_bytes_ == 0 || saved_bytes_ >= 0) return 0;
    return static_cast<std::uint64_t>(-saved_bytes_ / static_cast<double>(rate_bytes_) * kNsPerSecond) + 1;
  }

 private:
  static constexpr double kNsPerSecond = 1e9;
  static constexpr double kBurstSeconds = 0.1;

  static double burst_bytes(std::uint64_t bytes_per_second) {
    return kBurstSeconds * static_cast<double>(bytes_per_second);
  }

  void fill(std::uint64_t now_ns) {
    const double seconds = static_cast<double>(now_ns - std::min(now_ns, filled_ns_)) / kNsPerSecond;
    filled_ns_ = now_ns;
    saved_bytes_ = std::min(saved_bytes_ + seconds * static_cast<double>(rate_bytes_), burst_bytes(rate_bytes_));
  }

  std::uint64_t rate_bytes_ = 0;
  double saved_bytes_ = 0;  // below 0: owed
  std::uint64_t filled_ns_ = 0;
};

}  // namespace tarnfs
