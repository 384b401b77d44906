#include "mirror/sender/lag_tracker.h"

#include <utility>

namespace tarnfs {
namespace {

constexpr std::int64_t kNsPerSecond = 1'000'000'000;
constexpr std::int64_t kAgeMaxSeconds = std::int64_t{100} * 365 * 24 * 3600;  // the time may be a peer's word

}  // namespace

void LagTracker::begin(Cp newest, std::uint64_t used_bytes, Timestamp oldest) {
  newest_ = newest;
  used_bytes_ = used_bytes;
  oldest_ = oldest;
  begin_again(mirror_, oldest);
}

// One entry for all that the mirror lacks.
void LagTracker::begin_again(Cp cp, Timestamp oldest) {
  mirror_ = cp;
  entries_.clear();
  if (newest_ > mirror_) entries_.push_back({newest_, used_bytes_, monotonic_of(oldest), true});
}

void LagTracker::add_cp(Cp cp, std::uint64_t used_bytes) {
  newest_ = cp;
  used_bytes_ = used_bytes;
  const std::uint64_t bytes = std::exchange(open_bytes_, 0);
  if (cp <= mirror_) return;
  if (entries_.size() == kEntriesMax) {
    entries_.back().cp = cp;
    entries_.back().bytes += bytes;
    return;
  }
  entries_.push_back({cp, bytes, static_cast<std::int64_t>(clock_.monotonic_ns()), false});
}

void LagTracker::set_mirror(Cp cp) {
  mirror_ = cp;
  while (!entries_.empty() && entries_.front().cp <= cp) entries_.pop_front();
}

void LagTracker::meet_mirror(Cp cp, Timestamp time) {
  const Timestamp oldest = cp.value == 0 ? oldest_ : time;
  if (cp < mirror_) begin_again(cp, oldest);
  set_mirror(cp);
  if (cp.value == 0 || entries_.empty() || !entries_.front().is_bound) return;
  // What is not there is younger than what is.
  entries_.front().published_ns = std::max(entries_.front().published_ns, monotonic_of(oldest));
}

std::int64_t LagTracker::monotonic_of(Timestamp time) const {
  const Timestamp now = clock_.now();
  const std::int64_t seconds = std::clamp(time.seconds, now.seconds - kAgeMaxSeconds, now.seconds);
  const std::int64_t age_ns = (now.seconds - seconds) * kNsPerSecond + std::int64_t{now.nanoseconds} - time.nanoseconds;
  return static_cast<std::int64_t>(clock_.monotonic_ns()) - std::max<std::int64_t>(age_ns, 0);
}

std::uint64_t LagTracker::lag_bytes() const {
  std::uint64_t bytes = 0;
  for (const Entry& entry : entries_) bytes += entry.bytes;
  return std::min(bytes, used_bytes_);
}

std::uint64_t LagTracker::lag_ns() const {
  if (entries_.empty()) return 0;
  const auto now_ns = static_cast<std::int64_t>(clock_.monotonic_ns());
  return static_cast<std::uint64_t>(std::max<std::int64_t>(now_ns - entries_.front().published_ns, 0));
}

}  // namespace tarnfs
