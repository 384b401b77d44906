// fallocate: space that is kept for pages which have no content yet.
//
// A hole of a file's tree may be reserved: then the root counts a block for each page below it and for each node that
// those will need, and the ledger leaves so many alone (FORMAT.md). Putting a page there turns a block that was kept
// into one in use, so that it needs no promise but for the copies of nodes that every consistency point makes. Those
// come out of what deletions may use: the next consistency point gives them back.
#include <linux/fs.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <limits>

#include "fs/engine/engine.h"

namespace tarnfs {
namespace {

// One operation's part: the gate is left after it.
constexpr std::size_t kSpansAtOnceMax = 8192;
constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();
// About what a range takes in memory.
constexpr std::int64_t kRangeBytes = 64;

// The nodes above runs of pages that come in ascending order, each once.
class NodeCounter {
 public:
  explicit NodeCounter(unsigned height) : height_(height) {}

  std::uint64_t add(std::uint64_t first, std::uint64_t end) {
    std::uint64_t nodes = 0;
    for (unsigned level = 1; level <= height_; ++level) {
      const std::uint64_t first_node = std::max(first >> (kNodeShift * level), next_[level]);
      const std::uint64_t end_node = ((end - 1) >> (kNodeShift * level)) + 1;
      if (first_node < end_node) nodes += end_node - first_node;
      next_[level] = end_node;
    }
    return nodes;
  }

 private:
  const unsigned height_;
  std::array<std::uint64_t, kTreeHeightMax + 1> next_{};
};

// What the delta itself says of page `index`, and the first page of which it may say something else.
std::optional<SpanKind> span_in(const InodeDelta& delta, std::uint64_t index, std::uint64_t& end) {
  end = std::min(delta.pages.next(index).value_or(kEndOfFile), delta.shared.next(index).value_or(kEndOfFile));
  if (end == index) {
    ++end;
    return SpanKind::kData;
  }
  if (delta.reserved.contains(index)) {
    end = std::min(end, delta.reserved.next_outside(index));
    return SpanKind::kReserved;
  }
  end = std::min(end, delta.reserved.next_inside(index));
  if (delta.removed.contains(index)) {
    end = std::min(end, delta.removed.next_outside(index));
    return SpanKind::kHole;
  }
  end = std::min(end, delta.removed.next_inside(index));
  return std::nullopt;
}

}  // namespace

// Where space is to be kept, and what that takes.
struct Engine::ReservePlan {
  RangeSet ranges;           // pages that nothing is kept for yet
  std::uint64_t blocks = 0;  // for them and the nodes above
  std::uint64_t end = 0;     // as far as was looked
};

Result<TreeSpan> Engine::page_span(Operation& op, const Inode& inode, std::uint64_t index) {
  std::uint64_t end = kEndOfFile;
  if (const auto kind = span_in(inode.open, index, end)) return TreeSpan{*kind, end};
  if (inode.frozen != nullptr) {
    std::uint64_t frozen_end = kEndOfFile;
    const auto kind = span_in(inode.frozen->delta, index, frozen_end);
    end = std::min(end, frozen_end);
    if (kind) return TreeSpan{*kind, end};
  }
  TARNFS_ASSIGN(TreeSpan span, span_at(tree_of(inode.record), index, op));
  span.end = std::min(span.end, end);
  return span;
}

// Which of the pages `first` to `last` have a block kept for them. Only inodes with a reserve need to look.
Result<RangeSet> Engine::reserved_pages(Operation& op, const Inode& inode, std::uint64_t first, std::uint64_t last) {
  RangeSet reserved;
  if (!inode.has_reserve()) return reserved;
  for (std::uint64_t index = first; index <= last;) {
    TARNFS_ASSIGN(const TreeSpan span, page_span(op, inode, index));
    const std::uint64_t end = std::min(span.end, last + 1);
    if (span.kind == SpanKind::kReserved) reserved.add(index, end);
    index = end;
  }
  return reserved;
}

// The holes of [first, end), and what has content in `zeroed`, which is about to be cut.
Result<Engine::ReservePlan> Engine::plan_reserve(Operation& op, const Inode& inode, std::uint64_t first,
                                                 std::uint64_t end, const RangeSet& zeroed, std::size_t spans_max) {
  ReservePlan plan;
  plan.end = first;
  const unsigned height = height_above(inode, end - 1);
  NodeCounter nodes(height);
  plan.blocks = height + 1U + (height > inode.record.height ? height - inode.record.height : 0U);
  if (!zeroed.empty()) plan.blocks += height + 1U;  // the nodes at both ends are written by the cut, and again
  for (std::size_t spans = 0; plan.end < end && spans < spans_max; ++spans) {
    const std::uint64_t index = plan.end;
    TARNFS_ASSIGN(TreeSpan span, page_span(op, inode, index));
    plan.end = std::min(span.end, end);
    if (span.kind == SpanKind::kReserved) continue;
    if (span.kind == SpanKind::kData) {
      if (!zeroed.contains(index)) {
        plan.end = std::min(plan.end, zeroed.next_inside(index));
        continue;
      }
      plan.end = std::min(plan.end, zeroed.next_outside(index));
    }
    plan.ranges.add(index, plan.end);
    plan.blocks += plan.end - index + nodes.add(index, plan.end);
  }
  return plan;
}

// Inside the operation that has had the plan's blocks promised.
void Engine::reserve_pages(Operation& op, Inode& inode, const ReservePlan& plan) {
  if (plan.ranges.empty()) return;
  begin_change(op, inode);
  any_reserve_ = true;
  op.charge(plan.blocks);
  for (const auto& [first, end] : plan.ranges.ranges()) {
    inode.open.reserved.add(first, end);
    if (logs_content(inode)) inode.unlogged.reserved.add(first, end);
    op.dirty_bytes_added += kRangeBytes;
  }
}

// At most so many blocks takes a range of so many pages, wherever it is.
std::uint64_t Engine::reserve_blocks_max(std::uint64_t pages) {
  return tree_blocks_max(pages) + std::uint64_t{4} * (kTreeHeightMax + 1U);
}

// What replay_reserved() will look at, before anything changes.
Status Engine::read_reserved(Operation& op, const Inode& inode, std::span<const JournalPageRange> ranges) {
  for (const JournalPageRange& range : ranges) {
    TARNFS_TRY(plan_reserve(op, inode, range.first_page, range.end_page, RangeSet(), kNoLimit));
  }
  return {};
}

// As the journal has it: what has content by now keeps it.
Status Engine::replay_reserved(Operation& op, Inode& inode, std::span<const JournalPageRange> ranges) {
  for (const JournalPageRange& range : ranges) {
    TARNFS_ASSIGN(const ReservePlan plan,
                  plan_reserve(op, inode, range.first_page, range.end_page, RangeSet(), kNoLimit));
    reserve_pages(op, inode, plan);
  }
  return {};
}

struct Engine::FallocateStep {
  std::uint64_t end_page = 0;       // as far as it is done
  std::uint64_t blocks_needed = 0;  // more than were promised: nothing was done
};

Status Engine::check_fallocate(const Inode& inode, const FallocateOptions& options) {
  if (inode.deleted) return Error(ErrorCode::kStale);
  if (S_ISDIR(inode.record.mode)) return Error(ErrorCode::kIsDirectory);
  if (!S_ISREG(inode.record.mode)) return Error(ErrorCode::kInvalid);
  const bool zeroes = options.punch_hole || options.zero_range;
  const std::uint32_t refusing = zeroes ? kProtectingFlags : FS_IMMUTABLE_FL;
  return (inode.record.flags & refusing) != 0 ? Status(Error(ErrorCode::kNotPermitted)) : Status();
}

Status Engine::fallocate(InodeNumber number, std::uint64_t offset_bytes, std::uint64_t length_bytes,
                         FallocateOptions options) {
  if (length_bytes == 0 || (options.punch_hole && !options.keep_size)) return Error(ErrorCode::kInvalid);
  if (offset_bytes > kFileSizeMaxBytes || length_bytes > kFileSizeMaxBytes - offset_bytes) {
    return Error(ErrorCode::kFileTooBig);
  }
  const std::uint64_t end_bytes = offset_bytes + length_bytes;
  const std::uint64_t blocks_least = std::uint64_t{2} * (1 + kTreeHeightMax + 1) + blocks_for_cut() +
                                     std::uint64_t{3} * (kTreeHeightMax + 1U) + blocks_for_inode();
  // A block that others may share stays theirs when a part of it is zeroed here.
  const bool zeroes = options.punch_hole || options.zero_range;
  const bool takes_block = sharing_ && zeroes && (offset_bytes % kBlockSize != 0 || end_bytes % kBlockSize != 0);
  const Intent least = takes_block ? Intent::kChange : Intent::kDeletion;
  if (options.punch_hole) {
    return run(least, blocks_least, [&](Operation& op) -> Status {
      TARNFS_ASSIGN(const InodePtr inode, get_inode(op, number));
      WriteLock lock(inode->mutex);
      TARNFS_TRY(check_fallocate(*inode, options));
      TARNFS_TRY(zero_range(op, *inode, offset_bytes, end_bytes));
      begin_change(op, *inode);
      touch_written(op, *inode);
      return {};
    });
  }
  // A range with very many holes is done in parts. When space runs out between two, the first ones stay reserved. Each
  // part is looked at first: where all is kept already, nothing is needed for long, and it goes on a full volume too.
  std::uint64_t blocks = 0;
  for (std::uint64_t page = offset_bytes / kBlockSize; page * kBlockSize < end_bytes;) {
    const bool keeps_more = blocks != 0;
    const auto step = run(keeps_more ? Intent::kChange : least, std::max(blocks, blocks_least), [&](Operation& op) {
      const std::uint64_t from_bytes = std::max(offset_bytes, page * kBlockSize);
      return fallocate_part(op, number, from_bytes, end_bytes, options, keeps_more);
    });
    if (!step.ok()) return step.error();
    blocks = step->blocks_needed;
    if (blocks > size_blocks_.load()) return Error(ErrorCode::kNoSpace);
    if (blocks == 0) page = step->end_page;
  }
  return {};
}

// Keeps space for pages of [offset_bytes, end_bytes), from the first one on. Unless it `keeps_more`, the operation's
// promise is not for what stays.
Result<Engine::FallocateStep> Engine::fallocate_part(Operation& op, InodeNumber number, std::uint64_t offset_bytes,
                                                     std::uint64_t end_bytes, const FallocateOptions& options,
                                                     bool keeps_more) {
  TARNFS_ASSIGN(const InodePtr inode, get_inode(op, number));
  WriteLock lock(inode->mutex);
  TARNFS_TRY(check_fallocate(*inode, options));
  const std::uint64_t first = offset_bytes / kBlockSize;
  const std::uint64_t end = (end_bytes + kBlockSize - 1) / kBlockSize;
  RangeSet zeroed;
  if (options.zero_range) zeroed.add((offset_bytes + kBlockSize - 1) / kBlockSize, end_bytes / kBlockSize);
  TARNFS_ASSIGN(ReservePlan plan, plan_reserve(op, *inode, first, end, zeroed, kSpansAtOnceMax));
  const std::uint64_t others = std::uint64_t{2} * (1 + kTreeHeightMax + 1) + blocks_for_cut() + blocks_for_inode();
  const bool is_promised = plan.blocks + others <= op.blocks_promised && (keeps_more || plan.ranges.empty());
  if (!is_promised) return FallocateStep{0, plan.blocks + others};
  const bool is_last = plan.end == end;
  const std::uint64_t part_end_bytes = is_last ? end_bytes : plan.end * kBlockSize;
  begin_change(op, *inode);
  if (options.zero_range) {
    const std::uint64_t own_before = inode->open.reserved.count();
    TARNFS_TRY(zero_range(op, *inode, offset_bytes, part_end_bytes));
    const std::uint64_t own = own_before - inode->open.reserved.count();
    // What was kept before went with the cut, and is kept again.
    const std::uint64_t promised = plan.ranges.count();
    for (const auto& [zeroed_first, zeroed_end] : zeroed.ranges()) {
      plan.ranges.add(zeroed_first, std::min(zeroed_end, plan.end));
    }
    inode->open.kept_again += plan.ranges.count() - std::min(plan.ranges.count(), promised + own);
  }
  reserve_pages(op, *inode, plan);
  if (is_last && !options.keep_size) set_size(*inode, std::max(inode->record.size_bytes, end_bytes));
  touch_written(op, *inode);
  return FallocateStep{plan.end, 0};
}

}  // namespace tarnfs
