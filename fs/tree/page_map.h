// Pages of a file by their index: what a generation has changed and no block holds yet.
//
// Thread safety: none of its own; the owner's lock guards it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "common/page.h"

namespace tarnfs {

class PageMap {
 public:
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  // The page at `index`, or null.
  const PageRef* find(std::uint64_t index) const {
    const auto chunk = chunk_from(index / kChunk);
    if (chunk == chunks_.end() || chunk->number != index / kChunk) return nullptr;
    const PageRef& page = (*chunk->pages)[index % kChunk];
    return page ? &page : nullptr;
  }
  PageRef* find(std::uint64_t index) { return const_cast<PageRef*>(std::as_const(*this).find(index)); }

  // Returns true when there was no page at `index` before.
  bool put(std::uint64_t index, PageRef page) {
    auto chunk = chunk_from(index / kChunk);
    if (chunk == chunks_.end() || chunk->number != index / kChunk) {
      chunk = chunks_.insert(chunk, Chunk{index / kChunk, std::make_unique<Pages>()});
    }
    PageRef& slot = (*chunk->pages)[index % kChunk];
    const bool added = !slot;
    slot = std::move(page);
    size_ += added ? 1 : 0;
    return added;
  }

  // Removes the pages in [first, end) and returns how many there were.
  std::size_t erase(std::uint64_t first, std::uint64_t end) {
    if (first >= end) return 0;
    const std::size_t before = size_;
    const auto chunks_begin = chunks_.begin() + (chunk_from(first / kChunk) - chunks_.cbegin());
    const auto chunks_end = chunks_.begin() + (chunk_from((end - 1) / kChunk + 1) - chunks_.cbegin());
    auto kept = chunks_begin;
    for (auto chunk = chunks_begin; chunk != chunks_end; ++chunk) {
      bool any_left = false;
      for (std::uint64_t i = 0; i < kChunk; ++i) {
        const std::uint64_t index = chunk->number * kChunk + i;
        PageRef& slot = (*chunk->pages)[i];
        if (slot && index >= first && index < end) {
          slot = PageRef();
          --size_;
        }
        any_left = any_left || slot;
      }
      if (!any_left) continue;
      if (kept != chunk) *kept = std::move(*chunk);
      ++kept;
    }
    chunks_.erase(kept, chunks_end);
    return before - size_;
  }

  // The smallest index at or above `from` that has a page.
  std::optional<std::uint64_t> next(std::uint64_t from) const {
    for (auto chunk = chunk_from(from / kChunk); chunk != chunks_.end(); ++chunk) {
      for (std::uint64_t i = 0; i < kChunk; ++i) {
        const std::uint64_t index = chunk->number * kChunk + i;
        if (index >= from && (*chunk->pages)[i]) return index;
      }
    }
    return std::nullopt;
  }

  // How many pages [first, end) has.
  std::size_t count(std::uint64_t first, std::uint64_t end) const {
    std::size_t count = 0;
    for (auto chunk = chunk_from(first / kChunk); chunk != chunks_.end() && chunk->number * kChunk < end; ++chunk) {
      for (std::uint64_t i = 0; i < kChunk; ++i) {
        const std::uint64_t index = chunk->number * kChunk + i;
        count += index >= first && index < end && (*chunk->pages)[i] ? 1 : 0;
      }
    }
    return count;
  }

  // True when some page of [first, end), both multiples of 128, is there.
  bool any_chunk_in(std::uint64_t first, std::uint64_t end) const {
    const auto chunk = chunk_from(first / kChunk);
    return chunk != chunks_.end() && chunk->number * kChunk < end;
  }

  // Calls visit(index, page) in ascending order; stops at the first failing Status, which it returns.
  template <class Visit>
  auto for_each(Visit&& visit) const -> decltype(visit(std::uint64_t{}, std::declval<const PageRef&>())) {
    for (const Chunk& chunk : chunks_) {
      for (std::uint64_t i = 0; i < kChunk; ++i) {
        const PageRef& page = (*chunk.pages)[i];
        if (!page) continue;
        if (auto status = visit(chunk.number * kChunk + i, page); !status.ok()) return status;
      }
    }
    return {};
  }

 private:
  static constexpr std::uint64_t kChunk = 16;
  using Pages = std::array<PageRef, kChunk>;
  struct Chunk {
    std::uint64_t number = 0;
    std::unique_ptr<Pages> pages;  // at least one of them is there
  };

  // The first chunk whose number is at least `number`. What is put behind all others is the usual case.
  std::vector<Chunk>::const_iterator chunk_from(std::uint64_t number) const {
    if (chunks_.empty() || chunks_.back().number < number) return chunks_.end();
    return std::lower_bound(chunks_.begin(), chunks_.end(), number,
                            [](const Chunk& chunk, std::uint64_t wanted) { return chunk.number < wanted; });
  }

  // By number. Close together in memory: a large directory's changes have hundreds, and each operation looks for some.
  std::vector<Chunk> chunks_;
  std::size_t size_ = 0;
};

}  // namespace tarnfs
