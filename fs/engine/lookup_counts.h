// How often the kernel holds each inode.
//
// Purpose: small, so that a million inodes known to the kernel cost little, and apart from the inodes, which can be
// evicted meanwhile.
//
// Thread safety: any thread.
#pragma once

#include <algorithm>
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
    ++(*shard.groups.put(group_of(inode)).first)[inode.value % kNeighbours];
  }
  // Returns true when the count is zero now.
  bool subtract(InodeNumber inode, std::uint64_t count) {
    Shard& shard = shard_of(inode);
    MutexLock lock(shard.mutex);
    Group* const group = shard.groups.find(group_of(inode));
    if (group == nullptr) return true;
    std::uint64_t& counted = (*group)[inode.value % kNeighbours];
    counted -= std::min(counted, count);
    if (counted != 0) return false;
    if (*group == Group{}) shard.groups.erase(group_of(inode));
    return true;
  }
  bool is_zero(InodeNumber inode) {
    Shard& shard = shard_of(inode);
    MutexLock lock(shard.mutex);
    const Group* const group = shard.groups.find(group_of(inode));
    return group == nullptr || (*group)[inode.value % kNeighbours] == 0;
  }
  // All that are held at some moment during the call.
  std::vector<InodeNumber> held() {
    std::vector<InodeNumber> numbers;
    for (Shard& shard : shards_) {
      MutexLock lock(shard.mutex);
      for (std::size_t i = 0; i < shard.groups.slot_count(); ++i) {
        const auto& slot = shard.groups.slot_at(i);
        for (std::uint64_t k = 0; slot.key != 0 && k < kNeighbours; ++k) {
          if (slot.value[k] != 0) numbers.push_back(InodeNumber{(slot.key - 1) * kNeighbours + k});
        }
      }
    }
    return numbers;
  }

 private:
  // Inodes with numbers beside each other are mostly made, and often looked for, one after the other.
  static constexpr std::uint64_t kNeighbours = 4;
  using Group = std::array<std::uint64_t, kNeighbours>;

  static constexpr std::size_t kShards = 64;
  struct Shard {
    Mutex mutex;
    FlatMap<Group> groups TARNFS_GUARDED_BY(mutex);  // each has a count that is not zero
  };
  static std::uint64_t group_of(InodeNumber inode) { return inode.value / kNeighbours + 1; }
  Shard& shard_of(InodeNumber inode) { return shards_[inode.value / kNeighbours % kShards]; }
  std::array<Shard, kShards> shards_;
};

}  // namespace tarnfs
