#include "fs/tree/block_tree.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/checksum.h"
#include "common/log.h"

namespace tarnfs {
namespace {

constexpr std::uint64_t kNodeMask = kPointersPerNode - 1;

BlockPointer pointer_in(const PageRef& node, std::uint64_t slot) {
  BlockPointer pointer;
  std::memcpy(&pointer, node.data() + slot * sizeof pointer, sizeof pointer);
  return pointer;
}

// Data blocks below one pointer of a node at `level` + 1.
constexpr std::uint64_t span_blocks(unsigned level) {
  return std::uint64_t{1} << (kNodeShift * level);
}

}  // namespace

TreeRoot tree_of(const InodeRecord& record) {
  return TreeRoot{record.pointers, record.height, record.block_count, reserve_of(record)};
}

void store_tree(InodeRecord& record, const TreeRoot& tree) {
  record.pointers = tree.pointers;
  record.height = tree.height;
  record.block_count = tree.block_count;
  record.reserve_low = static_cast<std::uint16_t>(tree.reserve_blocks);
  record.reserve_high = static_cast<std::uint32_t>(tree.reserve_blocks >> 16);
}

std::uint64_t capacity_blocks(std::uint8_t height) {
  return kPointersPerInode << (kNodeShift * height);
}

std::uint8_t height_for(std::uint64_t blocks) {
  std::uint8_t height = 0;
  while (capacity_blocks(height) < blocks) ++height;
  return height;
}

std::uint64_t whole_blocks(unsigned level) {
  std::uint64_t blocks = 1;
  for (; level > 0; --level) blocks = blocks * kPointersPerNode + 1;
  return blocks;
}

std::uint64_t dense_tree_blocks(std::uint64_t data_blocks) {
  std::uint64_t blocks = data_blocks;
  std::uint64_t level_blocks = data_blocks;
  for (std::uint8_t level = height_for(data_blocks); level > 0; --level) {
    level_blocks = (level_blocks + kPointersPerNode - 1) / kPointersPerNode;
    blocks += level_blocks;
  }
  return blocks;
}

std::uint64_t tree_blocks_max(std::uint64_t data_blocks) {
  std::uint64_t blocks = 0;
  for (unsigned level = 0; level <= kTreeHeightMax; ++level) {
    blocks += data_blocks;
    data_blocks = (data_blocks + kPointersPerNode - 1) / kPointersPerNode;
  }
  return blocks;
}

Result<BlockPointer> find_node(const TreeRoot& tree, std::uint64_t index, unsigned level, BlockSource& source) {
  if (tree.height > kTreeHeightMax) return Error(ErrorCode::kCorrupt, "an inode's tree is too high");
  if (index >= capacity_blocks(tree.height) || level > tree.height) return BlockPointer{};
  BlockPointer pointer = tree.pointers[index >> (kNodeShift * tree.height)];
  for (unsigned at = tree.height; at > level && !pointer.is_hole(); --at) {
    TARNFS_ASSIGN(const PageRef node, source.get(pointer));
    pointer = pointer_in(node, (index >> (kNodeShift * (at - 1))) & kNodeMask);
  }
  return pointer;
}

Result<BlockPointer> find_pointer(const TreeRoot& tree, std::uint64_t index, BlockSource& source) {
  return find_node(tree, index, 0, source);
}

Status find_pointers(const TreeRoot& tree, std::uint64_t first, std::span<BlockPointer> out, BlockSource& source) {
  std::size_t done = 0;
  while (done < out.size()) {
    const std::uint64_t index = first + done;
    if (tree.height == 0 || index >= capacity_blocks(tree.height)) {
      TARNFS_ASSIGN(out[done], find_pointer(tree, index, source));
      ++done;
      continue;
    }
    const std::uint64_t in_node = kPointersPerNode - (index & kNodeMask);
    const std::size_t count = std::min<std::uint64_t>(in_node, out.size() - done);
    TARNFS_ASSIGN(const BlockPointer leaf, find_node(tree, index, 1, source));
    if (leaf.is_hole()) {
      std::fill_n(out.begin() + static_cast<std::ptrdiff_t>(done), count, leaf);
    } else {
      TARNFS_ASSIGN(const PageRef node, source.get(leaf));
      std::memcpy(static_cast<void*>(&out[done]), node.data() + (index & kNodeMask) * sizeof(BlockPointer),
                  count * sizeof(BlockPointer));
    }
    done += count;
  }
  return {};
}

namespace {

SpanKind kind_of(const BlockPointer& pointer) {
  if (!pointer.is_hole()) return SpanKind::kData;
  return pointer.is_reserved() ? SpanKind::kReserved : SpanKind::kHole;
}

}  // namespace

Result<TreeSpan> span_at(const TreeRoot& tree, std::uint64_t index, BlockSource& source) {
  if (tree.height > kTreeHeightMax) return Error(ErrorCode::kCorrupt, "an inode's tree is too high");
  if (index >= capacity_blocks(tree.height)) return TreeSpan{SpanKind::kHole, kEndOfFile};
  BlockPointer pointer = tree.pointers[index >> (kNodeShift * tree.height)];
  for (unsigned level = tree.height; level > 0 && !pointer.is_hole(); --level) {
    TARNFS_ASSIGN(const PageRef node, source.get(pointer));
    const std::uint64_t slot = (index >> (kNodeShift * (level - 1))) & kNodeMask;
    pointer = pointer_in(node, slot);
    const SpanKind kind = kind_of(pointer);
    if (level > 1 && kind == SpanKind::kData) continue;
    std::uint64_t end_slot = slot + 1;
    while (end_slot < kPointersPerNode && kind_of(pointer_in(node, end_slot)) == kind) ++end_slot;
    const std::uint64_t node_first = (index >> (kNodeShift * level)) << (kNodeShift * level);
    return TreeSpan{kind, node_first + end_slot * span_blocks(level - 1)};
  }
  return TreeSpan{kind_of(pointer), ((index >> (kNodeShift * tree.height)) + 1) << (kNodeShift * tree.height)};
}

Result<std::optional<std::uint64_t>> next_data_block(const TreeRoot& tree, std::uint64_t from, BlockSource& source) {
  std::uint64_t index = from;
  while (index < capacity_blocks(tree.height)) {
    unsigned level = tree.height;
    BlockPointer pointer = tree.pointers[index >> (kNodeShift * level)];
    while (level > 0 && !pointer.is_hole()) {
      TARNFS_ASSIGN(const PageRef node, source.get(pointer));
      --level;
      pointer = pointer_in(node, (index >> (kNodeShift * level)) & kNodeMask);
    }
    if (!pointer.is_hole()) return std::optional(index);
    index = ((index >> (kNodeShift * level)) + 1) << (kNodeShift * level);
  }
  return std::optional<std::uint64_t>();
}

Status visit_tree(const TreeRoot& tree, Cp since, BlockSource& source,
                  const std::function<Status(const TreeVisit&)>& visit) {
  if (tree.height > kTreeHeightMax) return Error(ErrorCode::kCorrupt, "an inode's tree is too high");
  std::vector<TreeVisit> pending;
  for (std::size_t i = kPointersPerInode; i-- > 0;) {
    pending.push_back({tree.pointers[i], tree.height, i * span_blocks(tree.height)});
  }
  while (!pending.empty()) {
    const TreeVisit current = pending.back();
    pending.pop_back();
    if (current.pointer.is_hole() || current.pointer.birth_cp <= since.value) continue;
    TARNFS_TRY(visit(current));
    if (current.level == 0) continue;
    TARNFS_ASSIGN(const PageRef node, source.get(current.pointer));
    for (std::size_t slot = kPointersPerNode; slot-- > 0;) {
      const BlockPointer child = pointer_in(node, slot);
      if (child.is_hole()) continue;
      pending.push_back({child, current.level - 1, current.index + slot * span_blocks(current.level - 1)});
    }
  }
  return {};
}

namespace {

// Rewrites a tree in ascending order of data blocks, with one open node a level.
class TreeRewriter {
 public:
  TreeRewriter(const TreeRoot& tree, const TreeEnvironment& environment) : tree_(tree), environment_(environment) {}

  // `placed`: the block that has the page already, or null.
  Status put(std::uint64_t index, const PageRef& page, const BlockPointer* placed) {
    TARNFS_TRY(make_place(index));
    BlockPointer pointer;
    if (placed != nullptr) {
      TARNFS_ASSERT(placed->birth_cp == environment_.cp.value);
      TARNFS_TRY(environment_.allocator.adopt(Address{placed->address}));
      environment_.sink.announce(*placed, page);
      pointer = *placed;
    } else {
      TARNFS_ASSIGN(pointer, write_block(page, 0));
    }
    set_child_of(1, index, pointer);
    return {};
  }

  // The page is that of a block which was written for an older root.
  Status share(std::uint64_t index, const BlockPointer& pointer) {
    TARNFS_ASSERT(pointer.birth_cp < environment_.cp.value);
    TARNFS_TRY(make_place(index));
    set_child_of(1, index, pointer);
    return {};
  }

  // Keeps space for the data blocks of [first, end) that are holes.
  Status reserve(std::uint64_t first, std::uint64_t end) {
    TARNFS_TRY(grow_to_hold(end - 1));
    for (std::uint64_t index = first; index < end;) {
      TARNFS_ASSIGN(index, reserve_from(index, first, end));
    }
    return {};
  }

  Status remove(std::uint64_t first, std::uint64_t end) {
    std::uint64_t index = first;
    while (index < end && index < capacity_blocks(tree_.height)) {
      TARNFS_ASSIGN(const std::uint64_t beyond_hole, skip_hole(index, first, end));
      if (beyond_hole != index) {
        index = beyond_hole;
        continue;
      }
      TARNFS_TRY(environment_.allocator.release(child_of(1, index)));
      set_child_of(1, index, BlockPointer{});
      --tree_.block_count;
      ++index;
    }
    return {};
  }

  Result<TreeRoot> finish(std::uint8_t height_min) {
    TARNFS_TRY(close_below(tree_.height + 1U));
    const bool empty = std::all_of(tree_.pointers.begin(), tree_.pointers.end(),
                                   [](const auto& pointer) { return pointer == BlockPointer{}; });
    if (empty) {
      tree_.height = height_min;
      // What was below a node that could not be read is counted until now.
      tree_.block_count = 0;
      tree_.reserve_blocks = 0;
    }
    while (tree_.height < height_min) TARNFS_TRY(raise());
    TARNFS_TRY(close_below(tree_.height + 1U));
    return tree_;
  }

 private:
  static constexpr std::uint64_t kNoNode = ~std::uint64_t{0};

  struct OpenNode {
    std::uint64_t number = kNoNode;  // index >> (7 * level)
    BlockPointer old;                // where it was read from; a hole for a new one
    PageRef page;
    bool changed = false;
  };

  // Opens the path to data block `index` and gives up the one that was there.
  Status make_place(std::uint64_t index) {
    TARNFS_TRY(grow_to_hold(index));
    TARNFS_TRY(open_path(index));
    const BlockPointer old = child_of(1, index);
    if (!old.is_hole()) return environment_.allocator.release(old);
    ++tree_.block_count;
    if (old.is_reserved()) --tree_.reserve_blocks;
    return {};
  }

  // The pointer to child `index` in the open node at `level`, or in the root above the highest level.
  BlockPointer child_of(unsigned level, std::uint64_t index) const {
    const std::uint64_t child = index >> (kNodeShift * (level - 1));
    if (level > tree_.height) return tree_.pointers[child];
    return pointer_in(nodes_[level].page, child & kNodeMask);
  }

  void set_child_of(unsigned level, std::uint64_t index, const BlockPointer& pointer) {
    const std::uint64_t child = index >> (kNodeShift * (level - 1));
    if (level > tree_.height) {
      tree_.pointers[child] = pointer;
      return;
    }
    OpenNode& node = nodes_[level];
    node.page.make_unique();
    std::memcpy(node.page.mutable_bytes().data() + (child & kNodeMask) * sizeof pointer, &pointer, sizeof pointer);
    node.changed = true;
  }

  Result<BlockPointer> write_block(const PageRef& page, unsigned level) {
    BlockPointer pointer;
    TARNFS_ASSIGN(const Address address, environment_.allocator.allocate());
    pointer.address = address.value;
    pointer.birth_cp = environment_.cp.value;
    pointer.checksum = checksum_of(page.bytes());
    environment_.sink.write(pointer, page, level);
    return pointer;
  }

  // Opens the node at `level` above data block `index`; the nodes above it must be open.
  Status open_node(unsigned level, std::uint64_t index) {
    const std::uint64_t number = index >> (kNodeShift * level);
    OpenNode& node = nodes_[level];
    if (node.number == number) return {};
    TARNFS_TRY(close_below(level + 1));
    OpenNode opened;
    opened.number = number;
    opened.old = child_of(level + 1, index);
    if (opened.old.is_hole()) {
      opened.page = opened.old.is_reserved() ? page_of(reserved_node()) : PageRef::zeroed();
    } else {
      TARNFS_ASSIGN(opened.page, environment_.source.get(opened.old));
    }
    node = std::move(opened);
    return {};
  }

  Status open_path(std::uint64_t index) {
    for (unsigned level = tree_.height; level >= 1; --level) TARNFS_TRY(open_node(level, index));
    return {};
  }

  // What a node is that a reserved hole stands for.
  static const TreeNode& reserved_node() {
    static const TreeNode node = [] {
      TreeNode all;
      all.fill(BlockPointer::reserved_hole());
      return all;
    }();
    return node;
  }

  static std::uint64_t first_below(unsigned level, std::uint64_t index) {
    return (index >> (kNodeShift * level)) << (kNodeShift * level);
  }
  // Whether [first, end) has all data blocks below the pointer to `level` above data block `index`.
  static bool covers(std::uint64_t first, std::uint64_t end, unsigned level, std::uint64_t index) {
    const std::uint64_t node_first = first_below(level, index);
    return first <= node_first && node_first + span_blocks(level) <= end;
  }

  // Reserves the largest hole at `index` that [first, end) covers; returns the first index behind it.
  Result<std::uint64_t> reserve_from(std::uint64_t index, std::uint64_t first, std::uint64_t end) {
    for (unsigned level = tree_.height;; --level) {
      const bool open = level > 0 && nodes_[level].number == index >> (kNodeShift * level);
      const BlockPointer child = open ? BlockPointer{} : child_of(level + 1, index);
      const bool done = level == 0 || (!open && child.is_reserved()) ||
                        (!open && child.is_hole() && covers(first, end, level, index));
      if (!done) {
        TARNFS_TRY(open_node(level, index));
        continue;
      }
      if (child == BlockPointer{}) {
        set_child_of(level + 1, index, BlockPointer::reserved_hole());
        tree_.reserve_blocks += whole_blocks(level);
      }
      return first_below(level, index) + span_blocks(level);
    }
  }

  // A reserved hole becomes a plain one; returns the first index behind it.
  std::uint64_t unreserve(unsigned level, std::uint64_t index) {
    set_child_of(level + 1, index, BlockPointer{});
    tree_.reserve_blocks -= whole_blocks(level);
    return first_below(level, index) + span_blocks(level);
  }

  // Opens the path to `index` as far as it exists. Returns `index` when there is a data block, else the first index
  // behind the hole, which keeps no space any more. A node that cannot be read and that [first, end) covers whole
  // becomes a hole: what is below it stays allocated until fsck frees it, which costs space but stops nobody.
  Result<std::uint64_t> skip_hole(std::uint64_t index, std::uint64_t first, std::uint64_t end) {
    for (unsigned level = tree_.height; level >= 1; --level) {
      const bool open = nodes_[level].number == index >> (kNodeShift * level);
      if (!open) {
        const BlockPointer node = child_of(level + 1, index);
        if (node.is_reserved() && covers(first, end, level, index)) return unreserve(level, index);
        if (node == BlockPointer{}) return first_below(level, index) + span_blocks(level);
        TARNFS_TRY(close_below(level + 1));  // the node that was open: its errors are not this one's
      }
      const Status opened = open_node(level, index);
      if (opened.ok()) continue;
      const bool unreadable = opened.error().code() == ErrorCode::kCorrupt || opened.error().code() == ErrorCode::kIo;
      if (!unreadable || !covers(first, end, level, index)) return opened.error();
      log_warning(opened.error().describe() + "; the blocks below it stay allocated");
      set_child_of(level + 1, index, BlockPointer{});
      --tree_.block_count;
      return first_below(level, index) + span_blocks(level);
    }
    const BlockPointer block = child_of(1, index);
    if (block.is_reserved()) return unreserve(0, index);
    return block.is_hole() ? index + 1 : index;
  }

  // Writes the changed open nodes of the levels under `level`, from the lowest up, and forgets them.
  Status close_below(unsigned level) {
    for (unsigned at = 1; at < level && at <= tree_.height; ++at) TARNFS_TRY(close_node(at));
    return {};
  }

  Status close_node(unsigned level) {
    OpenNode node = std::exchange(nodes_[level], OpenNode{});
    if (!node.changed) return {};
    const std::uint64_t first_index = node.number << (kNodeShift * level);
    BlockPointer pointer;
    if (is_all_reserved(node.page)) {
      pointer = BlockPointer::reserved_hole();
    } else if (!is_all_zero(node.page.bytes())) {
      TARNFS_ASSIGN(pointer, write_block(node.page, level));
    }
    if (node.old.is_reserved()) --tree_.reserve_blocks;
    if (pointer.is_reserved()) ++tree_.reserve_blocks;
    if (!node.old.is_hole()) {
      --tree_.block_count;
      TARNFS_TRY(environment_.allocator.release(node.old));
    }
    if (!pointer.is_hole()) ++tree_.block_count;
    if (node.old == pointer) return {};
    set_child_of(level + 1, first_index, pointer);
    return {};
  }

  static bool is_all_reserved(const PageRef& page) {
    return pointer_in(page, 0).is_reserved() &&
           std::memcmp(page.data(), static_cast<const void*>(reserved_node().data()), kBlockSize) == 0;
  }

  Status grow_to_hold(std::uint64_t index) {
    while (index >= capacity_blocks(tree_.height)) {
      if (tree_.height == kTreeHeightMax) return Error(ErrorCode::kFileTooBig);
      TARNFS_TRY(raise());
    }
    return {};
  }

  // By one level: the pointers move into a node.
  Status raise() {
    TARNFS_TRY(close_below(tree_.height + 1U));
    const auto old_pointers = std::exchange(tree_.pointers, {});
    ++tree_.height;
    OpenNode& top = nodes_[tree_.height];
    top = OpenNode{0, BlockPointer{}, PageRef::zeroed(), false};
    for (std::size_t i = 0; i < kPointersPerInode; ++i) {
      if (old_pointers[i] == BlockPointer{}) continue;
      set_child_of(tree_.height, i * span_blocks(tree_.height - 1U), old_pointers[i]);
    }
    return {};
  }

  TreeRoot tree_;
  const TreeEnvironment& environment_;
  std::array<OpenNode, kTreeHeightMax + 2> nodes_;
};

}  // namespace

Result<TreeRoot> rewrite_tree(const TreeRoot& tree, const RangeSet& removed, const PageMap& pages,
                              const PlacedPages& placed, const SharedPages& shared, const TreeEnvironment& environment,
                              std::uint8_t height_min, const RangeSet& reserved) {
  TreeRewriter rewriter(tree, environment);
  for (const auto& [first, end] : removed.ranges()) TARNFS_TRY(rewriter.remove(first, end));
  for (const auto& [first, end] : reserved.ranges()) TARNFS_TRY(rewriter.reserve(first, end));
  SharedPages::Cursor next_shared(shared);
  const auto share_before = [&](std::uint64_t end) -> Status {
    for (; !next_shared.at_end() && next_shared.index() < end; next_shared.advance()) {
      TARNFS_TRY(rewriter.share(next_shared.index(), next_shared.pointer()));
    }
    return {};
  };
  auto next_placed = placed.begin();
  const Status put = pages.for_each([&](std::uint64_t index, const PageRef& page) -> Status {
    TARNFS_TRY(share_before(index));
    const bool has_block = next_placed != placed.end() && next_placed->first == index;
    return rewriter.put(index, page, has_block ? &(next_placed++)->second : nullptr);
  });
  if (!put.ok()) return put.error();
  TARNFS_ASSERT(next_placed == placed.end());
  TARNFS_TRY(share_before(kEndOfFile));
  return rewriter.finish(height_min);
}

}  // namespace tarnfs
