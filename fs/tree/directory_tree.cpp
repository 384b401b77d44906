#include "fs/tree/directory_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "fs/tree/directory_edits.h"

namespace tarnfs {

// The pages from the root down to a leaf, and the range of keys that the leaf is for.
struct DirectoryPath {
  struct Step {
    PageRef page;
    std::uint64_t index = 0;
    unsigned slot = 0;  // the child taken; in the leaf the entry, or where it would be
  };
  std::array<Step, kDirectoryHeightMax> steps;
  unsigned depth = 0;  // of the leaf: steps[0] is the root
  std::uint64_t low = 0;
  std::uint64_t high = kDirectoryKeyEnd;

  Step& leaf() { return steps[depth]; }
  const Step& leaf() const { return steps[depth]; }
};

namespace {

constexpr unsigned kTypeShift = 12;

// A page that uses less than this is merged with a neighbour when both together use at most three times as much, so
// that the next insert does not split them again.
constexpr std::size_t kLeafBytesMin = kDirectoryBodyBytes / 4;
constexpr unsigned kIndexSlotsMin = kIndexSlotsMax / 4;

Error damaged(std::uint64_t index, const char* what) {
  return Error(ErrorCode::kCorrupt,
               fmt::format("directory page {}: {}; run fsck.tarnfs, or take the page from the mirror", index, what));
}

Result<PageRef> read_checked(DirectoryPages& pages, std::uint64_t index) {
  if (index >= pages.page_count()) return damaged(index, "it is beyond the end of the directory");
  auto page = pages.read(index);
  if (page.ok() && !valid_directory_page(page->bytes())) return damaged(index, "it is no directory page");
  return page;
}

Result<PageRef> read_child(DirectoryPages& pages, std::uint64_t index, unsigned level) {
  if (index == 0) return damaged(index, "the root is the child of another page");
  auto page = read_checked(pages, index);
  if (page.ok() && directory_header_of(page->bytes()).level != level) {
    return damaged(index, "it is on another level than the page that names it says");
  }
  return page;
}

Result<PageRef> read_root(DirectoryPages& pages) {
  auto page = read_checked(pages, 0);
  if (page.ok() && directory_header_of(page->bytes()).level >= directory_height_max(pages.page_count())) {
    return damaged(0, "the tree is higher than its pages allow");
  }
  return page;
}

DirectoryRecord record_of(const LeafEntry& entry) {
  return DirectoryRecord{.inode = InodeNumber{entry.inode},
                         .type = static_cast<std::uint32_t>(entry.type) << kTypeShift,
                         .cookie = entry.key};
}

bool possible_name(std::string_view name) {
  return name != "." && name != ".." && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

}  // namespace

// Fills `path` down to the leaf whose range holds `key`. There must be pages.
Status DirectoryTree::descend(std::uint64_t key, DirectoryPath& path) {
  path.low = 0;
  path.high = kDirectoryKeyEnd;
  path.depth = 0;
  std::uint64_t index = 0;
  auto page = read_root(pages_);
  while (true) {
    if (!page.ok()) return page.error();
    DirectoryPath::Step& step = path.leaf();
    step.page = std::move(page).value();
    step.index = index;
    const unsigned level = directory_header_of(step.page.bytes()).level;
    if (level == 0) {
      const LeafView leaf(step.page.bytes());
      if (leaf.key(0) >= path.low && leaf.key(leaf.count() - 1) < path.high) return {};
      return damaged(index, "it has keys out of its range");
    }
    const IndexView view(step.page.bytes());
    step.slot = view.child_for(key);
    if (step.slot > 0) path.low = std::max(path.low, view.slot(step.slot).key);
    if (step.slot + 1 < view.count()) path.high = std::min(path.high, view.slot(step.slot + 1).key);
    index = view.slot(step.slot).child;
    page = read_child(pages_, index, level - 1);
    ++path.depth;
  }
}

// Looks through all names of the hash, which may go over several leaves. Afterwards `path` leads to the entry, or when
// there is none to where it would be with the free sequence.
Result<DirectoryTree::Location> DirectoryTree::locate(std::uint64_t name_hash, std::string_view name,
                                                      DirectoryPath& path) {
  TARNFS_ASSERT(name_hash >= 1 && name_hash < kDirectoryKeyEnd >> kSequenceBits);
  const std::uint64_t last_key = last_key_of(name_hash);
  std::uint64_t key = first_key_of(name_hash);
  Location location;
  while (true) {
    TARNFS_TRY(descend(key, path));
    DirectoryPath::Step& leaf = path.leaf();
    const LeafView view(leaf.page.bytes());
    for (leaf.slot = view.lower_bound(key); leaf.slot < view.count(); ++leaf.slot) {
      LeafEntry entry;
      if (view.key(leaf.slot) > last_key) break;
      if (!view.entry(leaf.slot, entry)) return damaged(leaf.index, "an entry is damaged");
      if (entry.name == name) {
        location.record = record_of(entry);
        return location;
      }
      if (entry.key == first_key_of(name_hash) + location.free_sequence) ++location.free_sequence;
    }
    if (path.high > last_key) break;
    key = path.high;
  }
  if (location.free_sequence == kSequencesPerHash) return location;
  const std::uint64_t new_key = first_key_of(name_hash) + location.free_sequence;
  if (new_key < path.low) TARNFS_TRY(descend(new_key, path));
  path.leaf().slot = LeafView(path.leaf().page.bytes()).lower_bound(new_key);
  return location;
}

Result<std::optional<DirectoryRecord>> DirectoryTree::find(std::uint64_t name_hash, std::string_view name) {
  if (pages_.page_count() == 0) return std::optional<DirectoryRecord>();
  DirectoryPath path;
  auto location = locate(name_hash, name, path);
  if (!location.ok()) return location.error();
  return location->record;
}

Result<DirectoryRecord> DirectoryTree::insert(std::uint64_t name_hash, std::string_view name, InodeNumber inode,
                                              std::uint32_t type) {
  TARNFS_ASSERT(inode.value != 0);
  LeafEntry added{.key = first_key_of(name_hash),
                  .inode = inode.value,
                  .type = static_cast<std::uint8_t>(type >> kTypeShift),
                  .name = name};
  if (pages_.page_count() == 0) {
    PageEdits edits(pages_);
    PageRef root = PageRef::zeroed();
    initialise_leaf(root.mutable_bytes());
    apply_edit(root.mutable_bytes(), LeafEdit{LeafEdit::Kind::kInsert, 0, added});
    edits.add(std::move(root));
    edits.apply();
    return record_of(added);
  }
  DirectoryPath path;
  TARNFS_ASSIGN(const Location location, locate(name_hash, name, path));
  if (location.record.has_value()) return Error(ErrorCode::kExists);
  if (location.free_sequence == kSequencesPerHash) {
    return Error(ErrorCode::kNoSpace, "the directory has 128 names of the same hash; choose another name");
  }
  added.key += location.free_sequence;
  TARNFS_ASSIGN(const unsigned slot, check_new_slot(path, added.key));
  const LeafEdit edit{LeafEdit::Kind::kInsert, slot, added};
  switch (outcome_of(path.leaf().page.bytes(), edit)) {
    case NodeOutcome::kDone:
      pages_.edit(path.leaf().index, std::exchange(path.leaf().page, PageRef()), edit);
      return record_of(added);
    case NodeOutcome::kFull:
      break;
    case NodeOutcome::kDamaged:
      return damaged(path.leaf().index, "an entry is damaged");
  }
  PageEdits edits(pages_);
  TARNFS_TRY(split(path, slot, added, edits));
  edits.apply();
  return record_of(added);
}

// The slot for a new key in the path's leaf. The keys beside it must leave place for it, or the leaf was damaged.
Result<unsigned> DirectoryTree::check_new_slot(const DirectoryPath& path, std::uint64_t key) const {
  const DirectoryPath::Step& leaf = path.leaf();
  const LeafView view(leaf.page.bytes());
  if ((leaf.slot > 0 && view.key(leaf.slot - 1) >= key) || (leaf.slot < view.count() && view.key(leaf.slot) <= key)) {
    return damaged(leaf.index, "its keys are out of order");
  }
  return leaf.slot;
}

// Splits the path's leaf to take `added`, and the pages above it as far as they are full.
Status DirectoryTree::split(const DirectoryPath& path, unsigned slot, const LeafEntry& added, PageEdits& edits) {
  PageRef left = PageRef::zeroed();
  PageRef right = PageRef::zeroed();
  const PageRef& leaf = path.leaf().page;
  if (split_leaf(leaf.bytes(), slot, added, left.mutable_bytes(), right.mutable_bytes()) != NodeOutcome::kDone) {
    return damaged(path.leaf().index, "an entry is damaged");
  }
  std::uint64_t separator = LeafView(right.bytes()).key(0);
  if (separator <= path.low || separator >= path.high) return damaged(path.leaf().index, "its keys are out of order");
  std::uint8_t level = 0;
  for (unsigned depth = path.depth; depth > 0; --depth, ++level) {
    const DirectoryPath::Step& parent = path.steps[depth - 1];
    edits.put(path.steps[depth].index, std::move(left));
    const IndexSlot child{.key = separator, .child = edits.add(std::move(right))};
    if (edits.page_count() > kDirectoryPagesMax) {
      return Error(ErrorCode::kNoSpace, "the directory has used all its page indexes; move its entries to a new one");
    }
    PageRef page = parent.page;
    page.make_unique();
    if (insert_into_index(page.mutable_bytes(), parent.slot + 1, child) == NodeOutcome::kDone) {
      edits.put(parent.index, std::move(page));
      return {};
    }
    left = PageRef::zeroed();
    right = PageRef::zeroed();
    split_index(page.bytes(), parent.slot + 1, child, left.mutable_bytes(), right.mutable_bytes(), separator);
  }
  return grow_root(std::move(left), std::move(right), separator, level, edits);
}

// Puts a new root over the two halves of the old one, which was on `level`.
Status DirectoryTree::grow_root(PageRef left, PageRef right, std::uint64_t separator, std::uint8_t level,
                                PageEdits& edits) {
  const IndexSlot left_slot{.key = 0, .child = edits.add(std::move(left))};
  const IndexSlot right_slot{.key = separator, .child = edits.add(std::move(right))};
  if (edits.page_count() > kDirectoryPagesMax) {
    return Error(ErrorCode::kNoSpace, "the directory has used all its page indexes; move its entries to a new one");
  }
  if (level + 2U > directory_height_max(edits.page_count()))
    return damaged(0, "the tree is higher than its pages allow");
  PageRef root = PageRef::zeroed();
  initialise_index(root.mutable_bytes(), static_cast<std::uint8_t>(level + 1));
  TARNFS_ASSERT(insert_into_index(root.mutable_bytes(), 0, left_slot) == NodeOutcome::kDone);
  TARNFS_ASSERT(insert_into_index(root.mutable_bytes(), 1, right_slot) == NodeOutcome::kDone);
  edits.put(0, std::move(root));
  return {};
}

Result<DirectoryRecord> DirectoryTree::replace(std::uint64_t name_hash, std::string_view name, InodeNumber inode,
                                               std::uint32_t type) {
  TARNFS_ASSERT(inode.value != 0);
  if (pages_.page_count() == 0) return Error(ErrorCode::kNotFound);
  DirectoryPath path;
  TARNFS_ASSIGN(const Location location, locate(name_hash, name, path));
  if (!location.record.has_value()) return Error(ErrorCode::kNotFound);
  const LeafEntry entry{.inode = inode.value, .type = static_cast<std::uint8_t>(type >> kTypeShift)};
  const LeafEdit edit{LeafEdit::Kind::kReplace, path.leaf().slot, entry};
  if (outcome_of(path.leaf().page.bytes(), edit) != NodeOutcome::kDone) {
    return damaged(path.leaf().index, "an entry is damaged");
  }
  pages_.edit(path.leaf().index, std::move(path.leaf().page), edit);
  return *location.record;
}

Result<DirectoryRecord> DirectoryTree::remove(std::uint64_t name_hash, std::string_view name) {
  if (pages_.page_count() == 0) return Error(ErrorCode::kNotFound);
  DirectoryPath path;
  TARNFS_ASSIGN(const Location location, locate(name_hash, name, path));
  if (!location.record.has_value()) return Error(ErrorCode::kNotFound);
  const LeafEdit edit{LeafEdit::Kind::kRemove, path.leaf().slot, {}};
  if (outcome_of(path.leaf().page.bytes(), edit) != NodeOutcome::kDone) {
    return damaged(path.leaf().index, "an entry is damaged");
  }
  PageRef leaf = std::exchange(path.leaf().page, PageRef());
  if (keeps_its_place(path, leaf, name.size())) {
    pages_.edit(path.leaf().index, std::move(leaf), edit);
    return *location.record;
  }
  leaf.make_unique();
  apply_edit(leaf.mutable_bytes(), edit);
  PageEdits edits(pages_);
  TARNFS_TRY(rebalance(path, std::move(leaf), edits));
  edits.apply();
  return *location.record;
}

// Whether the path's leaf is neither empty nor to be merged when it loses a name of so many bytes.
bool DirectoryTree::keeps_its_place(const DirectoryPath& path, const PageRef& leaf, std::size_t name_bytes) {
  const LeafView view(leaf.bytes());
  if (view.count() == 1) return false;
  return path.depth == 0 || view.used_bytes() >= kLeafBytesMin + leaf_entry_bytes(name_bytes);
}

// Takes the path's leaf as it is now, and removes or merges pages upwards as far as they became empty or nearly so.
Status DirectoryTree::rebalance(const DirectoryPath& path, PageRef leaf, PageEdits& edits) {
  PageRef page = std::move(leaf);
  for (unsigned depth = path.depth; depth > 0; --depth) {
    const DirectoryPath::Step& parent = path.steps[depth - 1];
    unsigned removed_slot = parent.slot;
    if (directory_header_of(page.bytes()).count == 0) {
      edits.drop(path.steps[depth].index);
    } else {
      TARNFS_ASSIGN(const std::optional<unsigned> merged, merge_with_neighbour(path, depth, page, edits));
      if (!merged.has_value()) {
        edits.put(path.steps[depth].index, std::move(page));
        return {};
      }
      removed_slot = *merged;
    }
    page = parent.page;
    page.make_unique();
    remove_from_index(page.mutable_bytes(), removed_slot);
  }
  return finish_root(std::move(page), edits);
}

// Merges the changed `page` at path.steps[depth] with a neighbour of the same parent when it is small and one has room.
// Returns the slot of the parent that must go; none when nothing was merged.
Result<std::optional<unsigned>> DirectoryTree::merge_with_neighbour(const DirectoryPath& path, unsigned depth,
                                                                    const PageRef& page, PageEdits& edits) {
  const std::optional<unsigned> nothing;
  const DirectoryPageHeader header = directory_header_of(page.bytes());
  const bool is_leaf = header.level == 0;
  const auto used = [is_leaf](const PageRef& ref) {
    return is_leaf ? LeafView(ref.bytes()).used_bytes() : directory_header_of(ref.bytes()).count;
  };
  const std::size_t used_min = is_leaf ? kLeafBytesMin : kIndexSlotsMin;
  if (used(page) >= used_min) return nothing;
  const DirectoryPath::Step& parent = path.steps[depth - 1];
  const IndexView parent_view(parent.page.bytes());
  for (const bool to_left : {true, false}) {
    if (to_left ? parent.slot == 0 : parent.slot + 1 == parent_view.count()) continue;
    const unsigned neighbour_slot = to_left ? parent.slot - 1 : parent.slot + 1;
    const std::uint64_t neighbour_index = parent_view.slot(neighbour_slot).child;
    if (neighbour_index == path.steps[depth].index) return damaged(parent.index, "it names a page twice");
    TARNFS_ASSIGN(const PageRef neighbour, read_child(pages_, neighbour_index, header.level));
    if (used(neighbour) + used(page) > 3 * used_min) continue;
    const PageRef& left = to_left ? neighbour : page;
    const PageRef& right = to_left ? page : neighbour;
    const unsigned right_slot = to_left ? parent.slot : neighbour_slot;
    PageRef merged = PageRef::zeroed();
    const NodeOutcome outcome =
        is_leaf ? merge_leaves(left.bytes(), right.bytes(), merged.mutable_bytes())
                : merge_indexes(left.bytes(), right.bytes(), parent_view.slot(right_slot).key, merged.mutable_bytes());
    if (outcome != NodeOutcome::kDone) return damaged(neighbour_index, "an entry is damaged");
    edits.put(parent_view.slot(right_slot - 1).child, std::move(merged));
    edits.drop(parent_view.slot(right_slot).child);
    return std::optional<unsigned>(right_slot);
  }
  return nothing;
}

// Takes the changed root: the directory is empty when it is; an index with one child gives way to that child.
Status DirectoryTree::finish_root(PageRef root, PageEdits& edits) {
  if (directory_header_of(root.bytes()).count == 0) {
    edits.drop(0);
    edits.forget_all_indexes();
    return {};
  }
  while (true) {
    const DirectoryPageHeader header = directory_header_of(root.bytes());
    if (header.type == kDirectoryLeaf || header.count > 1) break;
    const std::uint64_t child_index = IndexView(root.bytes()).slot(0).child;
    PageRef child = edits.changed(child_index);
    if (!child) {
      TARNFS_ASSIGN(child, read_child(pages_, child_index, header.level - 1U));
    }
    edits.drop(child_index);
    root = std::move(child);
  }
  edits.put(0, std::move(root));
  return {};
}

Status DirectoryTree::list(std::uint64_t after_cookie,
                           const std::function<bool(std::string_view name, const DirectoryRecord& record)>& visit) {
  if (after_cookie >= kDirectoryKeyEnd - 1 || pages_.page_count() == 0) return {};
  std::uint64_t key = after_cookie + 1;
  DirectoryPath path;
  while (key < kDirectoryKeyEnd) {
    TARNFS_TRY(descend(key, path));
    const DirectoryPath::Step& leaf = path.leaf();
    const LeafView view(leaf.page.bytes());
    for (unsigned slot = view.lower_bound(key); slot < view.count(); ++slot) {
      LeafEntry entry;
      if (!view.entry(slot, entry) || !possible_name(entry.name)) return damaged(leaf.index, "an entry is damaged");
      if (entry.key < key || entry.key < kDirectoryKeyMin || entry.key >= path.high) {
        return damaged(leaf.index, "its keys are out of order");
      }
      if (!visit(entry.name, record_of(entry))) return {};
      key = entry.key + 1;
    }
    key = path.high;
  }
  return {};
}

}  // namespace tarnfs
