// Promises of free blocks: an operation that needs blocks at the next consistency point gets them promised first, so
// that running out of space is told before anything is done.
//
// Invariants:
//   1. available + promised of all generations + promised of running operations + kept for inodes (RootBlock) = blocks
//      that may be given out.
//   2. Ordinary operations leave all three reserves alone. Writes that the kernel has accepted already may have the one
//      that is kept for them, so that others who fill the volume do not make what write(2) said yes to impossible.
//      Deletions, and other operations that take nothing for longer than to the next consistency point, leave the
//      reserve of consistency points alone, so that they and deletes work on a full volume. Renames, which can make a
//      directory larger, leave alone what the largest deletion needs besides.
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

constexpr std::uint64_t largest_deletion_blocks_of(std::uint64_t size_blocks) {
  return std::clamp<std::uint64_t>(size_blocks / 16, 96, 384);
}

// What the largest deletion needs, and more on larger volumes so that many run beside each other.
constexpr std::uint64_t deletion_reserve_blocks_of(std::uint64_t size_blocks) {
  return largest_deletion_blocks_of(size_blocks) + std::min<std::uint64_t>(size_blocks / 64, 4096);
}

// For what the kernel has of one FUSE mount and has not handed on: by default at most a five-hundredth of the memory,
// and each page may need a node of its own.
constexpr std::uint64_t accepted_reserve_blocks_of(std::uint64_t size_blocks) {
  return std::min<std::uint64_t>(size_blocks / 64, 65536);
}

enum class SpaceClaim {
  kOrdinary,
  kAccepted,  // of a write that write(2) said yes to
  kRename,
  kDeletion,  // of an operation that gives space back in the end, or takes none for long
};

struct SpaceReserves {
  std::uint64_t cp_blocks = 0;
  std::uint64_t deletion_blocks = 0;
  std::uint64_t largest_deletion_blocks = 0;  // of these
  std::uint64_t accepted_blocks = 0;
};

class SpaceLedger {
 public:
  // The reserves are 0 at first.
  explicit SpaceLedger(std::uint64_t allocatable_blocks) : available_(static_cast<std::int64_t>(allocatable_blocks)) {}

  // Promises `blocks`, or returns false.
  bool promise(std::uint64_t blocks, SpaceClaim claim) {
    const auto wanted = static_cast<std::int64_t>(blocks);
    std::int64_t now = available_.load();
    while (now - wanted >= left_alone_by(claim)) {
      if (!available_.compare_exchange_weak(now, now - wanted)) continue;
      if (now - wanted >= left_alone_by(claim)) return true;
      give_back(wanted);  // a reserve was raised meanwhile
      return false;
    }
    return false;
  }
  // Returns false, and changes nothing, when what the reserve of consistency points is raised by is not there; with
  // `must` it is taken as it is. One caller at a time.
  bool set_reserves(const SpaceReserves& reserves, bool must) {
    const std::int64_t raised = static_cast<std::int64_t>(reserves.cp_blocks) - cp_reserve_.load();
    const bool asks = !must && raised > 0;
    if (asks && !promise(static_cast<std::uint64_t>(raised), SpaceClaim::kOrdinary)) return false;
    cp_reserve_ = static_cast<std::int64_t>(reserves.cp_blocks);
    deletion_reserve_ = static_cast<std::int64_t>(reserves.deletion_blocks);
    largest_deletion_ = static_cast<std::int64_t>(reserves.largest_deletion_blocks);
    accepted_reserve_ = static_cast<std::int64_t>(reserves.accepted_blocks);
    if (asks) give_back(raised);
    return true;
  }
  // Takes blocks that were promised before a crash: there is no saying no.
  void take(std::uint64_t blocks) { available_.fetch_sub(static_cast<std::int64_t>(blocks)); }
  void give_back(std::int64_t blocks) { available_.fetch_add(blocks); }

  // What a consistency point made free.
  void offer(std::int64_t blocks) { offered_ = available_.fetch_add(blocks) + blocks; }
  // Whether the last consistency point left enough for the claim, whoever has taken it since.
  bool was_offered(std::uint64_t blocks, SpaceClaim claim) const {
    return offered_.load() - static_cast<std::int64_t>(blocks) >= left_alone_by(claim);
  }

  // Below 0 only after a crash, when what was promised before it is not written yet.
  std::int64_t available() const { return available_.load(std::memory_order_relaxed); }
  // What ordinary operations leave alone.
  std::int64_t reserve_blocks() const { return left_alone_by(SpaceClaim::kOrdinary); }
  // What ordinary operations can still get.
  std::uint64_t available_to_users_blocks() const {
    return static_cast<std::uint64_t>(std::max<std::int64_t>(0, available() - reserve_blocks()));
  }

 private:
  std::int64_t left_alone_by(SpaceClaim claim) const {
    std::int64_t blocks = cp_reserve_.load();
    if (claim == SpaceClaim::kRename) return blocks + largest_deletion_.load();
    if (claim != SpaceClaim::kDeletion) blocks += deletion_reserve_.load();
    if (claim == SpaceClaim::kOrdinary) blocks += accepted_reserve_.load();
    return blocks;
  }

  std::atomic<std::int64_t> cp_reserve_{0};
  std::atomic<std::int64_t> deletion_reserve_{0};
  std::atomic<std::int64_t> largest_deletion_{0};
  std::atomic<std::int64_t> accepted_reserve_{0};
  std::atomic<std::int64_t> available_;
  std::atomic<std::int64_t> offered_{0};
};

}  // namespace tarnfs
