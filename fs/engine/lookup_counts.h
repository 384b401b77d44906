// How often the kernel holds each inode.
//
// Purpose: small, so that a million inodes known to the kernel cost little, and apart from the inodes, which can be
// evicted meanwhile.
//
// Thread safety: any thread.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "common/flat_map.h"
#include "common/mutex.h"
#include "common/types.h"

namespace tarnfs {

class LookupCounts {
 public:
  void add(InodeNumber inode) {
    Shard& shard = shard_of(inode);
    MutexLock lock(shard.mutex);
    ++*shard.counts.put(inode.value).first;
  }
  // Returns true when the count is zero now.
  bool subtract(InodeNumber inode, std::uint64_t count) {
    Shard& shard = shard_of(inode);
    MutexLock lock(shard.mutex);
    std::uint64_t* const found = shard.counts.find(inode.value);
    if (found != nullptr && *found > count) {
      *found -= count;
      return false;
    }
    shard.counts.erase(inode.value);
    return true;
  }
  bool is_zero(InodeNumber inode) {
    Shard& shard = shard_of(inode);
    MutexLock lock(shard.mutex);
    return shard.counts.find(inode.value) == nullptr;
  }
  // All that are held at some moment during the call.
  std::vector<InodeNumber> held() {
    std::vector<InodeNumber> numbers;
    for (Shard& shard : shards_) {
      MutexLock lock(shard.mutex);
      for (std::size_t i = 0; i < shard.counts.slot_count(); ++i) {
        if (const std::uint64_t key = shard.counts.slot_at(i).key; key != 0) numbers.push_back(InodeNumber{key});
      }
    }
    return numbers;
  }

 private:
  static constexpr std::size_t kShards = 64;
  struct Shard {
    Mutex mutex;
    FlatMap<std::uint64_t> counts TARNFS_GUARDED_BY(mutex);
  };
  Shard& shard_of(InodeNumber inode) { return shards_[inode.value % kShards]; }
  std::array<Shard, kShards> shards_;
};

}  // namespace tarnfs
