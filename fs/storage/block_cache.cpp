#include "fs/storage/block_cache.h"

#include <algorithm>

namespace tarnfs {

BlockCache::BlockCache(BlockDevice& device, std::uint64_t limit_bytes)
    : device_(device), pages_per_shard_max_(std::max<std::uint64_t>(16, limit_bytes / kBlockSize / kShards)) {}

PageRef BlockCache::find(const BlockPointer& pointer) {
  Shard& shard = shard_of(pointer);
  MutexLock lock(shard.mutex);
  const auto found = shard.by_address.find(pointer.address);
  if (found == shard.by_address.end() || found->second->pointer != pointer) return {};
  shard.by_use.splice(shard.by_use.begin(), shard.by_use, found->second);
  return found->second->page;
}

Result<PageRef> BlockCache::load(const BlockPointer& pointer) {
  if (PageRef page = find(pointer)) return page;
  TARNFS_ASSIGN(PageRef page, read_block(device_, pointer));
  insert(pointer, page);
  return page;
}

void BlockCache::insert(const BlockPointer& pointer, PageRef page) {
  Shard& shard = shard_of(pointer);
  MutexLock lock(shard.mutex);
  if (const auto found = shard.by_address.find(pointer.address); found != shard.by_address.end()) {
    found->second->pointer = pointer;
    found->second->page = std::move(page);
    shard.by_use.splice(shard.by_use.begin(), shard.by_use, found->second);
    return;
  }
  shard.by_use.push_front(Entry{pointer, std::move(page)});
  shard.by_address.emplace(pointer.address, shard.by_use.begin());
  while (shard.by_use.size() > pages_per_shard_max_) {
    shard.by_address.erase(shard.by_use.back().pointer.address);
    shard.by_use.pop_back();
  }
}

std::uint64_t BlockCache::used_bytes() {
  std::uint64_t pages = 0;
  for (Shard& shard : shards_) {
    MutexLock lock(shard.mutex);
    pages += shard.by_use.size();
  }
  return pages * kBlockSize;
}

}  // namespace tarnfs
