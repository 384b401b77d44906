// How far a mirror is behind: in consistency points, bytes and seconds.
//
// Invariants:
//   1. Memory is bounded: beyond a number of entries the newest two become one, and the lag is then over-estimated
//      until the mirror has published both.
//
// Thread safety: none; guarded by its owner.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>

#include "common/types.h"

namespace tarnfs {

class LagTracker {
 public:
  void add_bytes(std::uint64_t bytes) { open_bytes_ += bytes; }
  // A cp was published here.
  void add_cp(Cp cp, std::uint64_t now_ns);
  // The mirror has published `cp`; an older one than before when another mirror came.
  void set_mirror(Cp cp);

  std::uint64_t lag_cps() const { return newest_.value - std::min(newest_.value, mirror_.value); }
  std::uint64_t lag_bytes() const;
  std::uint64_t lag_ns(std::uint64_t now_ns) const;
  Cp newest() const { return newest_; }

 private:
  static constexpr std::size_t kEntriesMax = 1024;

  struct Entry {
    Cp cp;
    std::uint64_t bytes = 0;
    std::uint64_t published_ns = 0;
  };

  std::deque<Entry> entries_;  // published here and not yet by the mirror
  std::uint64_t open_bytes_ = 0;
  Cp newest_;
  Cp mirror_;
};

}  // namespace tarnfs
