// An inode in memory: its record, and what the open generation has changed on top of its written tree.
//
// Purpose: operations change inodes here and answer; a consistency point takes the changes of one generation away
// (freezes them) and writes them, while the next generation goes on.
//
// Invariants:
//   1. The tree fields of `record` (pointers, height, block_count) are those of the newest durable root: only the end
//      of a consistency point changes them. An inline symlink's pointers never change.
//   2. A page's content is, in this order: open.pages, open.shared, a hole if in open.removed, frozen.pages,
//      frozen.shared, a hole if in frozen.removed, the tree. No page is in `pages` and in `shared` of one delta.
//   3. A page of `reserved` has no content below it and a block promised; when it is put into `pages` it takes that.
//   Also
//      those that the tree, or the frozen changes, have reserved.
//   4. Bytes of the last page beyond size_bytes are zero.
//   5. dirty_generation != 0: the inode is in the engine's list of dirty inodes, whose reference keeps it in memory. As
//      long as `frozen` is set the running consistency point does.
//
// Thread safety: `mutex` guards all but `number` and `attributes_of`, which never change. A FrozenInode's fields are
// written before the consistency point's thread takes it and by that thread alone from then on, but its delta and
// record never change after the freeze; `unlogged` is guarded by the inode's mutex.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "common/format.h"
#include "common/mutex.h"
#include "fs/tree/block_tree.h"
#include "fs/tree/page_map.h"
#include "fs/tree/range_set.h"
#include "fs/tree/shared_pages.h"

namespace tarnfs {

// What one generation changed in a file: `removed` is cut out first, then space is kept for the holes of `reserved`,
// then `pages` and `shared` are put in. Those that are in `placed` too stand in their blocks already. A block in
// `shared` is one that some page had at the end of the generation before: so only the consistency point of this one can
// free it, and that counts these references first.
struct InodeDelta {
  RangeSet removed;
  PageMap pages;
  PlacedPages placed;
  SharedPages shared;
  RangeSet reserved;
  RangeSet drawn;                  // of `pages`: those that took a block which was kept for them
  std::uint64_t drawn_count = 0;   // how many
  std::uint64_t kept_again = 0;    // how many of `reserved` were so before, and had nothing promised for it
  std::uint64_t freed_blocks = 0;  // what `removed` gives back at least, as ComingSpace counts it

  bool changes_pages() const { return !removed.empty() || !pages.empty() || !shared.empty() || !reserved.empty(); }
};

// What of a generation's changes no batch of the journal has yet. In this order: `cut` first, then `reserved`, then
// `pages`.
struct UnloggedChanges {
  bool attributes = false;
  bool size = false;
  bool xattrs = false;
  RangeSet cut;
  RangeSet reserved;
  RangeSet pages;

  bool any() const { return attributes || any_data() || xattrs; }
  // What fdatasync(2) asks for: what it takes to read the data.
  bool any_data() const { return size || !cut.empty() || !reserved.empty() || !pages.empty(); }
};

struct FrozenInode {
  std::uint64_t generation = 0;
  InodeRecord record;
  InodeDelta delta;
  bool deleted = false;   // frees the slot and every block
  TreeRoot written_tree;  // the consistency point's result
  UnloggedChanges unlogged;
};

class Inode : public std::enable_shared_from_this<Inode> {
 public:
  explicit Inode(const InodeRecord& initial)
      : number{initial.number}, attributes_of{owner_of_attributes(initial)}, record(initial) {}

  const InodeNumber number;
  const std::optional<InodeNumber> attributes_of;  // whose extended attributes it holds, if it is an attribute inode
  SharedMutex mutex;
  InodeRecord record TARNFS_GUARDED_BY(mutex);
  InodeDelta open TARNFS_GUARDED_BY(mutex);
  std::shared_ptr<FrozenInode> frozen TARNFS_GUARDED_BY(mutex);
  std::uint64_t dirty_generation TARNFS_GUARDED_BY(mutex) = 0;
  UnloggedChanges unlogged TARNFS_GUARDED_BY(mutex);  // of the open generation
  bool deleted TARNFS_GUARDED_BY(mutex) = false;

  // Whether space may be kept for pages of it.
  bool has_reserve() const TARNFS_REQUIRES_SHARED(mutex) {
    return reserve_of(record) != 0 || !open.reserved.empty() || (frozen != nullptr && !frozen->delta.reserved.empty());
  }

  // Takes the open changes away for the consistency point of their generation.
  void freeze() TARNFS_REQUIRES(mutex) {
    TARNFS_ASSERT(frozen == nullptr && dirty_generation != 0);
    frozen = std::make_shared<FrozenInode>();
    frozen->generation = dirty_generation;
    frozen->unlogged = std::exchange(unlogged, UnloggedChanges());
    frozen->record = record;
    frozen->delta = std::move(open);
    frozen->deleted = deleted;
    open = InodeDelta();
    dirty_generation = 0;
  }

 private:
  static std::optional<InodeNumber> owner_of_attributes(const InodeRecord& record) {
    if ((record.flags & kInodeFlagAttributes) == 0) return std::nullopt;
    return InodeNumber{record.parent};
  }
};

using InodePtr = std::shared_ptr<Inode>;

}  // namespace tarnfs
