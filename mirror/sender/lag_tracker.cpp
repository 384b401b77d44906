#include "mirror/sender/lag_tracker.h"

#include <utility>

namespace tarnfs {

void LagTracker::add_cp(Cp cp, std::uint64_t now_ns) {
  newest_ = cp;
  const std::uint64_t bytes = std::exchange(open_bytes_, 0);
  if (cp <= mirror_) return;
  if (entries_.size() == kEntriesMax) {
    entries_.back().cp = cp;
    entries_.back().bytes += bytes;
    return;
  }
  entries_.push_back({cp, bytes, now_ns});
}

void LagTracker::set_mirror(Cp cp) {
  mirror_ = cp;
  while (!entries_.empty() && entries_.front().cp <= cp) entries_.pop_front();
}

std::uint64_t LagTracker::lag_bytes() const {
  std::uint64_t bytes = 0;
  for (const Entry& entry : entries_) bytes += entry.bytes;
  return bytes;
}

std::uint64_t LagTracker::lag_ns(std::uint64_t now_ns) const {
  return entries_.empty() ? 0 : now_ns - entries_.front().published_ns;
}

}  // namespace tarnfs
