// How a quantity of nanoseconds is distributed, counted by many threads at once.
//
// Purpose: what operations waited for is told as percentiles without keeping each value.
//
// Invariants:
//   1. Every add() is in exactly one bucket. Buckets are powers of two, each cut into four equal parts, so what a
//      percentile says is at most a quarter above the true value, and never below it.
//   2. A value of 0 takes no memory that other threads write all the time: zeros are counted in stripes, by thread.
//
// Thread safety: all functions may be called from any thread. A summary that is made while others add has what each
// of them added, or not yet.
// Ownership: a value of about 3 KiB; not copied.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace tarnfs {

struct WaitSummary {
  std::uint64_t count = 0;
  std::uint64_t waited_count = 0;  // of those: above 0
  std::uint64_t p50_ns = 0;
  std::uint64_t p99_ns = 0;
  std::uint64_t p999_ns = 0;
  std::uint64_t longest_ns = 0;
};

class Histogram {
 public:
  Histogram() = default;
  Histogram(const Histogram&) = delete;
  Histogram& operator=(const Histogram&) = delete;

  void add(std::uint64_t value_ns) {
    if (value_ns == 0) {
      stripes_[stripe_of_this_thread()].zeros.fetch_add(1, std::memory_order_relaxed);
      return;
    }
    std::uint64_t longest = longest_ns_.load(std::memory_order_relaxed);
    while (longest < value_ns && !longest_ns_.compare_exchange_weak(longest, value_ns, std::memory_order_relaxed)) {
    }
    buckets_[bucket_of(value_ns)].fetch_add(1, std::memory_order_relaxed);
  }

  std::uint64_t count() const { return copy().count; }
  std::uint64_t longest_ns() const { return longest_ns_.load(std::memory_order_relaxed); }
  // A bound that so many thousandths of the values do not exceed; 0 when there are none.
  std::uint64_t percentile_ns(unsigned per_mille) const { return percentile_of(copy(), per_mille); }

  WaitSummary summary() const {
    const Copy now = copy();
    WaitSummary summary;
    summary.count = now.count;
    summary.waited_count = now.count - now.buckets[0];
    summary.p50_ns = percentile_of(now, 500);
    summary.p99_ns = percentile_of(now, 990);
    summary.p999_ns = percentile_of(now, 999);
    summary.longest_ns = now.longest_ns;
    return summary;
  }

 private:
  static constexpr std::size_t kPartsOfPower = 4;
  static constexpr std::size_t kPartBits = 2;
  static constexpr std::size_t kBuckets = (64 - kPartBits + 1) * kPartsOfPower;
  static constexpr std::size_t kStripes = 16;

  struct alignas(64) Stripe {
    std::atomic<std::uint64_t> zeros{0};
  };
  // The zeros stand in bucket 0.
  struct Copy {
    std::array<std::uint64_t, kBuckets> buckets{};
    std::uint64_t count = 0;
    std::uint64_t longest_ns = 0;
  };

  // Values below 4 have a bucket each; above, the two bits after the highest one choose the part.
  static constexpr std::size_t bucket_of(std::uint64_t value) {
    if (value < kPartsOfPower) return value;
    const std::size_t shift = std::bit_width(value) - 1 - kPartBits;
    return (shift + 1) * kPartsOfPower + ((value >> shift) & (kPartsOfPower - 1));
  }
  static constexpr std::uint64_t largest_in(std::size_t bucket) {
    if (bucket < kPartsOfPower) return bucket;
    const std::size_t shift = bucket / kPartsOfPower - 1;
    const std::uint64_t first = (kPartsOfPower + bucket % kPartsOfPower) << shift;
    return first + ((std::uint64_t{1} << shift) - 1);
  }

  static std::size_t stripe_of_this_thread() {
    static std::atomic<std::size_t> next{0};
    thread_local const std::size_t stripe = next.fetch_add(1, std::memory_order_relaxed) % kStripes;
    return stripe;
  }

  Copy copy() const {
    static_assert(bucket_of(~std::uint64_t{0}) == kBuckets - 1 && largest_in(kBuckets - 1) == ~std::uint64_t{0});
    Copy now;
    for (std::size_t i = 0; i < kBuckets; ++i) now.buckets[i] = buckets_[i].load(std::memory_order_relaxed);
    for (const Stripe& stripe : stripes_) now.buckets[0] += stripe.zeros.load(std::memory_order_relaxed);
    for (const std::uint64_t bucket : now.buckets) now.count += bucket;
    now.longest_ns = longest_ns_.load(std::memory_order_relaxed);
    return now;
  }

  static std::uint64_t percentile_of(const Copy& now, unsigned per_mille) {
    const std::uint64_t wanted = (now.count * per_mille + 999) / 1000;
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < kBuckets && wanted > 0; ++i) {
      seen += now.buckets[i];
      if (seen >= wanted) return std::min(largest_in(i), now.longest_ns);
    }
    return 0;
  }

  std::array<std::atomic<std::uint64_t>, kBuckets> buckets_{};
  std::array<Stripe, kStripes> stripes_{};
  std::atomic<std::uint64_t> longest_ns_{0};
};

}  // namespace tarnfs
