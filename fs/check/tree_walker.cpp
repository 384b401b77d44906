#include "fs/check/tree_walker.h"

#include <fmt/format.h>

#include <cstring>

#include "fs/tree/block_tree.h"

namespace tarnfs::check {
namespace {

// Data blocks below one pointer to a block of `level`.
constexpr std::uint64_t span_of(unsigned level) {
  return std::uint64_t{1} << (kNodeShift * level);
}
static_assert(kNodeShift * kTreeHeightMax + 2 < 64, "an index of a data block fits 64 bits");

BlockPointer pointer_in(const PageRef& node, unsigned position) {
  BlockPointer pointer;
  std::memcpy(&pointer, node.data() + position * sizeof pointer, sizeof pointer);
  return pointer;
}

}  // namespace

WalkedTree TreeWalker::walk(TreeOwner owner, const InodeRecord& record, Cp birth_max, TreeVisitor& visitor,
                            bool is_file) {
  Walk walk{owner, visitor, is_file, {}, {}};
  if (record.height > kTreeHeightMax) {
    log_.error(ProblemKind::kTreeShape, owner.inode(), std::nullopt,
               fmt::format("the block tree of {} has height {}, the limit is {}", owner.name(), record.height,
                           kTreeHeightMax));
    walk.tree.complete = false;
    visitor.on_lost(0, span_of(kTreeHeightMax) * kPointersPerInode);
    return walk.tree;
  }
  for (unsigned i = 0; i < kPointersPerInode; ++i) {
    follow(walk, record.pointers[i], record.height, i * span_of(record.height), birth_max.value);
    descend(walk);
  }
  const std::uint64_t found = walk.tree.data_blocks + walk.tree.node_blocks;
  if (walk.tree.complete && found != record.block_count) {
    log_.error(ProblemKind::kBlockCount, owner.inode(), std::nullopt,
               fmt::format("{} says that it has {} blocks, but it has {}", owner.name(), record.block_count, found));
  }
  if (walk.tree.complete && walk.tree.reserve_blocks != reserve_of(record)) {
    log_.error(ProblemKind::kReserve, owner.inode(), std::nullopt,
               fmt::format("{} says that {} blocks are kept for it, but its tree has {} reserved", owner.name(),
                           reserve_of(record), walk.tree.reserve_blocks));
  }
  return walk.tree;
}

// Visits everything below the node that follow() put on the stack, if it did.
void TreeWalker::descend(Walk& walk) {
  while (!walk.frames.empty()) {
    Frame& frame = walk.frames.back();
    if (frame.next == kPointersPerNode) {
      if (frame.empty) {
        log_.error(ProblemKind::kTreeShape, walk.owner.inode(), Address{frame.address},
                   fmt::format("a node of {} at block {} has no pointers", walk.owner.name(), frame.address));
      }
      walk.frames.pop_back();
      continue;
    }
    const unsigned position = frame.next++;
    const BlockPointer pointer = pointer_in(frame.node, position);
    if (pointer == BlockPointer{}) continue;
    frame.empty = false;
    // follow() may move the frames, so nothing of `frame` is used after it.
    follow(walk, pointer, frame.level, frame.first_index + position * span_of(frame.level), frame.birth_cp);
  }
}

void TreeWalker::follow(Walk& walk, const BlockPointer& pointer, unsigned level, std::uint64_t first_index,
                        std::uint64_t birth_max) {
  if (pointer.is_hole()) return follow_hole(walk, pointer, level);
  (level == 0 ? walk.tree.data_blocks : walk.tree.node_blocks) += 1;
  walk.tree.end_index = first_index + 1;
  if (!usable(walk, pointer, birth_max)) return lose(walk, level, first_index);
  if (level == 0) return follow_data(walk, pointer, first_index);
  if (!used_.add(Address{pointer.address})) {
    report_second_use(walk, pointer);
    return lose(walk, level, first_index);
  }
  PageRef node = reader_.read_verified(pointer, walk.owner, "a node");
  if (!node) return lose(walk, level, first_index);
  walk.frames.push_back({std::move(node), pointer.birth_cp, first_index, level - 1, 0, true, pointer.address});
}

void TreeWalker::follow_hole(Walk& walk, const BlockPointer& pointer, unsigned level) {
  if (pointer == BlockPointer{}) return;
  if (walk.is_file && pointer == BlockPointer::reserved_hole()) {
    walk.tree.reserve_blocks += whole_blocks(level);
    return;
  }
  log_.error(ProblemKind::kPointer, walk.owner.inode(), std::nullopt,
             fmt::format("{} has a hole with the flags {:#x}", walk.owner.name(), pointer.flags));
}

bool TreeWalker::usable(Walk& walk, const BlockPointer& pointer, std::uint64_t birth_max) {
  const Address address{pointer.address};
  if (const Status status = check_pointer(pointer, size_blocks_, newest_); !status.ok()) {
    log_.error(ProblemKind::kPointer, walk.owner.inode(), address,
               fmt::format("{}: {}", walk.owner.name(), status.error().message()));
    return false;
  }
  if (pointer.birth_cp > birth_max) {
    log_.error(ProblemKind::kBirth, walk.owner.inode(), address,
               fmt::format("block {} of {} was born in cp {}, after the cp {} of the block that refers to it",
                           pointer.address, walk.owner.name(), pointer.birth_cp, birth_max));
  }
  return true;
}

void TreeWalker::follow_data(Walk& walk, const BlockPointer& pointer, std::uint64_t index) {
  if (used_.add(Address{pointer.address})) {
    if (walk.is_file) shares_.note_first(pointer);
    return walk.visitor.on_block(index, pointer);
  }
  const auto further = walk.is_file ? shares_.note_further(pointer, walk.owner) : ShareCheck::Further::kUnexpected;
  if (further == ShareCheck::Further::kCounted) return;
  if (further == ShareCheck::Further::kUnknown) return walk.visitor.on_block(index, pointer);
  report_second_use(walk, pointer);
  lose(walk, 0, index);
}

void TreeWalker::report_second_use(const Walk& walk, const BlockPointer& pointer) {
  log_.error(ProblemKind::kUsedTwice, walk.owner.inode(), Address{pointer.address},
             fmt::format("block {} is used twice, the second time by {}", pointer.address, walk.owner.name()));
}

void TreeWalker::lose(Walk& walk, unsigned level, std::uint64_t first_index) {
  if (level > 0) walk.tree.complete = false;
  walk.visitor.on_lost(first_index, span_of(level));
}

}  // namespace tarnfs::check
