// The difference between two roots of a volume, as far as somebody may know of it.
//
// Purpose: what ViewChange says, from two roots that can both be read. The walk goes over both inode files, down only
// where pointers differ, and then over the trees of those inodes that are known: files' nodes but never their data,
// directories' pages that differ, compared entry by entry in the order of their keys.
//
// Invariants:
//   1. It reads at most limits.blocks_max blocks and keeps at most limits.names_bytes_max of names; memory beside that
//      grows with the number of known inodes that changed, and with the pages of the directory that is looked at.
//   2. What is in no difference is the same in both views: content, attributes, names.
//
// A file that is gone is only told by its names: what the kernel has of it may stay for those who have it open. A
// directory that is gone has lost all of its names.
//
// Thread safety: a function on values.
// Errors: kCanceled beyond a limit; kCorrupt and kIo for what cannot be read.
#pragma once

#include <cstdint>
#include <functional>

#include "common/format.h"
#include "common/result.h"
#include "fs/engine/view_change.h"
#include "fs/tree/block_tree.h"

namespace tarnfs {

struct ViewDifferenceLimits {
  std::uint64_t blocks_max = 16384;
  std::uint64_t names_bytes_max = 32ULL << 20;
  std::size_t ranges_max = 256;  // of one file; beyond that all of its content has changed
};

// `old_root` may have cp 0: no state yet, an empty root directory.
Result<ViewChange> view_difference(const RootBlock& old_root, const RootBlock& new_root, BlockSource& source,
                                   const std::function<bool(InodeNumber)>& is_known,
                                   const ViewDifferenceLimits& limits);

}  // namespace tarnfs
