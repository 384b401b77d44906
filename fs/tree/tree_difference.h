// What differs between two trees of block pointers: two versions of a file.
//
// Purpose: blocks are never overwritten, so equal pointers lead to equal content: the birth cp is part of a pointer. A
// walk over both trees goes down only where the pointers differ, whatever their heights are.
//
// Thread safety: a function on values; the BlockSource says its own.
// Errors: kCorrupt for a tree that is too high, those of the source and of the visitor.
#pragma once

#include <cstdint>
#include <functional>

#include "fs/tree/block_tree.h"

namespace tarnfs {

struct TreeDifference {
  BlockPointer old_pointer;  // a hole: nothing was there
  BlockPointer new_pointer;  // a hole: nothing is there
  unsigned level = 0;        // of what they lead to; 0: data blocks
  std::uint64_t index = 0;   // the first data block below
};

// The data blocks that a pointer to `level` has below it.
std::uint64_t blocks_below(unsigned level);

// Visits each place where the pointers differ, nodes before what is below them and in the order of their indexes. Where
// `visit` returns false for a node, what is below it is left out.
Status visit_differences(const TreeRoot& old_tree, const TreeRoot& new_tree, BlockSource& source,
                         const std::function<Result<bool>(const TreeDifference&)>& visit);

}  // namespace tarnfs
