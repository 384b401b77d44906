// The inodes in memory, by number.
//
// Invariants:
//   1. There is at most one Inode object for a number that anybody can reach.
//   2. An inode that somebody outside the cache refers to (an operation, the list of dirty inodes, a consistency point)
//      is never evicted.
//   3. Beyond the limit each insert() looks at four inodes and drops those that nobody asked for since they were looked
//      at last. So the cost is constant, and their number falls unless most of them are in use.
//   4. New inodes are in use as long as they are dirty, and the dirty limit bounds their number: who makes one does not
//      look for others to drop, which are in no processor's cache any more. The consistency point does, which makes
//      them clean.
//
// Thread safety: all functions may be called from any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "common/flat_map.h"
#include "common/mutex.h"
#include "fs/engine/inode.h"

namespace tarnfs {

class InodeCache {
 public:
  explicit InodeCache(std::size_t inodes_max) : per_shard_max_(inodes_max / kShards + 1) {}

  InodePtr find(InodeNumber number);
  // Adds it, or returns the one that is there already.
  InodePtr insert(const InodePtr& inode);
  // The same for one that is new and dirty.
  InodePtr insert_new(const InodePtr& inode);
  // Looks at each inode, or nearly each, as long as there are too many, and drops those that nobody uses and nobody
  // asked for since the last look.
  void shrink();
  void erase(InodeNumber number);
  void clear();

 private:
  static constexpr std::size_t kShards = 64;
  static constexpr std::size_t kLookedAtOnce = 4;
  struct Entry {
    InodePtr inode;
    bool asked_for = false;  // since it was looked at last
  };
  using Victims = std::array<InodePtr, kLookedAtOnce>;
  struct Shard {
    Mutex mutex;
    FlatMap<Entry> inodes TARNFS_GUARDED_BY(mutex);
    std::size_t hand TARNFS_GUARDED_BY(mutex) = 0;  // the slot that is looked at next
  };
  Shard& shard_of(InodeNumber number) { return shards_[number.value % kShards]; }
  static InodePtr add(Shard& shard, const InodePtr& inode) TARNFS_REQUIRES(shard.mutex);
  static std::size_t evict_some(Shard& shard, Victims& victims) TARNFS_REQUIRES(shard.mutex);

  const std::size_t per_shard_max_;
  std::array<Shard, kShards> shards_;
};

}  // namespace tarnfs
