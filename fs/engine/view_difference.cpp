#include "fs/engine/view_difference.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "fs/tree/directory_node.h"
#include "fs/tree/tree_difference.h"

namespace tarnfs {
namespace {

// What a name takes beside its bytes.
constexpr std::uint64_t kNameOverheadBytes = sizeof(ViewChange::Name);

Error damaged_directory(InodeNumber number) {
  return Error(ErrorCode::kCorrupt, "directory " + std::to_string(number.value) + " is damaged; run fsck.tarnfs");
}

// Counts what is read, checks where it is, and ends the walk at the limit.
class LimitedSource final : public BlockSource {
 public:
  LimitedSource(BlockSource& source, std::uint64_t size_blocks, std::uint64_t blocks_max)
      : source_(source), size_blocks_(size_blocks), blocks_left_(blocks_max) {}

  Result<PageRef> get(const BlockPointer& pointer) override {
    if (blocks_left_ == 0) return Error(ErrorCode::kCanceled, "the two states differ in too much");
    --blocks_left_;
    TARNFS_TRY(check_pointer(pointer, size_blocks_, Cp{~std::uint64_t{0}}));
    return source_.get(pointer);
  }

 private:
  BlockSource& source_;
  const std::uint64_t size_blocks_;
  std::uint64_t blocks_left_;
};

// The leaves of a directory that the other version does not have, in the order of their keys.
class Leaves {
 public:
  Leaves(InodeNumber directory, BlockSource& source) : directory_(directory), source_(source) {}

  Status add(const BlockPointer& pointer) {
    if (pointer.is_hole()) return {};
    TARNFS_ASSIGN(const PageRef page, source_.get(pointer));
    if (!valid_directory_page(page.bytes())) return damaged_directory(directory_);
    if (directory_header_of(page.bytes()).type == kDirectoryLeaf) {
      leaves_.push_back({LeafView(page.bytes()).key(0), pointer});
    }
    return {};
  }

  // To the first entry.
  Status start() {
    std::sort(leaves_.begin(), leaves_.end(), [](const Leaf& a, const Leaf& b) { return a.first_key < b.first_key; });
    return load();
  }

  // The entry, or null behind the last one. Valid until advance().
  const LeafEntry* entry() const { return page_ ? &entry_ : nullptr; }

  Status advance() {
    ++slot_;
    if (slot_ < LeafView(page_.bytes()).count()) return take_entry();
    ++leaf_;
    return load();
  }

 private:
  struct Leaf {
    std::uint64_t first_key;
    BlockPointer pointer;
  };

  Status load() {
    slot_ = 0;
    page_ = PageRef();
    if (leaf_ == leaves_.size()) return {};
    TARNFS_ASSIGN(page_, source_.get(leaves_[leaf_].pointer));
    return take_entry();
  }

  Status take_entry() {
    if (!LeafView(page_.bytes()).entry(slot_, entry_) || entry_.key <= last_key_) return damaged_directory(directory_);
    last_key_ = entry_.key;
    return {};
  }

  const InodeNumber directory_;
  BlockSource& source_;
  std::vector<Leaf> leaves_;
  std::size_t leaf_ = 0;
  unsigned slot_ = 0;
  PageRef page_;
  LeafEntry entry_;
  std::uint64_t last_key_ = 0;
};

class Difference {
 public:
  Difference(const RootBlock& old_root, const RootBlock& new_root, BlockSource& source,
             const std::function<bool(InodeNumber)>& is_known, const ViewDifferenceLimits& limits)
      : old_root_(old_root),
        new_root_(new_root),
        source_(source, new_root.size_blocks, limits.blocks_max),
        is_known_(is_known),
        limits_(limits) {}

  Result<ViewChange> find() {
    const TreeRoot old_tree = old_root_.cp == 0 ? TreeRoot() : tree_of(old_root_.inode_file);
    const auto visit = [&](const TreeDifference& place) -> Result<bool> {
      if (place.level == 0) TARNFS_TRY(compare_inode_blocks(place));
      return true;
    };
    TARNFS_TRY(visit_differences(old_tree, tree_of(new_root_.inode_file), source_, visit));
    change_.is_known = is_known_;
    return std::move(change_);
  }

 private:
  Status compare_inode_blocks(const TreeDifference& place) {
    PageRef old_page = PageRef::zeroed();
    PageRef new_page = PageRef::zeroed();
    if (!place.old_pointer.is_hole()) {
      TARNFS_ASSIGN(old_page, source_.get(place.old_pointer));
    }
    if (!place.new_pointer.is_hole()) {
      TARNFS_ASSIGN(new_page, source_.get(place.new_pointer));
    }
    for (std::size_t slot = 0; slot < kInodesPerBlock; ++slot) {
      InodeRecord old_record;
      InodeRecord new_record;
      const std::size_t offset = slot * sizeof old_record;
      if (std::memcmp(old_page.data() + offset, new_page.data() + offset, sizeof old_record) == 0) continue;
      std::memcpy(static_cast<void*>(&old_record), old_page.data() + offset, sizeof old_record);
      std::memcpy(static_cast<void*>(&new_record), new_page.data() + offset, sizeof new_record);
      TARNFS_TRY(compare(InodeNumber{place.index * kInodesPerBlock + slot}, old_record, new_record));
    }
    return {};
  }

  // A free slot has mode 0.
  Status compare(InodeNumber number, const InodeRecord& old_record, const InodeRecord& new_record) {
    for (const InodeRecord* const record : {&old_record, &new_record}) {
      if (record->mode == 0 || (record->flags & kInodeFlagAttributes) == 0) continue;
      // The content of attributes: the kernel keeps ACLs with the attributes of whose they are.
      const InodeNumber owner{record->parent};
      if (is_known_(owner)) change_.inodes.push_back({owner, {}});
      return {};
    }
    if (!is_known_(number)) return {};
    const bool is_gone = new_record.mode == 0;
    const std::uint32_t mode = is_gone ? old_record.mode : new_record.mode;
    if (!is_gone) change_.inodes.push_back({number, {}});
    if (S_ISDIR(mode)) return compare_names(number, tree_or_nothing(old_record), tree_or_nothing(new_record));
    if (is_gone || !(S_ISREG(mode) || S_ISLNK(mode))) return {};
    return compare_content(old_record, new_record, change_.inodes.back().pages);
  }

  static TreeRoot tree_or_nothing(const InodeRecord& record) { return record.mode == 0 ? TreeRoot() : tree_of(record); }

  Status compare_content(const InodeRecord& old_record, const InodeRecord& new_record, RangeSet& pages) {
    if (old_record.mode == 0 || old_record.layout == kInodeInlineTarget || new_record.layout == kInodeInlineTarget) {
      return {};  // new, or a symlink, whose target never changes
    }
    if (old_record.size_bytes != new_record.size_bytes) {
      // Blocks beyond the end may stay where they are when it moves.
      pages.add(std::min(old_record.size_bytes, new_record.size_bytes) / kBlockSize, kEndOfFile);
    }
    const auto visit = [&](const TreeDifference& place) -> Result<bool> {
      if (pages.ranges().size() > limits_.ranges_max) return false;
      const bool all_below = place.level == 0 || place.old_pointer.is_hole() || place.new_pointer.is_hole();
      if (all_below) pages.add(place.index, place.index + blocks_below(place.level));
      return !all_below;
    };
    TARNFS_TRY(visit_differences(tree_of(old_record), tree_of(new_record), source_, visit));
    if (pages.ranges().size() > limits_.ranges_max) pages.add(0, kEndOfFile);
    return {};
  }

  Status compare_names(InodeNumber directory, const TreeRoot& old_tree, const TreeRoot& new_tree) {
    Leaves old_leaves(directory, source_);
    Leaves new_leaves(directory, source_);
    const auto visit = [&](const TreeDifference& place) -> Result<bool> {
      if (place.level == 0) {
        TARNFS_TRY(old_leaves.add(place.old_pointer));
        TARNFS_TRY(new_leaves.add(place.new_pointer));
      }
      return true;
    };
    TARNFS_TRY(visit_differences(old_tree, new_tree, source_, visit));
    TARNFS_TRY(old_leaves.start());
    TARNFS_TRY(new_leaves.start());
    while (old_leaves.entry() != nullptr || new_leaves.entry() != nullptr) {
      TARNFS_TRY(compare_next(directory, old_leaves, new_leaves));
    }
    return {};
  }

  // An entry keeps its key as long as its name exists. Another name may have got the key since.
  Status compare_next(InodeNumber directory, Leaves& old_leaves, Leaves& new_leaves) {
    const LeafEntry* const old_entry = old_leaves.entry();
    const LeafEntry* const new_entry = new_leaves.entry();
    const bool takes_old = old_entry != nullptr && (new_entry == nullptr || old_entry->key <= new_entry->key);
    const bool takes_new = new_entry != nullptr && (old_entry == nullptr || new_entry->key <= old_entry->key);
    const bool same_name = takes_old && takes_new && old_entry->name == new_entry->name;
    if (!same_name || old_entry->inode != new_entry->inode) {
      if (takes_old) TARNFS_TRY(note_old_name(directory, *old_entry));
      if (takes_new && !same_name) TARNFS_TRY(note_name(directory, *new_entry, true));
    }
    if (takes_old) TARNFS_TRY(old_leaves.advance());
    if (takes_new) TARNFS_TRY(new_leaves.advance());
    return {};
  }

  // Whoever knows that a name leads to an inode knows the inode.
  Status note_old_name(InodeNumber directory, const LeafEntry& entry) {
    return is_known_(InodeNumber{entry.inode}) ? note_name(directory, entry, false) : Status();
  }

  Status note_name(InodeNumber directory, const LeafEntry& entry, bool is_new) {
    names_bytes_ += entry.name.size() + kNameOverheadBytes;
    if (names_bytes_ > limits_.names_bytes_max) {
      return Error(ErrorCode::kCanceled, "the two states differ in too many names");
    }
    change_.names.push_back({directory, std::string(entry.name), is_new});
    return {};
  }

  const RootBlock& old_root_;
  const RootBlock& new_root_;
  LimitedSource source_;
  const std::function<bool(InodeNumber)>& is_known_;
  const ViewDifferenceLimits& limits_;
  ViewChange change_;
  std::uint64_t names_bytes_ = 0;
};

}  // namespace

Result<ViewChange> view_difference(const RootBlock& old_root, const RootBlock& new_root, BlockSource& source,
                                   const std::function<bool(InodeNumber)>& is_known,
                                   const ViewDifferenceLimits& limits) {
  return Difference(old_root, new_root, source, is_known, limits).find();
}

}  // namespace tarnfs
