// Promises of free blocks: an operation that needs blocks at the next consistency point gets them promised first, so
// that running out of space is told before anything is done.
//
// Invariants:
//   1. available + promised of all generations + promised of running operations + kept for inodes (RootBlock) = blocks
//      that may be given out.
//   2. Ordinary operations leave `deletion_reserve` + `cp_reserve` alone, deletions leave `cp_reserve`, so that deletes
//      and consistency points work on a full volume. So do other operations that take nothing for longer than to the
//      next consistency point.
//
// Thread safety: any thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace tarnfs {

// A consistency point may rewrite the whole free map once, and the nodes above the inode file.
constexpr std::uint64_t cp_reserve_blocks_of(std::uint64_t map_pages) {
  return 2 * map_pages + 64;
}

// What the largest deletion needs, and more on larger volumes so that many run beside each other.
constexpr std::uint64_t deletion_reserve_blocks_of(std::uint64_t size_blocks) {
  return std::clamp<std::uint64_t>(size_blocks / 16, 96, 384) + std::min<std::uint64_t>(size_blocks / 64, 4096);
}

class SpaceLedger {
 public:
  // The reserves are 0 at first.
  explicit SpaceLedger(std::uint64_t allocatable_blocks) : available_(static_cast<std::int64_t>(allocatable_blocks)) {}

  // Promises `blocks`, or returns false. `deletion`: the operation gives space back in the end, or takes none for long.
  bool promise(std::uint64_t blocks, bool deletion) {
    const auto wanted = static_cast<std::int64_t>(blocks);
    const auto floor = [&] { return cp_reserve_.load() + (deletion ? 0 : deletion_reserve_.load()); };
    std::int64_t now = available_.load();
    while (now - wanted >= floor()) {
      if (!available_.compare_exchange_weak(now, now - wanted)) continue;
      if (now - wanted >= floor()) return true;
      give_back(wanted);  // a reserve was raised meanwhile
      return false;
    }
    return false;
  }
  // Returns false, and changes nothing, when what the reserve of consistency points is raised by is not there; with
  // `must` it is taken as it is. One caller at a time.
  bool set_reserves(std::uint64_t cp_blocks, std::uint64_t deletion_blocks, bool must) {
    const std::int64_t raised = static_cast<std::int64_t>(cp_blocks) - cp_reserve_.load();
    const bool asks = !must && raised > 0;
    if (asks && !promise(static_cast<std::uint64_t>(raised), false)) return false;
    cp_reserve_ = static_cast<std::int64_t>(cp_blocks);
    deletion_reserve_ = static_cast<std::int64_t>(deletion_blocks);
    if (asks) give_back(raised);
    return true;
  }
  // Takes blocks that were promised before a crash: there is no saying no.
  void take(std::uint64_t blocks) { available_.fetch_sub(static_cast<std::int64_t>(blocks)); }
  void give_back(std::int64_t blocks) { available_.fetch_add(blocks); }

  // Below 0 only after a crash, when what was promised before it is not written yet.
  std::int64_t available() const { return available_.load(std::memory_order_relaxed); }
  // What ordinary operations leave alone.
  std::int64_t reserve_blocks() const { return cp_reserve_.load() + deletion_reserve_; }
  // What ordinary operations can still get.
  std::uint64_t available_to_users_blocks() const {
    const std::int64_t reserves = cp_reserve_.load() + deletion_reserve_.load();
    return static_cast<std::uint64_t>(std::max<std::int64_t>(0, available_.load(std::memory_order_relaxed) - reserves));
  }

 private:
  std::atomic<std::int64_t> cp_reserve_{0};
  std::atomic<std::int64_t> deletion_reserve_{0};
  std::atomic<std::int64_t> available_;
};

}  // namespace tarnfs
