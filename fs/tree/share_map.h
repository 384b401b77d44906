// The share map: how many references a data block has beyond its first one (FORMAT.md).
//
// Purpose: a consistency point counts the references that copies have added and those that changes and deletions give
// up, so that a block is freed with its last one; operations learn here whether a block can take another one.
//
// Invariants:
//   1. A count is that of the root under construction: references of the trees that are written so far, and of those
//      that still stand as the newest root has them.
//   2. A block's count in the newest durable root, and what the generations claimed that it does not have, are at most
//      kSharesMax together: so add() never meets a full count.
//   3. A page that is all zero is not stored.
//
// Thread safety: claim(), give_back() and durable_tree() from any thread; all else from one thread at a time, the
// consistency point's.
// Ownership: `source` must outlive the map.
// Errors: kCorrupt and kIo from the source; kCorrupt when the map on disk cannot be.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "common/format.h"
#include "common/mutex.h"
#include "common/page.h"
#include "fs/tree/block_tree.h"

namespace tarnfs {

// What consistency points may take for the map beyond what operations were promised. Twice all of it: one may run when
// an operation is promised its blocks, and the operation's own may follow before what the first has freed may be
// reused.
std::uint64_t share_map_reserve_blocks(std::uint64_t size_blocks);

// Pages of the durable map by their index; an empty reference is a page of zeros.
using SharePages = std::unordered_map<std::uint64_t, PageRef>;

class ShareMap {
 public:
  using Counts = std::array<std::uint16_t, kSharesPerPage>;
  using Claims = std::unordered_map<std::uint64_t, std::unique_ptr<Counts>>;  // by page index

  explicit ShareMap(BlockSource& source) : source_(source) {}

  // The map of the newest root. Before anything else.
  void open(const TreeRoot& tree);
  // Does any block have a count?
  bool in_use() const { return tree_.block_count != 0 || !dirty_.empty(); }
  // One reference more to a block that is in use.
  Status add(const BlockPointer& pointer);
  // One less. False: it was the last one, and the block is nobody's now. A block whose count cannot be read stays,
  // which costs space but stops nobody.
  Result<bool> drop(const BlockPointer& pointer);
  bool changed() const { return !dirty_.empty(); }
  Result<TreeRoot> write_tree(const TreeEnvironment& environment);
  // What was written is durable.
  void install();

  // Operations: reads of the durable map go through the operation's own source.
  TreeRoot durable_tree();
  // Notes for `generation` one reference more to each block of `pointers`, of which `durable` has the counts. Those
  // that might get too many are left out: their positions are returned. An upper bound: what an operation does not use
  // in the end may stay noted.
  std::vector<std::size_t> claim(std::uint64_t generation, std::span<const BlockPointer> pointers,
                                 const SharePages& durable);
  // Holes in `pointers` were not claimed.
  void give_back(std::uint64_t generation, std::span<const BlockPointer> pointers);
  // `generation` begins; the root of the one but last is durable, and its claims are returned: to free them takes a
  // while. Nobody claims meanwhile.
  [[nodiscard]] Claims take_claims_before(std::uint64_t generation);

 private:
  Result<PageRef> page_at(std::uint64_t index);
  Result<PageRef*> dirty_page_at(std::uint64_t index);

  BlockSource& source_;
  TreeRoot tree_;                           // the newest that was written
  std::map<std::uint64_t, PageRef> dirty_;  // by page index
  std::uint64_t clean_index_ = 0;           // the page that was looked at last, unless it is dirty
  PageRef clean_page_;

  Mutex mutex_;
  TreeRoot durable_tree_ TARNFS_GUARDED_BY(mutex_);
  std::array<Claims, 2> claims_ TARNFS_GUARDED_BY(mutex_);  // by generation & 1, then by page index
};

// Gives and takes the blocks of files whose data blocks may be shared.
class SharingAllocator final : public BlockAllocator {
 public:
  SharingAllocator(ShareMap& shares, BlockAllocator& blocks) : shares_(shares), blocks_(blocks) {}
  Result<Address> allocate() override { return blocks_.allocate(); }
  Status adopt(Address address) override { return blocks_.adopt(address); }
  Status release(const BlockPointer& pointer) override {
    if (shares_.in_use()) {
      TARNFS_ASSIGN(const bool has_others, shares_.drop(pointer));
      if (has_others) return {};
    }
    return blocks_.release(pointer);
  }

 private:
  ShareMap& shares_;
  BlockAllocator& blocks_;
};

}  // namespace tarnfs
