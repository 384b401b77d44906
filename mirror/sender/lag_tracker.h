// How far a mirror is behind: in consistency points, bytes and seconds.
//
// Purpose: what would be lost with this machine now, beside what no consistency point has yet. It never says too
// little: until the mirror has said what it has, all of the volume counts, and of a state from before the mount no more
// is known than its time.
//
// Invariants:
//   1. Memory is bounded: beyond a number of entries the newest two become one, and the lag is then over-estimated
//      until the mirror has published both.
//   2. The lag is 0 exactly when the mirror has the newest consistency point.
//
// Thread safety: none; guarded by its owner.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>

#include "common/clock.h"
#include "common/types.h"

namespace tarnfs {

class LagTracker {
 public:
  explicit LagTracker(Clock& clock) : clock_(clock) {}

  // The volume is at `newest`, with so many bytes in use, and the oldest of them may be from `oldest`. Nothing is known
  // of the mirror.
  void begin(Cp newest, std::uint64_t used_bytes, Timestamp oldest);
  void add_bytes(std::uint64_t bytes) { open_bytes_ += bytes; }
  // A cp was published here.
  void add_cp(Cp cp, std::uint64_t used_bytes);
  // The mirror has published `cp`.
  void set_mirror(Cp cp);
  // The mirror has `cp`, which was published here at `time`; another mirror may have come, with an older one than
  // before. No cp: the mirror is empty.
  void meet_mirror(Cp cp, Timestamp time);

  std::uint64_t lag_cps() const { return newest_.value - std::min(newest_.value, mirror_.value); }
  std::uint64_t lag_bytes() const;
  std::uint64_t lag_ns() const;

 private:
  static constexpr std::size_t kEntriesMax = 1024;

  struct Entry {
    Cp cp;
    std::uint64_t bytes = 0;
    std::int64_t published_ns = 0;  // of the monotonic clock, which may have begun later
    bool is_bound = false;          // it was published then or later
  };

  void begin_again(Cp cp, Timestamp oldest);
  std::int64_t monotonic_of(Timestamp time) const;

  Clock& clock_;
  std::deque<Entry> entries_;  // published here and not yet by the mirror
  std::uint64_t open_bytes_ = 0;
  std::uint64_t used_bytes_ = 0;  // more the mirror cannot lack
  Timestamp oldest_;
  Cp newest_;
  Cp mirror_;
};

}  // namespace tarnfs
