// Inodes in memory: loading them, and changing what they hold.
#include <sys/stat.h>

#include <algorithm>
#include <cstring>

#include "common/log.h"
#include "fs/engine/engine.h"

namespace tarnfs {
namespace {

// About what a changed inode takes in memory until it is published: itself, its frozen changes, its record of names.
constexpr std::int64_t kDirtyInodeBytes = 2048;

// What the engine counts on; fsck.tarnfs says what else is wrong.
bool is_possible(const InodeRecord& record) {
  const bool has_tree = record.layout == 0;
  const bool has_target = record.layout == kInodeInlineTarget && S_ISLNK(record.mode);
  return (has_tree || has_target) && record.height <= kTreeHeightMax && record.size_bytes <= kFileSizeMaxBytes;
}

}  // namespace

// An attribute inode has no name: who gets at one by its number, or by a directory of a damaged image, must not lock it
// as if it were a node (LOCKS.md).
Result<InodePtr> Engine::get_inode(Operation& op, InodeNumber number) {
  TARNFS_ASSIGN(InodePtr inode, get_any_inode(op, number));
  if (inode->attributes_of) {
    return Error(ErrorCode::kCorrupt, device_.name() + ": inode " + std::to_string(number.value) +
                                          " holds attributes of inode " + std::to_string(inode->attributes_of->value) +
                                          " and can have no name; run fsck.tarnfs");
  }
  return inode;
}

Result<InodePtr> Engine::get_any_inode(Operation& op, InodeNumber number) {
  if (InodePtr cached = inodes_.find(number)) return cached;
  const std::optional<TreeRoot> inode_file = newest_inode_file();
  if (!inode_file) {
    if (number != kRootDirectory) return Error(ErrorCode::kStale);
    InodeRecord record;  // a mirror that has no state yet shows an empty directory
    record.number = kRootDirectory.value;
    record.parent = kRootDirectory.value;
    record.mode = S_IFDIR | 0555;
    record.link_count = 2;
    return inodes_.insert(std::make_shared<Inode>(record));
  }
  TARNFS_ASSIGN(const BlockPointer pointer, find_pointer(*inode_file, number.value / kInodesPerBlock, op));
  if (pointer.is_hole()) return Error(ErrorCode::kStale);
  TARNFS_ASSIGN(const PageRef page, op.get(pointer));
  InodeRecord record;
  std::memcpy(static_cast<void*>(&record), page.data() + number.value % kInodesPerBlock * sizeof record, sizeof record);
  if (record.mode == 0) return Error(ErrorCode::kStale);
  if (number == InodeNumber{} || record.number != number.value || !is_possible(record)) {
    return Error(ErrorCode::kCorrupt, device_.name() + ": inode " + std::to_string(number.value) + " is damaged");
  }
  return inodes_.insert(std::make_shared<Inode>(record));
}

Result<InodePtr> Engine::get_directory(Operation& op, InodeNumber number) {
  TARNFS_ASSIGN(InodePtr inode, get_inode(op, number));
  ReadLock lock(inode->mutex);
  if (inode->deleted) return Error(ErrorCode::kStale);
  if (!S_ISDIR(inode->record.mode)) return Error(ErrorCode::kNotDirectory);
  return inode;
}

// The first page of the inode file from `page` on that a consistency point can put a new inode into: the page and the
// nodes above it can be read, as far as there are any.
Result<std::uint64_t> Engine::readable_inode_page(Operation& op, std::uint64_t page) {
  if (page == readable_inode_page_.load()) return page;
  const TreeRoot inode_file = newest_inode_file().value_or(TreeRoot());
  Operation::Dispensable blocks(op);
  for (unsigned level = inode_file.height;; --level) {
    TARNFS_ASSIGN(const BlockPointer pointer, find_node(inode_file, page, level, blocks));
    if (pointer.is_hole()) break;
    if (const auto block = blocks.get(pointer); !block.ok()) {
      if (block.error().code() == ErrorCode::kNeedsBlock) return block.error();
      return ((page >> (kNodeShift * level)) + 1) << (kNodeShift * level);
    }
    if (level == 0) break;
  }
  readable_inode_page_ = page;
  return page;
}

// Numbers are never reused; those whose place cannot be read are passed over, and one that a failure or a second run
// leaves unused is no loss. Changes nothing else: an operation may need a block here.
Result<InodeNumber> Engine::take_inode_number(Operation& op) {
  while (true) {
    std::uint64_t number = next_inode_.load();
    const std::uint64_t page = number / kInodesPerBlock;
    TARNFS_ASSIGN(const std::uint64_t readable, readable_inode_page(op, page));
    if (readable != page) {
      log_warning(device_.name() + ": the inode file is damaged; new inodes are numbered from " +
                  std::to_string(readable * kInodesPerBlock) + " on");
      note_inode_in_use(InodeNumber{readable * kInodesPerBlock - 1});
      continue;
    }
    if (next_inode_.compare_exchange_weak(number, number + 1)) return InodeNumber{number};
  }
}

void Engine::note_inode_in_use(InodeNumber number) {
  std::uint64_t next = next_inode_.load();
  while (next <= number.value && !next_inode_.compare_exchange_weak(next, number.value + 1)) {
  }
}

// The inode's block, the nodes above it, and the directory or attribute pages are charged apart.
std::uint64_t Engine::blocks_for_inode() const {
  return 2U + height_for(next_inode_.load(std::memory_order_relaxed) / kInodesPerBlock + 1);
}

void Engine::begin_change(Operation& op, Inode& inode) {
  if (inode.dirty_generation == op.generation) {
    inode.unlogged.attributes = true;
    return;
  }
  if (inode.dirty_generation != 0) inode.freeze();
  inode.unlogged.attributes = true;
  inode.dirty_generation = op.generation;
  op.charge(blocks_for_inode());
  op.dirty_bytes_added += kDirtyInodeBytes;
  MutexLock lock(dirty_mutex_);
  dirty_.push_back(inode.shared_from_this());
}

// `is_reserved`: a block is kept for the page.
void Engine::put_page(Operation& op, Inode& inode, std::uint64_t index, PageRef page, bool is_reserved) {
  const std::uint64_t group = index & ~(kPointersPerNode - 1);
  if (logs_content(inode)) inode.unlogged.pages.add(index, index + 1);
  supersede(op, inode, index, index + 1);
  const bool first_in_group =
      !inode.open.pages.any_chunk_in(group, group + kPointersPerNode) && !inode.open.shared.any_beside(index);
  drop_shared(op, inode, index, index + 1);
  if (!inode.open.pages.put(index, std::move(page))) return;
  op.dirty_bytes_added += kBlockSize;
  if (is_reserved) {
    inode.open.drawn.add(index, index + 1);
    ++inode.open.drawn_count;
  } else {
    op.charge(1);
  }
  if (first_in_group) charge_path(op, inode, index);
}

// Changes one entry in the page `index` of a directory. `page` is what it is now: a page of the open generation, which
// is changed in place; or the clean one of `block`, which becomes that page, because nobody will ask for the block
// again; or, with a hole for `block`, any other one, such as a page that a consistency point is about to write. Whoever
// else has the page keeps it as it was.
void Engine::edit_page(Operation& op, Inode& directory, std::uint64_t index, PageRef page, const BlockPointer& block,
                       const LeafEdit& edit) {
  if (PageRef* const open = directory.open.pages.find(index)) {
    page = PageRef();
    open->make_unique();
    apply_edit(open->mutable_bytes(), edit);
    return;
  }
  if (!block.is_hole()) cache_.forget(Address{block.address}, 1);
  page.make_unique();
  apply_edit(page.mutable_bytes(), edit);
  put_page(op, directory, index, std::move(page));
}

// The path to the page, and where the tree grows, the path to what is there already.
void Engine::charge_path(Operation& op, const Inode& inode, std::uint64_t index) {
  const unsigned height = height_above(inode, index);
  op.charge(height + 1U + (height > inode.record.height ? height - inode.record.height : 0U));
}

void Engine::drop_shared(Operation& op, Inode& inode, std::uint64_t first, std::uint64_t end) {
  SharedPages& shared = inode.open.shared;
  if (shared.empty()) return;
  const auto before_bytes = static_cast<std::int64_t>(shared.chunk_count() * kBlockSize);
  shared.erase(first, end);
  op.dirty_bytes_added += static_cast<std::int64_t>(shared.chunk_count() * kBlockSize) - before_bytes;
}

// The height that the tree may have when this generation is written, at least what `index` needs.
unsigned Engine::height_above(const Inode& inode, std::uint64_t index) {
  const auto height_of_size = [](const InodeRecord& record) {
    return height_for((record.size_bytes + kBlockSize - 1) / kBlockSize);
  };
  unsigned height = std::max<unsigned>(inode.record.height, height_for(index + 1));
  height = std::max<unsigned>(height, height_of_size(inode.record));
  height = std::max<unsigned>(height, height_for(inode.open.reserved.end()));
  if (inode.frozen != nullptr) {
    height = std::max<unsigned>(height, height_of_size(inode.frozen->record));
    height = std::max<unsigned>(height, height_for(inode.frozen->delta.reserved.end()));
  }
  return height;
}

// What the generation was promised for pages: what they drew from older reserves needed no promise.
static std::uint64_t promised_page_blocks(const InodeDelta& delta) {
  return delta.pages.size() + delta.reserved.count() - delta.drawn_count;
}

// The nodes at both ends of the cut are written anew, unless nothing is left of the tree.
void Engine::cut_pages(Operation& op, Inode& inode, std::uint64_t first, std::uint64_t end) {
  if (first != 0 || end != kEndOfFile) {
    const bool one_path = end == kEndOfFile || first / kPointersPerNode == (end - 1) / kPointersPerNode;
    const std::uint64_t paths = one_path ? 1 : 2;
    op.charge(paths * (height_above(inode, first) + 1));
  }
  InodeDelta& open = inode.open;
  const std::uint64_t promised_before = promised_page_blocks(open);
  const std::uint64_t dirty_pages = open.pages.erase(first, end);
  op.dirty_bytes_added -= static_cast<std::int64_t>(dirty_pages * kBlockSize);
  drop_shared(op, inode, first, end);
  open.removed.add(first, end);
  if (!open.reserved.empty() || open.drawn_count != 0) {
    open.reserved.remove(first, end);
    open.drawn.remove(first, end);
    open.drawn_count = open.drawn.count();
  }
  if (end == kEndOfFile) count_freed(op, inode, first, promised_before - promised_page_blocks(open));
  supersede(op, inode, first, end);
  if (!logs_content(inode)) return;
  inode.unlogged.pages.remove(first, end);
  inode.unlogged.reserved.remove(first, end);
  inode.unlogged.cut.add(first, end);
}

std::uint64_t Engine::blocks_for_pages(std::uint64_t first_page, std::uint64_t count) const {
  const std::uint64_t groups = count / kPointersPerNode + 2;
  return count + groups * (2U * kTreeHeightMax + 2U) + (first_page > 0 ? 1 : 0);
}

// Where a page is that the written tree does not have so.
std::optional<Engine::PagePlace> Engine::find_changed_page(const Inode& inode, std::uint64_t index) {
  const InodeDelta* const frozen = inode.frozen != nullptr ? &inode.frozen->delta : nullptr;
  for (const InodeDelta* const delta : {static_cast<const InodeDelta*>(&inode.open), frozen}) {
    if (delta == nullptr) continue;
    if (const PageRef* page = delta->pages.find(index)) return PagePlace{*page, {}};
    if (const BlockPointer* pointer = delta->shared.find(index)) return PagePlace{{}, *pointer};
    if (delta->removed.contains(index)) return PagePlace{};
  }
  return std::nullopt;
}

Result<Engine::PagePlace> Engine::find_page(Operation& op, const Inode& inode, std::uint64_t index) {
  if (const auto changed = find_changed_page(inode, index)) return *changed;
  if (inode.record.layout == kInodeInlineTarget) return PagePlace{};
  TARNFS_ASSIGN(const BlockPointer pointer, find_pointer(tree_of(inode.record), index, op));
  return PagePlace{{}, pointer};
}

Result<PageRef> Engine::page_in_memory(Operation& op, const Inode& inode, std::uint64_t index) {
  TARNFS_ASSIGN(PagePlace place, find_page(op, inode, index));
  if (place.page) return std::move(place.page);
  if (place.pointer.is_hole()) return PageRef::zeroed();
  return op.get(place.pointer);
}

Result<std::string> Engine::content_of(Operation& op, const Inode& inode) {
  constexpr std::uint64_t kContentMaxBytes = 64U << 20;  // the orphan file is the largest
  const std::uint64_t size_bytes = inode.record.size_bytes;
  if (size_bytes > kContentMaxBytes)
    return Error(ErrorCode::kCorrupt, device_.name() + ": an inode's content is too long");
  std::string content;
  content.reserve(size_bytes);
  for (std::uint64_t done = 0; done < size_bytes; done += kBlockSize) {
    TARNFS_ASSIGN(const PageRef page, page_in_memory(op, inode, done / kBlockSize));
    const std::size_t count = std::min<std::uint64_t>(kBlockSize, size_bytes - done);
    content.append(reinterpret_cast<const char*>(page.data()), count);
  }
  return content;
}

// With what is kept for the inode. What is dirty may replace blocks or add to them: never more than the file can have,
// never fewer than it has.
std::uint64_t Engine::block_count_of(const Inode& inode) {
  const InodeRecord& record = inode.record;
  const InodeDelta& open = inode.open;
  std::uint64_t written = record.layout == kInodeInlineTarget ? 0 : record.block_count + reserve_of(record);
  const auto cut_off = [&written, height = record.height](std::uint64_t first) {
    if (first == kEndOfFile) return;
    const unsigned nodes_above = height - std::min(height, height_for(first));
    written = std::min<std::uint64_t>(written, first == 0 ? 0 : dense_tree_blocks(first) + nodes_above);
  };
  const std::uint64_t open_end = open.removed.tail_first();
  std::uint64_t added = open.pages.size() - open.drawn_count + open.shared.size();
  added += open.reserved.count();
  added -= std::min(added, open.kept_again);
  std::uint64_t page_count = std::max((record.size_bytes + kBlockSize - 1) / kBlockSize, open.reserved.end());
  cut_off(open_end);
  if (inode.frozen != nullptr) {
    const InodeDelta& frozen = inode.frozen->delta;
    cut_off(frozen.removed.tail_first());
    added += std::min<std::uint64_t>(open_end, frozen.pages.size() - frozen.drawn_count + frozen.shared.size());
    added += std::min(open_end, frozen.reserved.count() - std::min(frozen.reserved.count(), frozen.kept_again));
    page_count = std::max(page_count, std::min(open_end, frozen.reserved.end()));
  }
  return std::min(written + dense_tree_blocks(added), std::max(written, dense_tree_blocks(page_count)));
}

Attributes Engine::attributes_of(const Inode& inode) const {
  const InodeRecord& record = inode.record;
  Attributes attributes;
  attributes.inode = inode.number;
  attributes.mode = record.mode;
  attributes.link_count = record.link_count;
  attributes.uid = record.uid;
  attributes.gid = record.gid;
  attributes.device_major = record.device >> 20;
  attributes.device_minor = record.device & 0xfffff;
  attributes.flags = record.flags;
  attributes.size_bytes = record.size_bytes;
  attributes.accessed = {record.atime_seconds, record.atime_nanoseconds};
  attributes.modified = {record.mtime_seconds, record.mtime_nanoseconds};
  attributes.changed = {record.ctime_seconds, record.ctime_nanoseconds};
  attributes.born = {record.btime_seconds, record.btime_nanoseconds};
  attributes.block_count = block_count_of(inode);
  return attributes;
}

// Inside the gate, for every inode that comes, goes or gets other flags.
void Engine::count_protected(std::uint32_t flags_before, std::uint32_t flags_after) {
  const int before = (flags_before & kProtectingFlags) != 0 ? 1 : 0;
  const int after = (flags_after & kProtectingFlags) != 0 ? 1 : 0;
  if (before != after) protected_inodes_.fetch_add(after - before);
}

void Engine::set_size(Inode& inode, std::uint64_t size_bytes) {
  inode.unlogged.size = inode.unlogged.size || inode.record.size_bytes != size_bytes;
  inode.record.size_bytes = size_bytes;
}

void Engine::touch_changed(Operation& op, Inode& inode, bool modified) {
  const Timestamp now = op.now();
  inode.record.ctime_seconds = now.seconds;
  inode.record.ctime_nanoseconds = now.nanoseconds;
  if (!modified) return;
  inode.record.mtime_seconds = now.seconds;
  inode.record.mtime_nanoseconds = now.nanoseconds;
}

void Engine::touch_written(Operation& op, Inode& inode) const {
  if (!kernel_keeps_times_) touch_changed(op, inode, true);
}

Result<Attributes> Engine::attributes(InodeNumber number) {
  return run(Intent::kRead, 0, [&](Operation& op) -> Result<Attributes> {
    TARNFS_ASSIGN(const InodePtr inode, get_inode(op, number));
    ReadLock lock(inode->mutex);
    if (inode->deleted) return Error(ErrorCode::kStale);
    return attributes_of(*inode);
  });
}

// Who asks by a number alone (a file handle, which an NFS client may have made up) must not get at what the file system
// keeps for itself.
bool Engine::may_be_named(const Inode& inode) {
  const bool is_reserved = inode.number < kFirstFreeInode && inode.number != kRootDirectory;
  return !is_reserved && !inode.attributes_of;
}

Result<Attributes> Engine::attributes_with_lookup(InodeNumber number) {
  return run(Intent::kRead, 0, [&](Operation& op) -> Result<Attributes> {
    TARNFS_ASSIGN(const InodePtr inode, get_any_inode(op, number));
    if (!may_be_named(*inode)) return Error(ErrorCode::kStale);
    ReadLock lock(inode->mutex);
    if (inode->deleted || inode->record.link_count == 0) return Error(ErrorCode::kStale);
    lookups_.add(number);
    return attributes_of(*inode);
  });
}

}  // namespace tarnfs
