// Pages of a file that are blocks of other files too, by their index: what a generation has copied by reference.
//
// Purpose: a GiB is 262,144 pointers; they are kept as they stand in a tree's nodes, 128 together.
//
// Invariants:
//   1. size() pages are there, each with a pointer that is no hole; no chunk is empty.
//
// Thread safety: none of its own; the owner's lock guards it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>

#include "common/format.h"

namespace tarnfs {

class SharedPages {
 private:
  struct Chunk {
    std::size_t count = 0;  // pointers that are no holes
    std::array<BlockPointer, kPointersPerNode> pointers{};
  };
  using Chunks = std::map<std::uint64_t, Chunk>;

 public:
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  // Each takes about a page of memory.
  std::size_t chunk_count() const { return chunks_.size(); }

  // The pointer at `index`, or null.
  const BlockPointer* find(std::uint64_t index) const {
    const auto found = chunks_.find(index / kPointersPerNode);
    if (found == chunks_.end()) return nullptr;
    const BlockPointer& pointer = found->second.pointers[index % kPointersPerNode];
    return pointer.is_hole() ? nullptr : &pointer;
  }

  void put(std::uint64_t index, const BlockPointer& pointer) {
    TARNFS_ASSERT(!pointer.is_hole());
    Chunk& chunk = chunks_[index / kPointersPerNode];
    BlockPointer& slot = chunk.pointers[index % kPointersPerNode];
    const std::size_t added = slot.is_hole() ? 1 : 0;
    slot = pointer;
    chunk.count += added;
    size_ += added;
  }

  // Removes the pages in [first, end).
  void erase(std::uint64_t first, std::uint64_t end) {
    auto chunk = chunks_.lower_bound(first / kPointersPerNode);
    while (chunk != chunks_.end() && chunk->first * kPointersPerNode < end) {
      for (std::size_t i = 0; i < kPointersPerNode; ++i) {
        const std::uint64_t index = chunk->first * kPointersPerNode + i;
        BlockPointer& slot = chunk->second.pointers[i];
        if (slot.is_hole() || index < first || index >= end) continue;
        slot = BlockPointer();
        --chunk->second.count;
        --size_;
      }
      chunk = chunk->second.count == 0 ? chunks_.erase(chunk) : std::next(chunk);
    }
  }

  // The smallest index at or above `from` that has a page.
  std::optional<std::uint64_t> next(std::uint64_t from) const {
    for (auto chunk = chunks_.lower_bound(from / kPointersPerNode); chunk != chunks_.end(); ++chunk) {
      for (std::size_t i = 0; i < kPointersPerNode; ++i) {
        const std::uint64_t index = chunk->first * kPointersPerNode + i;
        if (index >= from && !chunk->second.pointers[i].is_hole()) return index;
      }
    }
    return std::nullopt;
  }

  // True when some page below the same node of level 1 as `index` is there.
  bool any_beside(std::uint64_t index) const { return chunks_.contains(index / kPointersPerNode); }

  // Goes over all pages in ascending order; the pages must not change meanwhile.
  class Cursor {
   public:
    explicit Cursor(const SharedPages& pages) : chunk_(pages.chunks_.begin()), end_(pages.chunks_.end()) { settle(); }
    bool at_end() const { return chunk_ == end_; }
    std::uint64_t index() const { return chunk_->first * kPointersPerNode + slot_; }
    const BlockPointer& pointer() const { return chunk_->second.pointers[slot_]; }
    void advance() {
      ++slot_;
      settle();
    }

   private:
    void settle() {
      while (chunk_ != end_) {
        while (slot_ < kPointersPerNode && chunk_->second.pointers[slot_].is_hole()) ++slot_;
        if (slot_ < kPointersPerNode) return;
        ++chunk_;
        slot_ = 0;
      }
    }

    Chunks::const_iterator chunk_;
    Chunks::const_iterator end_;
    std::size_t slot_ = 0;
  };

 private:
  Chunks chunks_;
  std::size_t size_ = 0;
};

}  // namespace tarnfs
