// Clean metadata in memory: tree nodes, inode blocks, directory pages, free map pages.
//
// Purpose: blocks are immutable while a root refers to them, so the cache is keyed by what names a block for ever,
// its address and birth cp, and is never told about changes.
//
// Invariants:
//   1. A page in the cache has the checksum of the pointer that it was put in with.
//   2. Memory use stays under the limit, but for pages that users still refer to.
//
// Thread safety: all functions may be called from any thread; no lock is held while the device is read.
// Ownership: shares its pages with the callers.
// Errors: kIo from the device, kCorrupt when a block is not what its pointer says.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <unordered_map>

#include "common/block_device.h"
#include "common/format.h"
#include "common/mutex.h"

namespace tarnfs {

class BlockCache {
 public:
  BlockCache(BlockDevice& device, std::uint64_t limit_bytes);

  // The page if it is in memory, else an empty reference.
  PageRef find(const BlockPointer& pointer);
  // The page, read and verified if it is not in memory.
  Result<PageRef> load(const BlockPointer& pointer);
  // A block that was just written.
  void insert(const BlockPointer& pointer, PageRef page);
  std::uint64_t used_bytes();

 private:
  struct Entry {
    BlockPointer pointer;
    PageRef page;
  };
  struct Shard {
    Mutex mutex;
    std::list<Entry> by_use TARNFS_GUARDED_BY(mutex);  // most recently used first
    std::unordered_map<std::uint64_t, std::list<Entry>::iterator> by_address TARNFS_GUARDED_BY(mutex);
  };
  static constexpr std::size_t kShards = 16;

  Shard& shard_of(const BlockPointer& pointer) { return shards_[(pointer.address >> 3) % kShards]; }

  BlockDevice& device_;
  const std::size_t pages_per_shard_max_;
  std::array<Shard, kShards> shards_;
};

}  // namespace tarnfs
