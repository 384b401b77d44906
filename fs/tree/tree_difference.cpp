#include "fs/tree/tree_difference.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace tarnfs {
namespace {

// What one of the trees has at a place. A tree that is lower than the other one stands whole below the first places of
// the levels that it does not have.
struct Side {
  BlockPointer pointer;
  bool is_whole_tree = false;
};

struct Place {
  Side old_side;
  Side new_side;
  unsigned level = 0;
  std::uint64_t index = 0;
};

Side top_of(const TreeRoot& tree, unsigned level, std::size_t slot) {
  if (tree.height == level) return {tree.pointers[slot], false};
  return {{}, slot == 0};
}

// The children of one side of a place.
class Children {
 public:
  static Result<Children> of(const Side& side, const TreeRoot& tree, unsigned level, BlockSource& source) {
    Children children(side.is_whole_tree ? &tree : nullptr, level);
    if (!side.is_whole_tree && !side.pointer.is_hole()) {
      TARNFS_ASSIGN(children.node_, source.get(side.pointer));
    }
    return children;
  }

  Side at(std::size_t slot) const {
    if (tree_ != nullptr) {
      if (tree_->height + 1U < level_) return {{}, slot == 0};
      return {slot < kPointersPerInode ? tree_->pointers[slot] : BlockPointer{}, false};
    }
    Side child;
    if (node_) {
      std::memcpy(static_cast<void*>(&child.pointer), node_.data() + slot * sizeof child.pointer, sizeof child.pointer);
    }
    return child;
  }

 private:
  Children(const TreeRoot* tree, unsigned level) : tree_(tree), level_(level) {}

  const TreeRoot* tree_;
  unsigned level_;
  PageRef node_;  // empty: holes
};

}  // namespace

std::uint64_t blocks_below(unsigned level) {
  return std::uint64_t{1} << (kNodeShift * level);
}

Status visit_differences(const TreeRoot& old_tree, const TreeRoot& new_tree, BlockSource& source,
                         const std::function<Result<bool>(const TreeDifference&)>& visit) {
  const unsigned height = std::max(old_tree.height, new_tree.height);
  if (height > kTreeHeightMax) return Error(ErrorCode::kCorrupt, "an inode's tree is too high");
  std::vector<Place> pending;
  for (std::size_t slot = kPointersPerInode; slot-- > 0;) {
    pending.push_back(
        {top_of(old_tree, height, slot), top_of(new_tree, height, slot), height, slot * blocks_below(height)});
  }
  while (!pending.empty()) {
    const Place place = pending.back();
    pending.pop_back();
    if (!place.old_side.is_whole_tree && !place.new_side.is_whole_tree) {
      if (place.old_side.pointer == place.new_side.pointer) continue;
      TARNFS_ASSIGN(const bool goes_below,
                    visit({place.old_side.pointer, place.new_side.pointer, place.level, place.index}));
      if (!goes_below || place.level == 0) continue;
    }
    TARNFS_ASSIGN(const Children old_children, Children::of(place.old_side, old_tree, place.level, source));
    TARNFS_ASSIGN(const Children new_children, Children::of(place.new_side, new_tree, place.level, source));
    const std::uint64_t step = blocks_below(place.level - 1);
    for (std::size_t slot = kPointersPerNode; slot-- > 0;) {
      const Place child{old_children.at(slot), new_children.at(slot), place.level - 1, place.index + slot * step};
      const bool whole = child.old_side.is_whole_tree || child.new_side.is_whole_tree;
      if (whole || child.old_side.pointer != child.new_side.pointer) pending.push_back(child);
    }
  }
  return {};
}

}  // namespace tarnfs
