// Operations on the content of files.
#include <linux/fs.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>

#include "common/checksum.h"
#include "common/log.h"
#include "fs/engine/engine.h"

namespace tarnfs {
namespace {

constexpr unsigned kReadAttemptsMax = 64;
constexpr std::size_t kBlocksOfShortRead = 4;
constexpr std::int64_t kSecondsPerDay = 86400;

std::uint64_t pages_for(std::uint64_t size_bytes) {
  return (size_bytes + kBlockSize - 1) / kBlockSize;
}

bool is_page_aligned(const void* memory) {
  return reinterpret_cast<std::uintptr_t>(memory) % kBlockSize == 0;
}

Status check_regular(const InodeRecord& record) {
  if (S_ISDIR(record.mode)) return Error(ErrorCode::kIsDirectory);
  if (!S_ISREG(record.mode)) return Error(ErrorCode::kInvalid);
  return {};
}

// What is append-only keeps its size, owner and mode, and the times of changes go on.
Status check_unprotected(const InodeRecord& record, const AttributeChanges& changes) {
  if (changes.flags || changes.writes_back) return {};
  const bool fixed = changes.size_bytes || changes.mode || changes.uid || changes.gid || changes.sets_times;
  const std::uint32_t protecting = fixed ? kProtectingFlags : FS_IMMUTABLE_FL;
  return (record.flags & protecting) != 0 ? Status(Error(ErrorCode::kNotPermitted)) : Status();
}

}  // namespace

// What a read found in memory is in `out` already; the rest is in these blocks.
struct Engine::ReadPlan {
  struct Block {
    std::uint64_t page_index = 0;
    BlockPointer pointer;
    bool operator==(const Block&) const = default;
  };
  std::size_t length_bytes = 0;
  std::uint64_t view = 0;
  bool notes_access = false;
  std::vector<Block> blocks;
};

Result<Engine::ReadPlan> Engine::plan_read(Operation& op, InodeNumber number, std::uint64_t offset_bytes,
                                           std::span<std::byte> out) {
  ReadPlan plan;
  plan.view = view_.load();
  TARNFS_ASSIGN(const InodePtr inode, get_inode(op, number));
  ReadLock lock(inode->mutex);
  if (inode->deleted) return Error(ErrorCode::kStale);
  const InodeRecord record = inode->record;
  TARNFS_TRY(check_regular(record));
  if (offset_bytes >= record.size_bytes) return plan;
  plan.length_bytes = std::min<std::uint64_t>(out.size(), record.size_bytes - offset_bytes);
  plan.notes_access = notes_access(record, op.now());
  const std::uint64_t first = offset_bytes / kBlockSize;
  const std::uint64_t end = pages_for(offset_bytes + plan.length_bytes);
  std::vector<BlockPointer> pointers(end - first);
  if (record.layout != kInodeInlineTarget) TARNFS_TRY(find_pointers(tree_of(record), first, pointers, op));
  const bool has_changes = inode->open.changes_pages() || inode->frozen != nullptr;
  for (std::uint64_t index = first; index < end; ++index) {
    PagePlace place{{}, pointers[index - first]};
    if (has_changes) place = find_changed_page(*inode, index).value_or(place);
    if (!place.page && !place.pointer.is_hole()) {
      plan.blocks.push_back({index, place.pointer});
      continue;
    }
    const std::uint64_t from = std::max(offset_bytes, index * kBlockSize);
    const std::uint64_t to = std::min(offset_bytes + plan.length_bytes, (index + 1) * kBlockSize);
    if (place.page) {
      std::memcpy(out.data() + (from - offset_bytes), place.page.data() + from % kBlockSize, to - from);
    } else {
      std::memset(out.data() + (from - offset_bytes), 0, to - from);
    }
  }
  return plan;
}

// Reads the plan's blocks, neighbours in one request, and verifies each.
Status Engine::read_blocks(const ReadPlan& plan, std::uint64_t offset_bytes, std::span<std::byte> out) {
  if (plan.blocks.empty()) return {};
  if (NoWaitScope::is_active() && !block_loads_.is_short()) return Error(ErrorCode::kWouldWait);
  const auto read = [&] { return read_and_verify(plan, offset_bytes, out); };
  // A long read takes long wherever it is done.
  return plan.blocks.size() <= kBlocksOfShortRead ? block_loads_.timed(clock_, read) : read();
}

Status Engine::read_and_verify(const ReadPlan& plan, std::uint64_t offset_bytes, std::span<std::byte> out) {
  const std::uint64_t size_blocks = size_blocks_.load();
  const auto direct = [&](const ReadPlan::Block& block) {
    const std::uint64_t start = block.page_index * kBlockSize;
    return start >= offset_bytes && start + kBlockSize <= offset_bytes + out.size() &&
           is_page_aligned(out.data() + (start - offset_bytes));
  };
  for (std::size_t i = 0; i < plan.blocks.size();) {
    const ReadPlan::Block& first = plan.blocks[i];
    TARNFS_TRY(check_pointer(first.pointer, size_blocks, Cp{~std::uint64_t{0}}));
    if (!direct(first)) {
      TARNFS_ASSIGN(const PageRef page, read_block(device_, first.pointer));
      const std::uint64_t from = std::max(offset_bytes, first.page_index * kBlockSize);
      const std::uint64_t to = std::min(offset_bytes + plan.length_bytes, (first.page_index + 1) * kBlockSize);
      std::memcpy(out.data() + (from - offset_bytes), page.data() + from % kBlockSize, to - from);
      ++i;
      continue;
    }
    std::size_t count = 1;
    while (i + count < plan.blocks.size() && direct(plan.blocks[i + count]) &&
           plan.blocks[i + count].page_index == first.page_index + count &&
           plan.blocks[i + count].pointer.address == first.pointer.address + count) {
      TARNFS_TRY(check_pointer(plan.blocks[i + count].pointer, size_blocks, Cp{~std::uint64_t{0}}));
      ++count;
    }
    const auto target = out.subspan(first.page_index * kBlockSize - offset_bytes, count * kBlockSize);
    TARNFS_TRY(device_.read(Address{first.pointer.address}, target));
    for (std::size_t k = 0; k < count; ++k) {
      const BlockPointer& pointer = plan.blocks[i + k].pointer;
      const auto block = target.subspan(k * kBlockSize, kBlockSize);
      if (checksum_of(block) == pointer.checksum) continue;
      // The device may have another copy; if not, this says what is wrong.
      TARNFS_ASSIGN(const PageRef page, read_block(device_, pointer));
      std::memcpy(block.data(), page.data(), kBlockSize);
    }
    i += count;
  }
  return {};
}

Result<std::size_t> Engine::read(InodeNumber number, std::uint64_t offset_bytes, std::span<std::byte> out,
                                 ReadOptions options) {
  std::vector<ReadPlan::Block> failed;
  for (unsigned attempt = 0;; ++attempt) {
    TARNFS_ASSIGN(ReadPlan plan,
                  run(Intent::kRead, 0, [&](Operation& op) { return plan_read(op, number, offset_bytes, out); }));
    const Status status = read_blocks(plan, offset_bytes, out);
    if (!status.ok() && status.error().code() == ErrorCode::kWouldWait) return status.error();
    if (status.ok()) {
      if (plan.notes_access && options.notes_access) touch_accessed(number);
      return plan.length_bytes;
    }
    // While we read without locks a block may have been freed and reused: then the pointers have changed. The same
    // pointers again mean that the block is damaged.
    const bool same_again = plan.blocks == failed && plan.view == view_.load();
    if (same_again || status.error().code() != ErrorCode::kCorrupt || attempt >= kReadAttemptsMax) {
      ++error_count_;
      log_error("inode " + std::to_string(number.value) + ": " + status.error().describe());
      return status.error();
    }
    failed = std::move(plan.blocks);
  }
}

// Access times as relatime has them.
bool Engine::notes_access(const InodeRecord& record, Timestamp now) const {
  const bool old = record.atime_seconds <= std::max(record.mtime_seconds, record.ctime_seconds) ||
                   now.seconds - record.atime_seconds > kSecondsPerDay;
  return old && access_times_ && !read_only();
}

// A failure to note the time is not an error of the read.
void Engine::touch_accessed(InodeNumber number) {
  const auto touched = run(Intent::kOptional, blocks_for_inode(), [&](Operation& op) -> Status {
    TARNFS_ASSIGN(const InodePtr inode, get_inode(op, number));
    WriteLock lock(inode->mutex);
    if (inode->deleted || (inode->record.flags & FS_NOATIME_FL) != 0) return {};
    begin_change(op, *inode);
    const Timestamp now = op.now();
    inode->record.atime_seconds = now.seconds;
    inode->record.atime_nanoseconds = now.nanoseconds;
    return {};
  });
  if (touched.ok()) return;
  const ErrorCode code = touched.error().code();
  if (code == ErrorCode::kNoSpace || code == ErrorCode::kStale || code == ErrorCode::kWouldWait) return;
  log_warning("access time of inode " + std::to_string(number.value) + ": " + touched.error().describe());
}

// Reads the nodes above these pages: a damaged one is the caller's error now, not the consistency point's later.
Status Engine::touch_nodes(Operation& op, const Inode& inode, std::uint64_t first, std::uint64_t last) {
  if (inode.record.layout == kInodeInlineTarget) return {};
  const TreeRoot tree = tree_of(inode.record);
  for (std::uint64_t index = first; index <= last; index = (index | (kPointersPerNode - 1)) + 1) {
    TARNFS_TRY(find_pointer(tree, index, op));
  }
  return {};
}

// Puts `data` into pages. The old content of pages that are only partly written is read before anything changes.
Status Engine::write_pages(Operation& op, Inode& inode, std::uint64_t offset_bytes, std::span<const std::byte> data,
                           bool from_reserve_only) {
  const std::uint64_t end_bytes = offset_bytes + data.size();
  const std::uint64_t first = offset_bytes / kBlockSize;
  const std::uint64_t last = (end_bytes - 1) / kBlockSize;
  PageRef first_old;
  PageRef last_old;
  if (offset_bytes % kBlockSize != 0 || end_bytes < (first + 1) * kBlockSize) {
    TARNFS_ASSIGN(first_old, page_in_memory(op, inode, first));
  }
  if (last != first && end_bytes % kBlockSize != 0) {
    TARNFS_ASSIGN(last_old, page_in_memory(op, inode, last));
  }
  TARNFS_TRY(touch_nodes(op, inode, first, last));
  TARNFS_ASSIGN(const RangeSet reserved, reserved_pages(op, inode, first, last));
  if (from_reserve_only) {
    const bool has_own = inode.dirty_generation == op.generation;
    const std::uint64_t own_pages = has_own ? inode.open.pages.count(first, last + 1) : 0;
    if (reserved.count() + own_pages < last - first + 1) return Error(ErrorCode::kNoSpace);
  }
  begin_change(op, inode);
  for (std::uint64_t index = first; index <= last; ++index) {
    const bool is_reserved = reserved.contains(index);
    const std::uint64_t from = std::max(offset_bytes, index * kBlockSize);
    const std::uint64_t to = std::min(end_bytes, (index + 1) * kBlockSize);
    const auto part = data.subspan(from - offset_bytes, to - from);
    if (part.size() == kBlockSize) {
      put_page(op, inode, index, PageRef::copy_of(part), is_reserved);
      continue;
    }
    // The open generation's own page is changed in place, unless somebody reads it just now.
    PageRef page = std::exchange(index == first ? first_old : last_old, PageRef());
    if (PageRef* const open = inode.open.pages.find(index)) {
      page = PageRef();
      open->make_unique();
      std::memcpy(open->mutable_bytes().data() + from % kBlockSize, part.data(), part.size());
      if (logs_content(inode)) inode.unlogged.pages.add(index, index + 1);
      supersede(op, inode, index, index + 1);
      continue;
    }
    page.make_unique();
    std::memcpy(page.mutable_bytes().data() + from % kBlockSize, part.data(), part.size());
    put_page(op, inode, index, std::move(page), is_reserved);
  }
  return {};
}

Status Engine::write(InodeNumber number, std::uint64_t offset_bytes, std::span<const std::byte> data,
                     WriteOptions options) {
  if (data.empty()) return {};
  if (offset_bytes > kFileSizeMaxBytes || data.size() > kFileSizeMaxBytes - offset_bytes) {
    return Error(ErrorCode::kFileTooBig);
  }
  const std::uint64_t first = offset_bytes / kBlockSize;
  const std::uint64_t pages = pages_for(offset_bytes + data.size()) - first;
  const std::uint64_t blocks = blocks_for_pages(first, pages) + blocks_for_inode();
  const auto write_as = [&](Intent intent) {
    const bool from_reserve_only = intent == Intent::kReserved;
    return run(intent, from_reserve_only ? blocks - pages : blocks, [&](Operation& op) {
      return write_in_memory(op, number, offset_bytes, data, options, from_reserve_only);
    });
  };
  // When others could not write this any more, it may be what fallocate has kept space for.
  if (any_reserve_ && ledger_ != nullptr && ledger_->available_to_users_blocks() < blocks) {
    Status drawn = write_as(Intent::kReserved);
    if (drawn.ok() || drawn.error().code() != ErrorCode::kNoSpace) return drawn;
  }
  Status written = write_as(options.already_accepted ? Intent::kAccepted : Intent::kWrite);
  const bool full = !written.ok() && written.error().code() == ErrorCode::kNoSpace;
  return full && any_reserve_ ? write_as(Intent::kReserved) : written;
}

Status Engine::write_in_memory(Operation& op, InodeNumber number, std::uint64_t offset_bytes,
                               std::span<const std::byte> data, WriteOptions options, bool from_reserve_only) {
  TARNFS_ASSIGN(const InodePtr inode, get_inode(op, number));
  WriteLock lock(inode->mutex);
  if (inode->deleted) return Error(ErrorCode::kStale);
  TARNFS_TRY(check_regular(inode->record));
  const std::uint32_t flags = options.from_page_cache ? 0 : inode->record.flags;
  if ((flags & FS_IMMUTABLE_FL) != 0) return Error(ErrorCode::kNotPermitted);
  if ((flags & FS_APPEND_FL) != 0 && offset_bytes < inode->record.size_bytes) return Error(ErrorCode::kNotPermitted);
  TARNFS_TRY(write_pages(op, *inode, offset_bytes, data, from_reserve_only));
  set_size(*inode, std::max(inode->record.size_bytes, offset_bytes + data.size()));
  if (!options.from_page_cache) touch_written(op, *inode);
  return {};
}

// Makes the bytes [first_byte, end_byte) zero: whole pages become holes.
Status Engine::zero_range(Operation& op, Inode& inode, std::uint64_t first_byte, std::uint64_t end_byte) {
  if (first_byte >= end_byte) return {};
  struct Edge {
    std::uint64_t index;
    std::uint64_t from;
    std::uint64_t to;
    PageRef page;
  };
  std::vector<Edge> edges;
  // Called below, with the inode's lock held.
  const auto add_edge = [&](std::uint64_t index, std::uint64_t from, std::uint64_t to)
                            TARNFS_NO_THREAD_SAFETY_ANALYSIS -> Status {
    TARNFS_ASSIGN(PagePlace place, find_page(op, inode, index));
    if (!place.page && place.pointer.is_hole()) return {};
    TARNFS_ASSIGN(PageRef page, page_in_memory(op, inode, index));
    edges.push_back({index, from, to, std::move(page)});
    return {};
  };
  const std::uint64_t first_whole = pages_for(first_byte);
  const std::uint64_t end_whole = end_byte == kEndOfFile ? kEndOfFile : end_byte / kBlockSize;
  if (first_whole > end_whole) {
    TARNFS_TRY(add_edge(end_whole, first_byte % kBlockSize, end_byte % kBlockSize));
  } else {
    if (first_byte % kBlockSize != 0)
      TARNFS_TRY(add_edge(first_byte / kBlockSize, first_byte % kBlockSize, kBlockSize));
    if (end_byte != kEndOfFile && end_byte % kBlockSize != 0) TARNFS_TRY(add_edge(end_whole, 0, end_byte % kBlockSize));
  }
  if (first_whole < end_whole) {
    TARNFS_TRY(touch_nodes(op, inode, first_whole, first_whole));
    if (end_whole != kEndOfFile) TARNFS_TRY(touch_nodes(op, inode, end_whole - 1, end_whole - 1));
  }
  begin_change(op, inode);
  if (first_whole < end_whole) cut_pages(op, inode, first_whole, end_whole);
  for (Edge& edge : edges) {
    edge.page.make_unique();
    std::memset(edge.page.mutable_bytes().data() + edge.from, 0, edge.to - edge.from);
    put_page(op, inode, edge.index, std::move(edge.page));
  }
  return {};
}

Status Engine::resize(Operation& op, Inode& inode, std::uint64_t size_bytes) {
  TARNFS_TRY(check_regular(inode.record));
  if (size_bytes > kFileSizeMaxBytes) return Error(ErrorCode::kFileTooBig);
  // What is kept behind the end goes with a truncation to the same size too.
  const bool cuts_reserve = size_bytes == inode.record.size_bytes && inode.has_reserve();
  if (size_bytes < inode.record.size_bytes || cuts_reserve) TARNFS_TRY(zero_range(op, inode, size_bytes, kEndOfFile));
  begin_change(op, inode);
  set_size(inode, size_bytes);
  return {};
}

Result<Attributes> Engine::change_attributes(InodeNumber number, const AttributeChanges& changes) {
  // Hardly anything of it takes space for longer than to the next consistency point: an ACL keeps its size when the
  // mode changes. What it may need besides is asked for when it does, for a full volume may not have it.
  AttributeSpace space;
  for (;;) {
    std::uint64_t blocks = blocks_for_inode();
    if (changes.size_bytes) blocks += 1 + kTreeHeightMax + 1 + blocks_for_cut();
    if (space.for_acl) blocks += blocks_for_xattrs();
    const auto changed = run(space.for_good ? Intent::kChange : Intent::kDeletion, blocks,
                             [&](Operation& op) { return change_attributes_in_memory(op, number, changes, space); });
    if (!changed.ok()) return changed.error();
    if (*changed) return **changed;
  }
}

// A block that others may share stays theirs when a part of it is cut off here.
bool Engine::cut_takes_block(const Inode& inode, const AttributeChanges& changes) const {
  return sharing_ && changes.size_bytes && *changes.size_bytes % kBlockSize != 0 &&
         *changes.size_bytes < inode.record.size_bytes;
}

Result<std::optional<Attributes>> Engine::change_attributes_in_memory(Operation& op, InodeNumber number,
                                                                      const AttributeChanges& changes,
                                                                      AttributeSpace& space) {
  TARNFS_ASSIGN(const InodePtr inode, get_inode(op, number));
  WriteLock lock(inode->mutex);
  if (inode->deleted) return Error(ErrorCode::kStale);
  InodeRecord& record = inode->record;
  TARNFS_TRY(check_unprotected(record, changes));
  std::optional<XattrSet> xattrs;
  if (changes.mode) {
    TARNFS_ASSIGN(xattrs, xattrs_after_chmod(op, *inode, *changes.mode));
  }
  const AttributeSpace needed{.for_acl = space.for_acl || xattrs,
                              .for_good = space.for_good || cut_takes_block(*inode, changes)};
  const bool is_enough = needed.for_acl == space.for_acl && needed.for_good == space.for_good;
  space = needed;
  if (!is_enough) return std::optional<Attributes>();
  if (changes.size_bytes) TARNFS_TRY(resize(op, *inode, *changes.size_bytes));
  if (xattrs) TARNFS_TRY(store_xattrs(op, *inode, *xattrs));
  begin_change(op, *inode);
  const bool comes_with_times = changes.changed || (changes.size_bytes && kernel_keeps_times_);
  if (!comes_with_times) touch_changed(op, *inode, changes.size_bytes.has_value());
  if (changes.mode) record.mode = (record.mode & S_IFMT) | (*changes.mode & 07777);
  if (changes.uid) record.uid = *changes.uid;
  if (changes.gid) record.gid = *changes.gid;
  if (changes.flags) {
    count_protected(record.flags, *changes.flags);
    record.flags = (record.flags & kInodeFlagAttributes) | (*changes.flags & ~kInodeFlagAttributes);
  }
  if (changes.accessed) {
    record.atime_seconds = changes.accessed->seconds;
    record.atime_nanoseconds = changes.accessed->nanoseconds;
  }
  if (changes.modified) {
    record.mtime_seconds = changes.modified->seconds;
    record.mtime_nanoseconds = changes.modified->nanoseconds;
  }
  if (changes.changed) {
    record.ctime_seconds = changes.changed->seconds;
    record.ctime_nanoseconds = changes.changed->nanoseconds;
  }
  return std::optional(attributes_of(*inode));
}

Result<std::uint64_t> Engine::seek(InodeNumber number, std::uint64_t offset_bytes, SeekKind kind) {
  constexpr std::uint64_t kPagesPerRun = 4096;  // then the gate is left for a moment
  std::optional<std::uint64_t> view;
  std::uint64_t index = 0;  // nothing of what is looked for is before it, in this view
  std::optional<std::uint64_t> found;
  while (!found) {
    const Status searched = run(Intent::kRead, 0, [&](Operation& op) -> Status {
      if (view != view_.load()) {
        view = view_.load();
        index = offset_bytes / kBlockSize;
      }
      TARNFS_ASSIGN(const InodePtr inode, get_inode(op, number));
      ReadLock lock(inode->mutex);
      TARNFS_TRY(check_regular(inode->record));
      const std::uint64_t size_bytes = inode->record.size_bytes;
      if (offset_bytes >= size_bytes) return Error(ErrorCode::kNoData);
      const std::uint64_t end = pages_for(size_bytes);
      for (const std::uint64_t stop = index + kPagesPerRun; index < std::min(end, stop); ++index) {
        TARNFS_ASSIGN(const std::uint64_t data, next_data_page(op, *inode, index));
        if (kind == SeekKind::kData && data >= end) return Error(ErrorCode::kNoData);
        if (kind == SeekKind::kData) found = std::max(offset_bytes, data * kBlockSize);
        if (kind == SeekKind::kHole && data != index) found = std::max(offset_bytes, index * kBlockSize);
        if (found) return {};
      }
      if (index >= end) found = size_bytes;
      return {};
    });
    if (!searched.ok()) return searched.error();
  }
  return *found;
}

// The smallest page index at or above `from` that is not a hole, or kEndOfFile.
Result<std::uint64_t> Engine::next_data_page(Operation& op, const Inode& inode, std::uint64_t from) {
  const auto next_in = [](const InodeDelta& delta, std::uint64_t index) {
    return std::min(delta.pages.next(index).value_or(kEndOfFile), delta.shared.next(index).value_or(kEndOfFile));
  };
  std::uint64_t nearest = next_in(inode.open, from);
  const InodeDelta* const frozen = inode.frozen != nullptr ? &inode.frozen->delta : nullptr;
  if (frozen != nullptr) {
    std::uint64_t page = next_in(*frozen, from);
    while (page != kEndOfFile && inode.open.removed.contains(page)) {
      page = next_in(*frozen, inode.open.removed.next_outside(page));
    }
    nearest = std::min(nearest, page);
  }
  const TreeRoot tree = tree_of(inode.record);
  for (std::uint64_t index = from; index < nearest;) {
    TARNFS_ASSIGN(const auto block, next_data_block(tree, index, op));
    if (!block || *block >= nearest) break;
    index = inode.open.removed.next_outside(*block);
    if (frozen != nullptr && index == *block) index = frozen->removed.next_outside(index);
    if (index == *block) return index;
  }
  return nearest;
}

}  // namespace tarnfs
