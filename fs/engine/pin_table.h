// Which roots somebody still reads, how much is kept because of them, and when it is too much.
//
// Invariants:
//   1. oldest() is the smallest pinned cp that is not lost, or the newest durable one when there is none.
//   2. `history_` has every cp after the one that was last released to, as long as anything is pinned.
//
// Thread safety: any thread; note_root() and release_point() the consistency point's.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <vector>

#include "common/mutex.h"
#include "common/replication.h"

namespace tarnfs {

struct PinLimits {
  std::uint64_t held_bytes = ~std::uint64_t{0};
  std::uint64_t age_ns = 0;  // 0: none
};

enum class PinKind {
  kPublished,  // what a mirror shows
  kCopied,     // what is being sent; it takes as long as it takes
};

class PinTable {
 public:
  PinId add(Cp cp, PinKind kind);
  // Forward only. A lost pin holds again.
  void move(PinId pin, Cp cp);
  void remove(PinId pin);

  // The root of `cp` is durable now; it refers to so many blocks less of those that the one before referred to.
  void note_root(Cp cp, std::uint64_t freed_blocks, std::uint64_t now_ns);
  // Pins that are over the limits hold nothing from now on, until they are moved. What the newest root freed does not
  // count: a mirror that keeps up is about to publish it.
  std::vector<LostPin> lose_beyond(const PinLimits& limits, std::uint64_t now_ns);
  // All of them: the volume is full, and local writers come first.
  std::vector<LostPin> lose_all(std::uint64_t now_ns);

  Cp oldest(Cp newest_durable) const;
  // The same, for the caller to release what was freed up to it.
  Cp release_point(Cp newest_durable);
  std::uint64_t held_bytes(PinId pin) const;

 private:
  struct Pin {
    Cp cp;
    PinKind kind = PinKind::kPublished;
    bool lost = false;
  };
  struct Step {
    Cp cp;
    std::uint64_t before_blocks = 0;  // freed by all before it, since the volume was opened
    std::uint64_t published_ns = 0;
  };

  Cp oldest_locked(Cp newest_durable) const TARNFS_REQUIRES(mutex_);
  const Step* first_after(Cp cp) const TARNFS_REQUIRES(mutex_);
  std::uint64_t held_blocks(const Pin& pin) const TARNFS_REQUIRES(mutex_);
  LostPin lose(PinId id, Pin& pin, PinLoss why, std::uint64_t now_ns) TARNFS_REQUIRES(mutex_);
  std::uint64_t age_ns(const Pin& pin, std::uint64_t now_ns) const TARNFS_REQUIRES(mutex_);

  mutable Mutex mutex_;
  PinId last_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::map<PinId, Pin> pins_ TARNFS_GUARDED_BY(mutex_);
  std::deque<Step> history_ TARNFS_GUARDED_BY(mutex_);        // by cp
  std::uint64_t freed_blocks_ TARNFS_GUARDED_BY(mutex_) = 0;  // by all since the volume was opened
};

}  // namespace tarnfs
