// Copies of ranges of files: whole blocks are not copied, the copy refers to them.
//
// A pointer is put into the target's changes as it stands in the source's tree: with its address, birth cp and
// checksum. The consistency point of the generation counts these references before it releases a block (share_map.h).
// What an operation of generation g refers to was referred to at the end of generation g - 1: by a durable tree or by
// one that the running consistency point writes, and that consistency point has counted what it refers to itself. So
// nobody frees the block before consistency point g, whatever becomes of the source.
//
// Pages that have no block yet, and the parts of pages at both ends, are copied. When that would be much of the range,
// a consistency point gives them blocks first.
#include <linux/fs.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>

#include "common/log.h"
#include "fs/engine/engine.h"
#include "fs/engine/inode_locks.h"

namespace tarnfs {
namespace {

constexpr std::uint64_t kBufferBytes = 1U << 20;
// So that one call cannot occupy a thread for ever; the caller goes on after a short copy.
constexpr std::uint64_t kBufferedPerCallMaxBytes = std::uint64_t{128} << 20;
// One operation's part: the gate is left after it.
constexpr std::uint64_t kPagesAtOnceMax = 4096;
// With so many pages that have no block yet the copy waits for a consistency point rather than have them written twice.
constexpr std::uint64_t kUnwrittenPagesMax = 1024;
constexpr std::uint64_t kDataBlocksExpected = 16;

std::uint64_t page_of_byte(std::uint64_t offset_bytes) {
  return offset_bytes / kBlockSize;
}

std::uint64_t pages_for(std::uint64_t size_bytes) {
  return (size_bytes + kBlockSize - 1) / kBlockSize;
}

// Its data blocks may have references of other files.
bool may_share(const InodeRecord& record) {
  return record.number >= kFirstFreeInode.value && (record.flags & kInodeFlagAttributes) == 0;
}

Status check_regular(const InodeRecord& record) {
  if (S_ISDIR(record.mode)) return Error(ErrorCode::kIsDirectory);
  if (!S_ISREG(record.mode)) return Error(ErrorCode::kInvalid);
  return {};
}

}  // namespace

struct Engine::CopyRange {
  InodeNumber from;
  std::uint64_t from_bytes = 0;
  InodeNumber to;
  std::uint64_t to_bytes = 0;
  std::uint64_t length_bytes = 0;
  bool shares = false;

  CopyRange part(std::uint64_t done_bytes, std::uint64_t length) const {
    return CopyRange{from, from_bytes + done_bytes, to, to_bytes + done_bytes, length, shares};
  }
};

// What one operation does: of the target's pages `first` + position, those that get a pointer, and those that get
// content of their own. The others become holes; `cut` covers those of them that are none yet, and no page outside the
// range.
struct Engine::CopyPlan {
  CopyRange range;
  std::uint64_t first = 0;
  std::uint64_t source_first = 0;
  bool ends_file = false;  // behind the range both files have nothing
  std::vector<BlockPointer> pointers;
  std::vector<PageRef> contents;
  std::uint64_t cut_first = 0;
  std::uint64_t cut_end = 0;

  std::uint64_t content_count() const {
    return static_cast<std::uint64_t>(
        std::count_if(contents.begin(), contents.end(), [](const PageRef& page) { return static_cast<bool>(page); }));
  }
  // The bytes of the target's page at `position` that are copied.
  std::uint64_t begin_in_page(std::size_t position) const { return position == 0 ? range.to_bytes % kBlockSize : 0; }
  std::uint64_t end_in_page(std::size_t position) const {
    const std::uint64_t start = (first + position) * kBlockSize;
    return std::min<std::uint64_t>(kBlockSize, range.to_bytes + range.length_bytes - start);
  }
  bool is_whole(std::size_t position) const {
    const bool to_end = end_in_page(position) == kBlockSize || (ends_file && position + 1 == pointers.size());
    return begin_in_page(position) == 0 && to_end;
  }
};

struct Engine::CopyStep {
  std::uint64_t copied_bytes = 0;
  std::uint64_t data_blocks_needed = 0;  // more than were allowed: nothing was done
};

Status Engine::load_share_map() {
  const auto loaded = run(Intent::kRead, 0, [&](Operation& op) -> Status {
    const auto file = get_inode(op, kShareFile);
    if (!file.ok()) return file.error().code() == ErrorCode::kStale ? Status() : Status(file.error());
    ReadLock lock((*file)->mutex);
    shares_->open(tree_of((*file)->record));
    return {};
  });
  inodes_.erase(kShareFile);
  if (!loaded.ok()) return loaded.error().in("the share map");
  if (!shares_->in_use()) return {};
  set_reserves(true, true);
  return {};
}

// False: there is no space for the reserve that it takes.
Result<bool> Engine::enable_sharing() {
  for (bool again = true; !sharing_; again = false) {
    if (set_reserves(true, false)) return true;
    if (!again) return false;
    if (NoWaitScope::is_active()) return Error(ErrorCode::kWouldWait);
    TARNFS_TRY(request_cp(true));
  }
  return true;
}

Result<std::uint64_t> Engine::copy_range(InodeNumber from, std::uint64_t from_offset_bytes, InodeNumber to,
                                         std::uint64_t to_offset_bytes, std::uint64_t length_bytes) {
  if (shut_down_) return Error(ErrorCode::kIo);
  if (read_only()) return stopped_ ? stopped_error(ErrorCode::kReadOnly) : Error(ErrorCode::kReadOnly);
  TARNFS_ASSIGN(const CopyRange range,
                bound_copy(CopyRange{from, from_offset_bytes, to, to_offset_bytes, length_bytes, false}));
  if (range.length_bytes == 0) return std::uint64_t{0};
  if (range.shares) {
    TARNFS_TRY(write_much_of_source(range));
    TARNFS_ASSIGN(const bool enabled, enable_sharing());
    if (enabled) {
      auto copied = copy_by_reference(range);
      // Where space is kept for the target, the content can be written all the same.
      if (copied.ok() || copied.error().code() != ErrorCode::kNoSpace || !any_reserve_) return copied;
    }
  }
  return copy_through_buffer(range);
}

// The range up to the end of the source, as copy_file_range(2) has it.
Result<Engine::CopyRange> Engine::bound_copy(const CopyRange& wanted) {
  CopyRange range = wanted;
  const Status looked_up = run(Intent::kRead, 0, [&](Operation& op) -> Status {
    range = wanted;
    bool may = range.from_bytes % kBlockSize == range.to_bytes % kBlockSize;
    for (const InodeNumber number : {range.from, range.to}) {
      TARNFS_ASSIGN(const InodePtr inode, get_inode(op, number));
      ReadLock lock(inode->mutex);
      if (inode->deleted) return Error(ErrorCode::kStale);
      TARNFS_TRY(check_regular(inode->record));
      may = may && may_share(inode->record);
      if (number != range.from) continue;
      const std::uint64_t size_bytes = inode->record.size_bytes;
      const std::uint64_t left_bytes = size_bytes - std::min(size_bytes, range.from_bytes);
      range.length_bytes = std::min(wanted.length_bytes, left_bytes);
    }
    range.shares = may && range.length_bytes > 0;
    return {};
  });
  if (!looked_up.ok()) return looked_up.error();
  if (range.to_bytes > kFileSizeMaxBytes || range.length_bytes > kFileSizeMaxBytes - range.to_bytes) {
    return Error(ErrorCode::kFileTooBig);
  }
  const bool apart = range.from != range.to || range.from_bytes + range.length_bytes <= range.to_bytes ||
                     range.to_bytes + range.length_bytes <= range.from_bytes;
  if (!apart) return Error(ErrorCode::kInvalid);
  return range;
}

Result<std::uint64_t> Engine::copy_through_buffer(const CopyRange& range) {
  const std::uint64_t length_bytes = std::min(range.length_bytes, kBufferedPerCallMaxBytes);
  std::vector<std::byte> buffer(std::min(length_bytes, kBufferBytes));
  std::uint64_t copied = 0;
  while (copied < length_bytes) {
    const auto chunk = std::span(buffer).first(std::min<std::uint64_t>(buffer.size(), length_bytes - copied));
    auto count = read(range.from, range.from_bytes + copied, chunk);
    Status status = count.ok() ? Status() : count.error();
    if (status.ok() && *count == 0) break;
    if (status.ok()) status = write(range.to, range.to_bytes + copied, chunk.first(*count), WriteOptions{});
    if (!status.ok()) {
      if (copied > 0) break;  // as write(2): what was done is told, the error comes with the next call
      return status.error();
    }
    copied += *count;
  }
  return copied;
}

// Gives the source's pages blocks when many have none.
Status Engine::write_much_of_source(const CopyRange& range) {
  std::uint64_t unwritten = 0;
  const Status counted = run(Intent::kRead, 0, [&](Operation& op) -> Status {
    TARNFS_ASSIGN(const InodePtr inode, get_inode(op, range.from));
    ReadLock lock(inode->mutex);
    const std::uint64_t first = page_of_byte(range.from_bytes);
    const std::uint64_t end = pages_for(range.from_bytes + range.length_bytes);
    unwritten = inode->open.pages.count(first, end);
    if (inode->frozen != nullptr) unwritten += inode->frozen->delta.pages.count(first, end);
    return {};
  });
  if (!counted.ok()) return counted.error();
  if (unwritten <= kUnwrittenPagesMax) return {};
  if (NoWaitScope::is_active()) return Error(ErrorCode::kWouldWait);
  return request_cp(false);
}

Result<std::uint64_t> Engine::copy_by_reference(const CopyRange& range) {
  std::uint64_t length_bytes = range.length_bytes;
  std::uint64_t copied = 0;
  std::uint64_t data_blocks = kDataBlocksExpected;
  while (copied < length_bytes) {
    // Parts end between two nodes of the target.
    const std::uint64_t first = page_of_byte(range.to_bytes + copied);
    const std::uint64_t end = (first + kPagesAtOnceMax) & ~(kPointersPerNode - 1);
    const std::uint64_t part_bytes = std::min(length_bytes - copied, end * kBlockSize - (range.to_bytes + copied));
    const CopyRange part = range.part(copied, part_bytes);
    const std::uint64_t node_blocks = blocks_for_pages(first, end - first) - (end - first) + blocks_for_cut();
    const auto step = run(Intent::kWrite, node_blocks + data_blocks + blocks_for_inode(),
                          [&](Operation& op) { return share_range(op, part, data_blocks); });
    if (!step.ok()) {
      if (copied > 0) break;  // as write(2): what was done is told, the error comes with the next call
      return step.error();
    }
    if (step->data_blocks_needed > data_blocks) {
      data_blocks = step->data_blocks_needed;
      continue;
    }
    if (step->copied_bytes == 0) {  // the source has become shorter
      const auto rest = bound_copy(range.part(copied, length_bytes - copied));
      if (!rest.ok() && copied == 0) return rest.error();
      length_bytes = copied + (rest.ok() ? rest->length_bytes : 0);
      continue;
    }
    copied += step->copied_bytes;
    data_blocks = kDataBlocksExpected;
  }
  return copied;
}

Result<Engine::CopyStep> Engine::share_range(Operation& op, const CopyRange& range,
                                             std::uint64_t data_blocks_max) TARNFS_NO_THREAD_SAFETY_ANALYSIS {
  TARNFS_ASSIGN(const InodePtr source, get_inode(op, range.from));
  TARNFS_ASSIGN(const InodePtr target, get_inode(op, range.to));
  const InodeLocks locks({source, target});
  if (source->deleted || target->deleted) return Error(ErrorCode::kStale);
  const std::uint64_t end_bytes = range.to_bytes + range.length_bytes;
  const std::uint32_t flags = target->record.flags;
  if ((flags & FS_IMMUTABLE_FL) != 0) return Error(ErrorCode::kNotPermitted);
  if ((flags & FS_APPEND_FL) != 0 && range.to_bytes < target->record.size_bytes) {
    return Error(ErrorCode::kNotPermitted);
  }
  if (range.from_bytes + range.length_bytes > source->record.size_bytes) return CopyStep{};
  CopyPlan plan;
  plan.range = range;
  plan.first = page_of_byte(range.to_bytes);
  plan.source_first = page_of_byte(range.from_bytes);
  plan.ends_file =
      range.from_bytes + range.length_bytes == source->record.size_bytes && end_bytes >= target->record.size_bytes;
  TARNFS_TRY(touch_nodes(op, *target, plan.first, page_of_byte(end_bytes - 1)));
  TARNFS_TRY(plan_pages(op, *source, *target, plan));
  TARNFS_TRY(claim_shares(op, plan));
  if (const std::uint64_t needed = plan.content_count(); needed > data_blocks_max) {
    shares_->give_back(op.generation, plan.pointers);
    return CopyStep{0, needed};
  }
  begin_change(op, *target);
  if (target->has_reserve()) {  // what was kept for the range is given back
    plan.cut_first = plan.first;
    plan.cut_end = plan.first + plan.pointers.size();
  }
  if (plan.cut_first < plan.cut_end) cut_pages(op, *target, plan.cut_first, plan.cut_end);
  put_shared(op, *target, plan.first, plan.pointers);
  for (std::size_t i = 0; i < plan.contents.size(); ++i) {
    if (plan.contents[i]) put_page(op, *target, plan.first + i, std::move(plan.contents[i]));
  }
  set_size(*target, std::max(target->record.size_bytes, end_bytes));
  touch_written(op, *target);
  return CopyStep{range.length_bytes, 0};
}

// Reads all that it takes; changes nothing.
Status Engine::plan_pages(Operation& op, const Inode& source, const Inode& target, CopyPlan& plan) {
  const std::uint64_t end = pages_for(plan.range.to_bytes + plan.range.length_bytes);
  plan.pointers.assign(end - plan.first, BlockPointer{});
  plan.contents.assign(end - plan.first, PageRef{});
  TARNFS_TRY(find_pointers(tree_of(source.record), plan.source_first, plan.pointers, op));
  if (source.open.changes_pages() || (source.frozen != nullptr && source.frozen->delta.changes_pages())) {
    for (std::size_t i = 0; i < plan.pointers.size(); ++i) {
      auto changed = find_changed_page(source, plan.source_first + i);
      if (!changed) continue;
      plan.pointers[i] = changed->pointer;
      plan.contents[i] = std::move(changed->page);
    }
  }
  // Of what is kept for the source nothing is copied.
  for (BlockPointer& pointer : plan.pointers) {
    if (pointer.is_hole()) pointer = BlockPointer{};
  }
  for (const std::size_t edge : {std::size_t{0}, plan.pointers.size() - 1}) {
    if (!plan.is_whole(edge)) TARNFS_TRY(plan_edge(op, source, target, edge, plan));
  }
  for (const BlockPointer& pointer : plan.pointers) {
    if (const Status status = check_pointer(pointer, size_blocks_.load(), Cp{op.generation - 1}); !status.ok()) {
      return status.error().in(device_.name() + ": inode " + std::to_string(source.number.value));
    }
  }
  return plan_holes(op, target, plan);
}

// A page of which a part is copied: the target's own with that part. The positions may be one and the same.
Status Engine::plan_edge(Operation& op, const Inode& source, const Inode& target, std::size_t position,
                         CopyPlan& plan) {
  const std::uint64_t begin = plan.begin_in_page(position);
  const std::uint64_t end = plan.end_in_page(position);
  TARNFS_ASSIGN(const PageRef from, page_in_memory(op, source, plan.source_first + position));
  TARNFS_ASSIGN(PageRef page, page_in_memory(op, target, plan.first + position));
  page.make_unique();
  std::memcpy(page.mutable_bytes().data() + begin, from.data() + begin, end - begin);
  plan.pointers[position] = BlockPointer{};
  plan.contents[position] = std::move(page);
  return {};
}

// What becomes a hole in the target and is none: all between the first and the last such page is cut, and put in again
// where it is no hole.
Status Engine::plan_holes(Operation& op, const Inode& target, CopyPlan& plan) {
  std::uint64_t data_from = plan.first;  // the target has nothing between the pages looked at and this one
  for (std::size_t i = 0; i < plan.pointers.size(); ++i) {
    if (!plan.pointers[i].is_hole() || plan.contents[i]) continue;
    const std::uint64_t index = plan.first + i;
    if (data_from <= index) {
      TARNFS_ASSIGN(data_from, next_data_page(op, target, index));
    }
    if (data_from != index) continue;
    if (plan.cut_end == 0) plan.cut_first = index;
    plan.cut_end = index + 1;
    data_from = index + 1;
  }
  return {};
}

// Each block that is referred to once more has its count checked; those that have too many are copied.
Status Engine::claim_shares(Operation& op, CopyPlan& plan) {
  SharePages durable;
  const TreeRoot tree = shares_->durable_tree();
  std::uint64_t last = ~std::uint64_t{0};
  for (const BlockPointer& pointer : plan.pointers) {
    const std::uint64_t index = pointer.address / kSharesPerPage;
    if (pointer.is_hole() || index == last) continue;
    last = index;
    if (tree.block_count == 0 || durable.contains(index)) continue;
    TARNFS_ASSIGN(const BlockPointer page, find_pointer(tree, index, op));
    if (page.is_hole()) continue;
    TARNFS_ASSIGN(durable[index], op.get(page));
  }
  std::vector<BlockPointer> unclaimed;
  const std::vector<std::size_t> left_out = shares_->claim(op.generation, plan.pointers, durable);
  unclaimed.reserve(left_out.size());
  for (const std::size_t position : left_out) unclaimed.push_back(std::exchange(plan.pointers[position], {}));
  for (std::size_t i = 0; i < left_out.size(); ++i) {
    auto page = op.get(unclaimed[i]);
    if (!page.ok()) {
      shares_->give_back(op.generation, plan.pointers);
      return page.error();
    }
    plan.contents[left_out[i]] = std::move(page).value();
  }
  return {};
}

// The pages `first`, `first` + 1, ... become those of blocks that others have too; holes in `pointers` are passed over.
void Engine::put_shared(Operation& op, Inode& inode, std::uint64_t first, std::span<const BlockPointer> pointers) {
  SharedPages& shared = inode.open.shared;
  for (std::size_t i = 0; i < pointers.size();) {
    if (pointers[i].is_hole()) {
      ++i;
      continue;
    }
    // A run below one node.
    const std::uint64_t index = first + i;
    const std::uint64_t group = index & ~(kPointersPerNode - 1);
    std::uint64_t end = index;
    while (end < group + kPointersPerNode && end - first < pointers.size() && !pointers[end - first].is_hole()) ++end;
    if (!inode.open.pages.any_chunk_in(group, group + kPointersPerNode) && !shared.any_beside(index)) {
      charge_path(op, inode, index);
    }
    op.dirty_bytes_added -= static_cast<std::int64_t>(inode.open.pages.erase(index, end) * kBlockSize);
    supersede(op, inode, index, end);
    if (logs_content(inode)) inode.unlogged.pages.remove(index, end);
    const auto before_bytes = static_cast<std::int64_t>(shared.chunk_count() * kBlockSize);
    for (std::uint64_t at = index; at < end; ++at) shared.put(at, pointers[at - first]);
    op.dirty_bytes_added += static_cast<std::int64_t>(shared.chunk_count() * kBlockSize) - before_bytes;
    i = end - first;
  }
}

}  // namespace tarnfs
