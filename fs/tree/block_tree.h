// The tree of block pointers under an inode: finding blocks, and writing a changed tree copy-on-write.
//
// Purpose: every file, directory, the inode file and the free map are such trees (FORMAT.md).
//
// Invariants:
//   1. Reading never changes anything; a changed tree is a new TreeRoot, and no block of the old one is overwritten.
//   2. A node that is all holes is never stored, nor is one that is all reserved: its pointer says it for all below.
//   3. A node is written after everything below it, so a pointer's birth cp is at least that of what it leads to.
//   4. block_count and reserve_blocks together stay the same when a page is put where space is reserved.
//
// Thread safety: functions on values; the BlockSource, BlockAllocator and BlockSink say their own.
// Errors: kCorrupt for impossible pointers, kNeedsBlock from a source that only looks in memory, kNoSpace from the
// allocator.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>

#include "common/format.h"
#include "common/page.h"
#include "common/result.h"
#include "fs/tree/page_map.h"
#include "fs/tree/range_set.h"
#include "fs/tree/shared_pages.h"

namespace tarnfs {

// The fields of an InodeRecord that make its tree.
struct TreeRoot {
  std::array<BlockPointer, kPointersPerInode> pointers{};
  std::uint8_t height = 0;
  std::uint64_t block_count = 0;
  std::uint64_t reserve_blocks = 0;  // what writing all that is reserved would add to block_count
};

TreeRoot tree_of(const InodeRecord& record);
void store_tree(InodeRecord& record, const TreeRoot& tree);
// Data blocks that a tree of this height can hold.
std::uint64_t capacity_blocks(std::uint8_t height);
// All blocks of a tree of so many data blocks without a hole.
std::uint64_t dense_tree_blocks(std::uint64_t data_blocks);
// The most blocks that lead to the first so many data blocks of a tree of any height, or are them.
std::uint64_t tree_blocks_max(std::uint64_t data_blocks);
// All blocks at and below a pointer to `level` (0: to a data block) without a hole.
std::uint64_t whole_blocks(unsigned level);
// The smallest height that holds `blocks` data blocks.
std::uint8_t height_for(std::uint64_t blocks);

// Where the blocks behind pointers come from.
class BlockSource {
 public:
  virtual ~BlockSource() = default;
  virtual Result<PageRef> get(const BlockPointer& pointer) = 0;
};

// The pointer of data block `index`; a hole where there is none, a reserved one where space is.
Result<BlockPointer> find_pointer(const TreeRoot& tree, std::uint64_t index, BlockSource& source);
// The pointer of node `index >> (7 * level)` at `level` (0: the data block).
Result<BlockPointer> find_node(const TreeRoot& tree, std::uint64_t index, unsigned level, BlockSource& source);
// The pointers of data blocks first, first + 1, ...
Status find_pointers(const TreeRoot& tree, std::uint64_t first, std::span<BlockPointer> out, BlockSource& source);
// Neighbouring data blocks of one kind, as far as one node says.
enum class SpanKind { kHole, kReserved, kData };
struct TreeSpan {
  SpanKind kind = SpanKind::kHole;
  std::uint64_t end = 0;  // the first index that is not of it
};
// What begins, or goes on, at `index`.
Result<TreeSpan> span_at(const TreeRoot& tree, std::uint64_t index, BlockSource& source);
// The smallest index at or above `from` that has a data block.
Result<std::optional<std::uint64_t>> next_data_block(const TreeRoot& tree, std::uint64_t from, BlockSource& source);

// Visits, nodes before what is below them, every pointer of the tree born after `since`; level 0 are data blocks,
// `index` is the first data block below. Where `enter` (called for nodes) returns false, what is below is left out.
struct TreeVisit {
  BlockPointer pointer;
  unsigned level = 0;
  std::uint64_t index = 0;
};
Status visit_tree(const TreeRoot& tree, Cp since, BlockSource& source,
                  const std::function<Status(const TreeVisit&)>& visit);

class BlockAllocator {
 public:
  virtual ~BlockAllocator() = default;
  virtual Result<Address> allocate() = 0;
  // Takes a block that was set aside before, and is written already.
  virtual Status adopt(Address address) = 0;
  virtual Status release(const BlockPointer& pointer) = 0;
};

class BlockSink {
 public:
  virtual ~BlockSink() = default;
  // `level` 0 is data, above are nodes.
  virtual void write(const BlockPointer& pointer, PageRef page, unsigned level) = 0;
  // A data block that is in its place already.
  virtual void announce(const BlockPointer& pointer, PageRef page) = 0;
};

struct TreeEnvironment {
  BlockSource& source;
  BlockAllocator& allocator;
  BlockSink& sink;
  Cp cp;
};

// Pages that were written before their tree is: where, by index.
using PlacedPages = std::map<std::uint64_t, BlockPointer>;

// The tree with `removed` cut out first, space reserved then for the data blocks of `reserved` that are holes, and
// `pages` and `shared` put in at last; no page is in both. Those in `placed` keep their blocks, and so do those in
// `shared`, which stand in them since an older root. Keeps the height at least `height_min`.
Result<TreeRoot> rewrite_tree(const TreeRoot& tree, const RangeSet& removed, const PageMap& pages,
                              const PlacedPages& placed, const SharedPages& shared, const TreeEnvironment& environment,
                              std::uint8_t height_min = 0, const RangeSet& reserved = RangeSet());

}  // namespace tarnfs
