#include "fs/engine/inode_cache.h"

#include <vector>

namespace tarnfs {

InodePtr InodeCache::find(InodeNumber number) {
  Shard& shard = shard_of(number);
  MutexLock lock(shard.mutex);
  const auto found = shard.inodes.find(number.value);
  return found == shard.inodes.end() ? nullptr : found->second;
}

InodePtr InodeCache::insert(const InodePtr& inode) {
  Shard& shard = shard_of(inode->number);
  MutexLock lock(shard.mutex);
  const auto [position, inserted] = shard.inodes.emplace(inode->number.value, inode);
  InodePtr kept = position->second;
  if (shard.inodes.size() > per_shard_max_) evict_some(shard);
  return kept;
}

void InodeCache::erase(InodeNumber number) {
  Shard& shard = shard_of(number);
  MutexLock lock(shard.mutex);
  shard.inodes.erase(number.value);
}

void InodeCache::clear() {
  for (Shard& shard : shards_) {
    MutexLock lock(shard.mutex);
    shard.inodes.clear();
  }
}

// Looks at the next few buckets and drops what only the cache refers to.
void InodeCache::evict_some(Shard& shard) {
  constexpr std::size_t kBucketsPerCall = 16;
  constexpr std::size_t kEvictedMax = 4;
  std::vector<std::uint64_t> victims;
  for (std::size_t i = 0; i < kBucketsPerCall && victims.size() < kEvictedMax; ++i) {
    const std::size_t bucket = shard.next_bucket++ % shard.inodes.bucket_count();
    for (auto entry = shard.inodes.begin(bucket); entry != shard.inodes.end(bucket); ++entry) {
      if (entry->second.use_count() == 1) victims.push_back(entry->first);
    }
  }
  for (const std::uint64_t number : victims) shard.inodes.erase(number);
}

}  // namespace tarnfs
