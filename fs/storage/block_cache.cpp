#include "fs/storage/block_cache.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace tarnfs {

BlockCache::BlockCache(BlockDevice& device, std::uint64_t limit_bytes)
    : device_(device), pages_per_shard_max_(std::max<std::uint64_t>(16, limit_bytes / kBlockSize / kShards)) {
  for (Shard& shard : shards_) {
    MutexLock lock(shard.mutex);
    shard.buckets.assign(std::bit_ceil(pages_per_shard_max_), kNoEntry);
    shard.entries.reserve(pages_per_shard_max_);  // untouched until it is used
  }
}

std::uint32_t& BlockCache::bucket_of(Shard& shard, std::uint64_t address) {
  // What differs within a shard, which has every 16th group of neighbours.
  const std::uint64_t within = address / (kNeighbours * kShards) * kNeighbours + address % kNeighbours;
  return shard.buckets[within & (shard.buckets.size() - 1)];
}

std::uint32_t BlockCache::find_entry(Shard& shard, std::uint64_t address) {
  std::uint32_t number = bucket_of(shard, address);
  while (number != kNoEntry && shard.entries[number].pointer.address != address) number = shard.entries[number].next;
  return number;
}

PageRef BlockCache::find(const BlockPointer& pointer) {
  Shard& shard = shard_of(pointer.address);
  MutexLock lock(shard.mutex);
  const std::uint32_t number = find_entry(shard, pointer.address);
  if (number == kNoEntry) return {};
  Entry& entry = shard.entries[number];
  if (entry.pointer != pointer) return {};
  if (!entry.asked_for) entry.asked_for = true;
  return entry.page;
}

Result<PageRef> BlockCache::load(const BlockPointer& pointer) {
  if (PageRef page = find(pointer)) return page;
  TARNFS_ASSIGN(PageRef page, read_block(device_, pointer));
  insert(pointer, page);
  return page;
}

void BlockCache::insert(const BlockPointer& pointer, PageRef page, Use use) {
  Shard& shard = shard_of(pointer.address);
  MutexLock lock(shard.mutex);
  std::uint32_t number = find_entry(shard, pointer.address);
  if (number == kNoEntry) {
    number = take_free_entry(shard);
    std::uint32_t& bucket = bucket_of(shard, pointer.address);
    shard.entries[number].next = bucket;
    bucket = number;
    ++shard.used_count;
  }
  Entry& entry = shard.entries[number];
  entry.pointer = pointer;
  entry.page = std::move(page);
  entry.asked_for = use == Use::kAskedFor;
}

// An entry in no bucket: one that is free, a new one below the limit, else the first that the round finds.
std::uint32_t BlockCache::take_free_entry(Shard& shard) const {
  if (shard.free == kNoEntry && shard.entries.size() < pages_per_shard_max_) {
    shard.entries.emplace_back();
    return static_cast<std::uint32_t>(shard.entries.size() - 1);
  }
  while (shard.free == kNoEntry) {
    Entry& entry = shard.entries[shard.hand];
    if (!std::exchange(entry.asked_for, false)) remove(shard, shard.hand);
    shard.hand = (shard.hand + 1) % static_cast<std::uint32_t>(shard.entries.size());
  }
  return std::exchange(shard.free, shard.entries[shard.free].next);
}

void BlockCache::remove(Shard& shard, std::uint32_t number) {
  Entry& entry = shard.entries[number];
  std::uint32_t* link = &bucket_of(shard, entry.pointer.address);
  while (*link != number) link = &shard.entries[*link].next;
  *link = entry.next;
  entry = Entry{};
  entry.next = std::exchange(shard.free, number);
  --shard.used_count;
}

void BlockCache::forget(Address first, std::uint64_t count) {
  const std::uint64_t end = first.value + count;
  for (std::uint64_t address = first.value; address < end;) {
    const std::uint64_t neighbours_end = std::min(end, (address / kNeighbours + 1) * kNeighbours);
    Shard& shard = shard_of(address);
    MutexLock lock(shard.mutex);
    for (; address < neighbours_end; ++address) {
      const std::uint32_t number = find_entry(shard, address);
      if (number != kNoEntry) remove(shard, number);
    }
  }
}

std::uint64_t BlockCache::used_bytes() {
  std::uint64_t pages = 0;
  for (Shard& shard : shards_) {
    MutexLock lock(shard.mutex);
    pages += shard.used_count;
  }
  return pages * kBlockSize;
}

}  // namespace tarnfs
