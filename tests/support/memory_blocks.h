// Blocks of trees in memory, given out once each.
//
// Thread safety: none.
// Errors: kCorrupt for a block that is `unreadable` or was never written, and for one that is released twice.
#pragma once

#include <map>
#include <set>
#include <utility>

#include "fs/tree/block_tree.h"

namespace tarnfs::testing {

inline RangeSet range(std::uint64_t first, std::uint64_t end) {
  RangeSet set;
  set.add(first, end);
  return set;
}

inline PageRef page_with(std::uint64_t number) {
  return PageRef::copy_of(std::as_bytes(std::span(&number, 1)));
}

class MemoryBlocks final : public BlockSource, public BlockAllocator, public BlockSink {
 public:
  Result<PageRef> get(const BlockPointer& pointer) override {
    const auto found = blocks_.find(pointer.address);
    if (unreadable.contains(pointer.address) || found == blocks_.end()) return Error(ErrorCode::kCorrupt, "damaged");
    return found->second;
  }
  Result<Address> allocate() override {
    used.insert(next_);
    return Address{next_++};
  }
  Status adopt(Address) override { return Error(ErrorCode::kUnsupported); }
  Status release(const BlockPointer& pointer) override {
    if (used.erase(pointer.address) == 1) return {};
    return Error(ErrorCode::kCorrupt, "released twice");
  }
  void write(const BlockPointer& pointer, PageRef page, unsigned) override {
    blocks_[pointer.address] = std::move(page);
  }
  void announce(const BlockPointer&, PageRef) override {}
  TreeEnvironment environment(Cp cp) { return TreeEnvironment{*this, *this, *this, cp}; }

  std::set<std::uint64_t> used;
  std::set<std::uint64_t> unreadable;

 private:
  std::map<std::uint64_t, PageRef> blocks_;
  std::uint64_t next_ = 1000;
};

}  // namespace tarnfs::testing
