#include "fs/engine/inode_cache.h"

#include <utility>

namespace tarnfs {

InodePtr InodeCache::find(InodeNumber number) {
  Shard& shard = shard_of(number);
  MutexLock lock(shard.mutex);
  Entry* const entry = shard.inodes.find(number.value);
  if (entry == nullptr) return nullptr;
  if (!entry->asked_for) entry->asked_for = true;
  return entry->inode;
}

InodePtr InodeCache::insert(const InodePtr& inode) {
  Victims victims;  // destroyed under no lock
  Shard& shard = shard_of(inode->number);
  MutexLock lock(shard.mutex);
  if (shard.inodes.size() >= per_shard_max_) evict_some(shard, victims);
  return add(shard, inode);
}

InodePtr InodeCache::insert_new(const InodePtr& inode) {
  Shard& shard = shard_of(inode->number);
  MutexLock lock(shard.mutex);
  return add(shard, inode);
}

InodePtr InodeCache::add(Shard& shard, const InodePtr& inode) {
  const auto [entry, added] = shard.inodes.put(inode->number.value);
  if (added) entry->inode = inode;
  return entry->inode;
}

void InodeCache::shrink() {
  for (Shard& shard : shards_) {
    for (std::size_t looked_at_slots = 0;;) {
      Victims victims;  // destroyed under no lock
      MutexLock lock(shard.mutex);
      if (shard.inodes.size() <= per_shard_max_ || looked_at_slots >= shard.inodes.slot_count()) break;
      looked_at_slots += evict_some(shard, victims);
    }
  }
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

// Looks at the next few inodes and drops those that only the cache refers to. Free slots cost next to nothing. Returns
// how many slots it went on.
std::size_t InodeCache::evict_some(Shard& shard, Victims& victims) {
  constexpr std::size_t kSlotsMax = 16 * kLookedAtOnce;
  std::size_t looked_at = 0;
  std::size_t slots = 0;
  for (; slots < kSlotsMax && looked_at < victims.size(); ++slots) {
    auto& slot = shard.inodes.slot_at(shard.hand++ % shard.inodes.slot_count());
    if (slot.key == 0) continue;
    ++looked_at;
    if (std::exchange(slot.value.asked_for, false) || slot.value.inode.use_count() != 1) continue;
    InodePtr& victim = victims[looked_at - 1];
    victim = slot.value.inode;
    shard.inodes.erase(slot.key);
  }
  return slots;
}

}  // namespace tarnfs
