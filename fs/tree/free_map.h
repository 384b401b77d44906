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
//
// Thread safety: one thread at a time; the consistency point's.
// Errors: kNoSpace when nothing may be given out; kCorrupt when a block is released that was not in use.
#pragma once

#include <cstdint>
#include <map>
#include <unordered_map>
#include <vector>

#include "common/format.h"
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
  Status release(const BlockPointer& pointer) override;

  // Writes the changed pages as a new tree, which holds the blocks that it needs itself.
  Result<TreeRoot> write_tree(BlockSink& sink, Cp cp);
  // Every root from `oldest_kept` on may be in use: what was released by cps up to it may be given out.
  void release_held(Cp oldest_kept);

  std::uint64_t used_blocks() const { return used_blocks_; }
  // Blocks that allocate() can still give out.
  std::uint64_t allocatable_blocks() const { return data_blocks_ - used_blocks_ - held_blocks_; }
  std::uint64_t held_blocks() const { return held_blocks_; }
  std::uint64_t cursor() const { return cursor_; }

 private:
  Result<PageRef> page_at(std::uint64_t index) const;
  Result<PageRef*> dirty_page_at(std::uint64_t index);
  Status set_bit(std::uint64_t block, bool used);
  Result<std::uint64_t> find_free_in_page(std::uint64_t index, std::uint64_t from_bit, std::uint64_t end_bit) const;
  Status plan_tree(std::vector<Address>& addresses);

  const std::uint64_t size_blocks_;
  const std::uint64_t data_blocks_;
  const std::uint8_t height_;
  BlockSource& source_;
  TreeRoot tree_;
  Cp cp_;
  std::uint64_t used_blocks_;
  std::uint64_t held_blocks_ = 0;
  std::uint64_t cursor_;
  std::map<std::uint64_t, PageRef> dirty_;                 // by page index
  std::unordered_map<std::uint64_t, PageRef> held_pages_;  // bit set: held; by page index
  struct Run {
    std::uint64_t first = 0;
    std::uint64_t count = 0;
  };
  std::map<std::uint64_t, std::vector<Run>> held_by_cp_;  // cp that released -> blocks
};

}  // namespace tarnfs
