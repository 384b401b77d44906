// Pages of a file by their index: what a generation has changed and no block holds yet.
//
// Thread safety: none of its own; the owner's lock guards it.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>

#include "common/page.h"

namespace tarnfs {

class PageMap {
 public:
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  // The page at `index`, or null.
  const PageRef* find(std::uint64_t index) const {
    const auto found = chunks_.find(index / kChunk);
    if (found == chunks_.end()) return nullptr;
    const PageRef& page = found->second[index % kChunk];
    return page ? &page : nullptr;
  }
  PageRef* find(std::uint64_t index) { return const_cast<PageRef*>(std::as_const(*this).find(index)); }

  // Returns true when there was no page at `index` before.
  bool put(std::uint64_t index, PageRef page) {
    PageRef& slot = chunks_[index / kChunk][index % kChunk];
    const bool added = !slot;
    slot = std::move(page);
    size_ += added ? 1 : 0;
    return added;
  }

  // Removes the pages in [first, end) and returns how many there were.
  std::size_t erase(std::uint64_t first, std::uint64_t end) {
    const std::size_t before = size_;
    auto chunk = chunks_.lower_bound(first / kChunk);
    while (chunk != chunks_.end() && chunk->first * kChunk < end) {
      bool any_left = false;
      for (std::uint64_t i = 0; i < kChunk; ++i) {
        const std::uint64_t index = chunk->first * kChunk + i;
        PageRef& slot = chunk->second[i];
        if (slot && index >= first && index < end) {
          slot = PageRef();
          --size_;
        }
        any_left = any_left || slot;
      }
      chunk = any_left ? std::next(chunk) : chunks_.erase(chunk);
    }
    return before - size_;
  }

  // The smallest index at or above `from` that has a page.
  std::optional<std::uint64_t> next(std::uint64_t from) const {
    for (auto chunk = chunks_.lower_bound(from / kChunk); chunk != chunks_.end(); ++chunk) {
      for (std::uint64_t i = 0; i < kChunk; ++i) {
        const std::uint64_t index = chunk->first * kChunk + i;
        if (index >= from && chunk->second[i]) return index;
      }
    }
    return std::nullopt;
  }

  // True when some page of [first, end), both multiples of 128, is there.
  bool any_chunk_in(std::uint64_t first, std::uint64_t end) const {
    const auto chunk = chunks_.lower_bound(first / kChunk);
    return chunk != chunks_.end() && chunk->first * kChunk < end;
  }

  // Calls visit(index, page) in ascending order; stops at the first failing Status, which it returns.
  template <class Visit>
  auto for_each(Visit&& visit) const -> decltype(visit(std::uint64_t{}, std::declval<const PageRef&>())) {
    for (const auto& [number, pages] : chunks_) {
      for (std::uint64_t i = 0; i < kChunk; ++i) {
        if (!pages[i]) continue;
        if (auto status = visit(number * kChunk + i, pages[i]); !status.ok()) return status;
      }
    }
    return {};
  }

 private:
  static constexpr std::uint64_t kChunk = 16;
  std::map<std::uint64_t, std::array<PageRef, kChunk>> chunks_;
  std::size_t size_ = 0;
};

}  // namespace tarnfs
