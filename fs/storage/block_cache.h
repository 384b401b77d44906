// Clean metadata in memory: tree nodes, inode blocks, directory pages, free map pages.
//
// Purpose: blocks are immutable while a root refers to them, so the cache is keyed by what names a block for ever,
// its address and birth cp, and is never told about changes. It may be told that nobody will ask for a block again.
//
// Invariants:
//   1. A page in the cache has the checksum of the pointer that it was put in with.
//   2. Memory use stays under the limit, but for pages that users still refer to.
//   3. Which block goes when the limit is reached: the first in a round that was not asked for since the last round.
//      So finding a block changes nothing but a mark, and costs the same however many there are. A block that replaces
//      one which was in use, and will be again, comes with the mark.
//
// Thread safety: all functions may be called from any thread; no lock is held while the device is read.
// Ownership: shares its pages with the callers.
// Errors: kIo from the device, kCorrupt when a block is not what its pointer says.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

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
  enum class Use { kNotYet, kAskedFor };
  // A block that was just written, or read.
  void insert(const BlockPointer& pointer, PageRef page, Use use = Use::kNotYet);
  // The newest root does not refer to these blocks any more.
  void forget(Address first, std::uint64_t count);
  std::uint64_t used_bytes();

 private:
  static constexpr std::size_t kShards = 16;
  static constexpr std::uint64_t kNeighbours = 8;
  static constexpr std::uint32_t kNoEntry = ~std::uint32_t{0};

  struct alignas(64) Entry {
    BlockPointer pointer;  // a hole: the entry is free
    PageRef page;
    std::uint32_t next = kNoEntry;  // in the same bucket, or of the free entries
    bool asked_for = false;         // since the round came by last
  };
  struct Shard {
    Mutex mutex;
    std::vector<Entry> entries TARNFS_GUARDED_BY(mutex);
    std::vector<std::uint32_t> buckets TARNFS_GUARDED_BY(mutex);  // the first entry of each; a power of two
    std::uint32_t free TARNFS_GUARDED_BY(mutex) = kNoEntry;
    std::uint32_t used_count TARNFS_GUARDED_BY(mutex) = 0;
    std::uint32_t hand TARNFS_GUARDED_BY(mutex) = 0;  // where the round is
  };

  // Neighbours in the image are often asked for together.
  Shard& shard_of(std::uint64_t address) { return shards_[address / kNeighbours % kShards]; }
  static std::uint32_t& bucket_of(Shard& shard, std::uint64_t address) TARNFS_REQUIRES(shard.mutex);
  static std::uint32_t find_entry(Shard& shard, std::uint64_t address) TARNFS_REQUIRES(shard.mutex);
  static void remove(Shard& shard, std::uint32_t number) TARNFS_REQUIRES(shard.mutex);
  std::uint32_t take_free_entry(Shard& shard) const TARNFS_REQUIRES(shard.mutex);

  BlockDevice& device_;
  const std::size_t pages_per_shard_max_;
  std::array<Shard, kShards> shards_;
};

}  // namespace tarnfs
