// The free map: which blocks the newest root refers to, and which of the free ones may be reused.
//
// Purpose: gives addresses to a consistency point, takes back those that it frees, and writes itself as a block tree.
//
// Invariants:
//   1. Bit set: the root under construction refers to the block. Everything allocated or released since the last
//      write_tree() is in pages that are dirty.
//   2. A released block is held: its bit is clear, but it is given out again only after release_held() was told that
//      no root that anybody keeps refers to it.
//   3. Only data addresses (is_data_address) are ever given out.
//   4. A block that is set aside has a clear bit and is given out to nobody; adopt() makes it one in use.
//
// Thread safety: reserving, unreserving and next_free_run() from any thread; all else from one thread at a time, the
// consistency point's, which alone changes bits.
// Errors: kNoSpace when nothing may be given out; kCorrupt when a block is released that was not in use.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <unordered_map>
#include <vector>

#include "common/format.h"
#include "common/mutex.h"
#include "common/page.h"
#include "fs/tree/block_tree.h"

namespace tarnfs {

inline constexpr std::uint64_t kBitsPerMapPage = kBlockSize * 8;

constexpr std::uint64_t map_pages_of(std::uint64_t size_blocks) {
  return (size_blocks + kBitsPerMapPage - 1) / kBitsPerMapPage;
}

// Is the block in use by the root that the free map `tree` belongs to?
Result<bool> is_block_used(const TreeRoot& tree, Address address, BlockSource& source);

class FreeMap final : public BlockAllocator {
 public:
  // `tree` and the counters are those of the newest root. `source` must outlive the map.
  FreeMap(const RootBlock& root, BlockSource& source);

  // The consistency point that allocates and releases from now on.
  void begin(Cp cp) { cp_ = cp; }
  Result<Address> allocate() override;
  Status adopt(Address address) override;
  Status release(const BlockPointer& pointer) override;

  // Sets `count` free blocks aside, neighbours where it can. All or none.
  Result<std::vector<Address>> reserve(std::uint64_t count);
  // Sets a block aside that was so before a crash. Returns false when the newest root has it in use.
  Result<bool> reserve_at(Address address);
  void unreserve(std::span<const Address> addresses);

  // Free blocks, in a row (free_map_runs.cpp).
  struct FreeRun {
    std::uint64_t first = 0;
    std::uint64_t end = 0;  // not of it
    bool empty() const { return first == end; }
    std::uint64_t count() const { return end - first; }
  };
  // The first run of free blocks in [from, end), as far as it goes on the page of the map that `from` is on. When there
  // is none, an empty one where that page, or the range, ends.
  Result<FreeRun> next_free_run(std::uint64_t from, std::uint64_t end);
  // Sets the first run in [from, end) aside, at most `count_max` blocks of it; looks as far as next_free_run().
  Result<FreeRun> reserve_run(std::uint64_t from, std::uint64_t end, std::uint64_t count_max);
  void unreserve_run(const FreeRun& run);

  // Writes the changed pages as a new tree, which holds the blocks that it needs itself.
  Result<TreeRoot> write_tree(BlockSink& sink, Cp cp);
  // Neighbouring blocks.
  struct Run {
    std::uint64_t first = 0;
    std::uint64_t count = 0;
  };
  // What `cp` has released, unless it may be given out again already.
  std::vector<Run> released_by(Cp cp);
  // The volume grows. First its root under construction, whose map gets the height of the new size; once that root is
  // durable, and the old end is no longer one, the new blocks may be given out (free_map_growth.cpp).
  Status prepare_growth(std::uint64_t size_blocks);
  void finish_growth(std::uint64_t size_blocks);
  // Every root from `oldest_kept` on may be in use: what was released by cps up to it may be given out.
  void release_held(Cp oldest_kept);

  std::uint64_t used_blocks();
  // Blocks that may be used by the next roots: neither used nor held.
  std::uint64_t unused_blocks();
  std::uint64_t held_blocks();
  std::uint64_t cursor();

 private:
  Result<PageRef> page_at(std::uint64_t index) const TARNFS_REQUIRES(mutex_);
  Result<PageRef*> dirty_page_at(std::uint64_t index) TARNFS_REQUIRES(mutex_);
  Status set_bit(std::uint64_t block, bool used) TARNFS_REQUIRES(mutex_);
  void set_held(std::uint64_t block, bool held) TARNFS_REQUIRES(mutex_);
  bool is_held(std::uint64_t block) const TARNFS_REQUIRES(mutex_);
  Result<std::uint64_t> find_free_in_page(std::uint64_t index, std::uint64_t from_bit, std::uint64_t end_bit) const
      TARNFS_REQUIRES(mutex_);
  Result<std::uint64_t> find_free() TARNFS_REQUIRES(mutex_);
  Result<FreeRun> find_run(std::uint64_t from, std::uint64_t end) const TARNFS_REQUIRES(mutex_);
  Result<Address> allocate_locked() TARNFS_REQUIRES(mutex_);
  Status release_locked(const BlockPointer& pointer) TARNFS_REQUIRES(mutex_);
  Status plan_tree(std::vector<Address>& addresses) TARNFS_REQUIRES(mutex_);

  BlockSource& source_;
  Cp cp_;  // the consistency point's thread

  Mutex mutex_;
  std::uint64_t size_blocks_ TARNFS_GUARDED_BY(mutex_);  // what is given out lies in a volume of this size
  std::uint64_t data_blocks_ TARNFS_GUARDED_BY(mutex_);
  std::uint8_t height_ TARNFS_GUARDED_BY(mutex_);  // of the tree that is written next
  TreeRoot tree_ TARNFS_GUARDED_BY(mutex_);
  std::uint64_t used_blocks_ TARNFS_GUARDED_BY(mutex_);
  std::uint64_t held_blocks_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::uint64_t reserved_blocks_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::uint64_t cursor_ TARNFS_GUARDED_BY(mutex_);
  std::map<std::uint64_t, PageRef> dirty_ TARNFS_GUARDED_BY(mutex_);  // by page index
  // Bit set: held or set aside; by page index.
  std::unordered_map<std::uint64_t, PageRef> held_pages_ TARNFS_GUARDED_BY(mutex_);
  // The cp that released -> blocks.
  std::map<std::uint64_t, std::vector<Run>> held_by_cp_ TARNFS_GUARDED_BY(mutex_);
};

}  // namespace tarnfs
