// What the next consistency points will free, as far as it is known before they have walked the trees.
//
// Purpose: statfs(2) counts what was deleted a moment ago. An operation can have it too: one that finds no space waits
// for those consistency points before it says ENOSPC.
//
// Invariants:
//   1. blocks() is a lower bound, provided that no block is shared.
//   2. What a generation frees is in its own count, and what is left of an orphan that is being cut down, a part with
//      each consistency point, in the orphan's.
//
// Thread safety: none of its own; the owner's lock guards it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <unordered_map>

#include "common/types.h"

namespace tarnfs {

class ComingSpace {
 public:
  std::uint64_t blocks() const { return freed_blocks_[0] + freed_blocks_[1] + orphans_blocks_; }
  bool has_orphans() const { return !orphans_.empty(); }
  std::uint64_t orphans_blocks() const { return orphans_blocks_; }

  // `generation` gives back so many blocks that were promised, and so many that the inode has: an orphan that is being
  // cut down has those fewer left.
  void add_freed(std::uint64_t generation, std::uint64_t promised_blocks, InodeNumber inode, std::uint64_t blocks) {
    freed_blocks_[generation & 1] += promised_blocks + blocks;
    if (const auto orphan = orphans_.find(inode.value); orphan != orphans_.end()) {
      set_left(orphan->second, orphan->second - std::min(orphan->second, blocks));
    }
  }
  // The root of `generation` is durable.
  void published(std::uint64_t generation) { freed_blocks_[generation & 1] = 0; }

  // The orphan is being cut down, and these blocks are not in any generation's count.
  void set_orphan(InodeNumber inode, std::uint64_t blocks_left) { set_left(orphans_[inode.value], blocks_left); }
  bool has_orphan(InodeNumber inode) const { return orphans_.contains(inode.value); }
  void forget_orphan(InodeNumber inode) {
    const auto orphan = orphans_.find(inode.value);
    if (orphan == orphans_.end()) return;
    set_left(orphan->second, 0);
    orphans_.erase(orphan);
  }

 private:
  void set_left(std::uint64_t& left, std::uint64_t blocks) {
    orphans_blocks_ += blocks - left;
    left = blocks;
  }

  std::array<std::uint64_t, 2> freed_blocks_{};  // by generation & 1
  std::unordered_map<std::uint64_t, std::uint64_t> orphans_;
  std::uint64_t orphans_blocks_ = 0;  // the sum of the above
};

}  // namespace tarnfs
