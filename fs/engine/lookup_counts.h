// How often the kernel holds each inode.
//
// Purpose: small, so that a million inodes known to the kernel cost little, and apart from the inodes, which can be
// evicted meanwhile.
//
// Thread safety: any thread.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>

#include "common/mutex.h"
#include "common/types.h"

namespace tarnfs {

class LookupCounts {
 public:
  void add(InodeNumber inode) {
    Shard& shard = shard_of(inode);
    MutexLock lock(shard.mutex);
    ++shard.counts[inode.value];
  }
  // Returns true when the count is zero now.
  bool subtract(InodeNumber inode, std::uint64_t count) {
    Shard& shard = shard_of(inode);
    MutexLock lock(shard.mutex);
    const auto found = shard.counts.find(inode.value);
    if (found == shard.counts.end()) return true;
    if (found->second > count) {
      found->second -= count;
      return false;
    }
    shard.counts.erase(found);
    return true;
  }
  bool is_zero(InodeNumber inode) {
    Shard& shard = shard_of(inode);
    MutexLock lock(shard.mutex);
    return !shard.counts.contains(inode.value);
  }

 private:
  static constexpr std::size_t kShards = 64;
  struct Shard {
    Mutex mutex;
    std::unordered_map<std::uint64_t, std::uint64_t> counts TARNFS_GUARDED_BY(mutex);
  };
  Shard& shard_of(InodeNumber inode) { return shards_[inode.value % kShards]; }
  std::array<Shard, kShards> shards_;
};

}  // namespace tarnfs
