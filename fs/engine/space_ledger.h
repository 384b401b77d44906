// Promises of free blocks: an operation that needs blocks at the next consistency point gets them promised first, so
// that running out of space is told before anything is done.
//
// Invariants:
//   1. available + promised of all generations + promised of running operations = blocks that may be given out.
//   2. Ordinary operations leave `deletion_reserve` + `cp_reserve` alone, deletions leave `cp_reserve`, so that deletes
//      and consistency points work on a full volume.
//
// Thread safety: any thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace tarnfs {

class SpaceLedger {
 public:
  SpaceLedger(std::uint64_t allocatable_blocks, std::uint64_t cp_reserve_blocks, std::uint64_t deletion_reserve_blocks)
      : cp_reserve_(static_cast<std::int64_t>(cp_reserve_blocks)),
        deletion_reserve_(static_cast<std::int64_t>(deletion_reserve_blocks)),
        available_(static_cast<std::int64_t>(allocatable_blocks)) {}

  // Promises `blocks`, or returns false. `deletion`: the operation gives space back in the end.
  bool promise(std::uint64_t blocks, bool deletion) {
    const auto wanted = static_cast<std::int64_t>(blocks);
    const auto floor = [&] { return cp_reserve_.load() + (deletion ? 0 : deletion_reserve_); };
    std::int64_t now = available_.load();
    while (now - wanted >= floor()) {
      if (!available_.compare_exchange_weak(now, now - wanted)) continue;
      if (now - wanted >= floor()) return true;
      give_back(wanted);  // the reserve was raised meanwhile
      return false;
    }
    return false;
  }
  // Raises the reserve of consistency points, or returns false when it is not there.
  bool raise_cp_reserve(std::uint64_t blocks) {
    if (!promise(blocks, false)) return false;
    cp_reserve_.fetch_add(static_cast<std::int64_t>(blocks));
    give_back(static_cast<std::int64_t>(blocks));
    return true;
  }
  // Raises it when it was there before a crash or an unmount; also takes back what was raised too much.
  void change_cp_reserve(std::int64_t blocks) { cp_reserve_.fetch_add(blocks); }
  // Takes blocks that were promised before a crash: there is no saying no.
  void take(std::uint64_t blocks) { available_.fetch_sub(static_cast<std::int64_t>(blocks)); }
  void give_back(std::int64_t blocks) { available_.fetch_add(blocks); }

  // Below 0 only after a crash, when what was promised before it is not written yet.
  std::int64_t available() const { return available_.load(std::memory_order_relaxed); }
  // What ordinary operations leave alone.
  std::int64_t reserve_blocks() const { return cp_reserve_.load() + deletion_reserve_; }
  // What ordinary operations can still get.
  std::uint64_t available_to_users_blocks() const {
    return static_cast<std::uint64_t>(
        std::max<std::int64_t>(0, available_.load(std::memory_order_relaxed) - cp_reserve_.load() - deletion_reserve_));
  }

 private:
  std::atomic<std::int64_t> cp_reserve_;
  const std::int64_t deletion_reserve_;
  std::atomic<std::int64_t> available_;
};

}  // namespace tarnfs
