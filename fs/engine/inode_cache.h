// The inodes in memory, by number.
//
// Invariants:
//   1. There is at most one Inode object for a number that anybody can reach.
//   2. An inode that somebody outside the cache refers to (an operation, the list of dirty inodes, a consistency point)
//      is never evicted.
//
// Thread safety: all functions may be called from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>

#include "common/mutex.h"
#include "fs/engine/inode.h"

namespace tarnfs {

class InodeCache {
 public:
  explicit InodeCache(std::size_t inodes_max) : per_shard_max_(inodes_max / kShards + 1) {}

  InodePtr find(InodeNumber number);
  // Adds it, or returns the one that is there already.
  InodePtr insert(const InodePtr& inode);
  void erase(InodeNumber number);
  void clear();

 private:
  static constexpr std::size_t kShards = 64;
  struct Shard {
    Mutex mutex;
    std::unordered_map<std::uint64_t, InodePtr> inodes TARNFS_GUARDED_BY(mutex);
    std::size_t next_bucket TARNFS_GUARDED_BY(mutex) = 0;
  };
  Shard& shard_of(InodeNumber number) { return shards_[number.value % kShards]; }
  static void evict_some(Shard& shard) TARNFS_REQUIRES(shard.mutex);

  const std::size_t per_shard_max_;
  std::array<Shard, kShards> shards_;
};

}  // namespace tarnfs
