// Walks the block tree of one inode from its pointers down to its data blocks, trusting none of it.
//
// Purpose: one place that checks pointers, births, double use and the shape of trees.
//
// Invariants:
//   1. A node is read at most once in the life of the BlockUse that the walker fills, so that no tree on disk, however
//      damaged, makes a walk longer than the volume is large.
//   2. The visitor gets data blocks in ascending order of their index; what it gets is inside the data area, of known
//      flags and referred to for the first time. A file's further references to a block that is shared are counted
//      only.
//   3. Depth is at most kTreeHeightMax; memory one page for each level.
//
// Thread safety: none.
// Ownership: refers to the reader, the set and the log, which must outlive it.
// Errors: problems in the log; what is behind them is given to TreeVisitor::on_lost().
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "common/format.h"
#include "fs/check/block_reader.h"
#include "fs/check/block_use.h"
#include "fs/check/report.h"
#include "fs/check/share_check.h"

namespace tarnfs::check {

class TreeVisitor {
 public:
  virtual ~TreeVisitor() = default;
  // Data block `index`, which was not read yet.
  virtual void on_block(std::uint64_t index, const BlockPointer& pointer) = 0;
  // What data blocks [first, first + count) hold cannot be known; a problem was reported.
  virtual void on_lost(std::uint64_t first, std::uint64_t count) = 0;
};

struct WalkedTree {
  std::uint64_t data_blocks = 0;
  std::uint64_t node_blocks = 0;
  std::uint64_t reserve_blocks = 0;
  std::uint64_t end_index = 0;  // behind the last data block
  bool complete = true;         // false: a node could not be read, so the counts are too low
};

class TreeWalker {
 public:
  TreeWalker(BlockReader& reader, BlockUse& used, ShareCheck& shares, ProblemLog& log, std::uint64_t size_blocks,
             Cp newest)
      : reader_(reader), used_(used), shares_(shares), log_(log), size_blocks_(size_blocks), newest_(newest) {}

  // Walks the tree of `record`, which stands in a block or root of `birth_max`, and checks its block count and reserve.
  // `is_file`: others may refer to its data blocks as well, and space may be reserved in it.
  WalkedTree walk(TreeOwner owner, const InodeRecord& record, Cp birth_max, TreeVisitor& visitor, bool is_file = false);

 private:
  struct Frame {
    PageRef node;
    std::uint64_t birth_cp;
    std::uint64_t first_index;  // of the data blocks below it
    unsigned level;             // of the blocks that its pointers lead to; 0: data
    unsigned next;              // pointer to look at
    bool empty;                 // no pointer so far
    std::uint64_t address;
  };
  struct Walk {
    TreeOwner owner;
    TreeVisitor& visitor;
    bool is_file;
    WalkedTree tree;
    std::vector<Frame> frames;
  };

  void follow(Walk& walk, const BlockPointer& pointer, unsigned level, std::uint64_t first_index,
              std::uint64_t birth_max);
  void follow_hole(Walk& walk, const BlockPointer& pointer, unsigned level);
  void follow_data(Walk& walk, const BlockPointer& pointer, std::uint64_t index);
  bool usable(Walk& walk, const BlockPointer& pointer, std::uint64_t birth_max);
  void descend(Walk& walk);
  void report_second_use(const Walk& walk, const BlockPointer& pointer);
  void lose(Walk& walk, unsigned level, std::uint64_t first_index);

  BlockReader& reader_;
  BlockUse& used_;
  ShareCheck& shares_;
  ProblemLog& log_;
  const std::uint64_t size_blocks_;
  const Cp newest_;
};

}  // namespace tarnfs::check
