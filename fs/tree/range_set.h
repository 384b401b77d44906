// A set of half-open ranges of page indexes: what a generation has cut out of a file, or kept space for, or not logged.
//
// Purpose: each inode in memory has several, and nearly all of these have no range or one: that stands in the set
// itself, so that it takes 24 bytes and no allocation. A set that has had two keeps its ranges in a tree.
//
// Invariants:
//   1. The ranges are not empty, disjoint, and do not touch.
//   2. With `many_` the set has the ranges in there, at least one, and `only_` is empty.
//
// Thread safety: none of its own; the owner's lock guards it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <utility>

namespace tarnfs {

inline constexpr std::uint64_t kEndOfFile = std::numeric_limits<std::uint64_t>::max();

class RangeSet {
 private:
  using Ranges = std::map<std::uint64_t, std::uint64_t>;  // first -> end

 public:
  using Range = std::pair<std::uint64_t, std::uint64_t>;  // first and end

  RangeSet() = default;
  ~RangeSet() = default;
  RangeSet(const RangeSet& other)
      : only_(other.only_), many_(other.many_ == nullptr ? nullptr : std::make_unique<Ranges>(*other.many_)) {}
  RangeSet(RangeSet&& other) noexcept : only_(std::exchange(other.only_, Range())), many_(std::move(other.many_)) {}
  RangeSet& operator=(const RangeSet& other) { return *this = RangeSet(other); }
  RangeSet& operator=(RangeSet&& other) noexcept {
    only_ = std::exchange(other.only_, Range());
    many_ = std::exchange(other.many_, nullptr);
    return *this;
  }

  bool empty() const { return many_ == nullptr && only_.first == only_.second; }

  void add(std::uint64_t first, std::uint64_t end) {
    if (first >= end) return;
    if (many_ != nullptr) return add_to_many(first, end);
    if (empty()) {
      only_ = {first, end};
    } else if (first <= only_.second && end >= only_.first) {
      only_ = {std::min(first, only_.first), std::max(end, only_.second)};
    } else {
      move_to_many();
      many_->emplace(first, end);
    }
  }

  void remove(std::uint64_t first, std::uint64_t end) {
    if (first >= end) return;
    if (many_ != nullptr) return remove_from_many(first, end);
    if (first >= only_.second || end <= only_.first) return;
    if (first > only_.first && end < only_.second) {
      move_to_many();
      return remove_from_many(first, end);
    }
    if (first > only_.first) {
      only_.second = first;
    } else if (end < only_.second) {
      only_.first = end;
    } else {
      only_ = Range();
    }
  }

  // How many indexes are in the set.
  std::uint64_t count() const {
    std::uint64_t count = 0;
    for (const auto& [first, end] : ranges()) count += end - first;
    return count;
  }

  bool contains(std::uint64_t index) const { return end_around(index) > index; }

  // The smallest index at or above `index` that is in no range.
  std::uint64_t next_outside(std::uint64_t index) const { return std::max(index, end_around(index)); }

  // The smallest index at or above `index` that is in some range, or kEndOfFile.
  std::uint64_t next_inside(std::uint64_t index) const {
    if (contains(index)) return index;
    if (many_ == nullptr) return only_.first > index ? only_.first : kEndOfFile;
    const auto range = many_->upper_bound(index);
    return range == many_->end() ? kEndOfFile : range->first;
  }

  // Behind the last range; 0 when there is none.
  std::uint64_t end() const { return last().second; }

  // Where the range begins that reaches to the end of the file; kEndOfFile when none does.
  std::uint64_t tail_first() const { return end() == kEndOfFile ? last().first : kEndOfFile; }

  class Iterator {
   public:
    using iterator_category = std::forward_iterator_tag;
    using value_type = Range;
    using difference_type = std::ptrdiff_t;
    using pointer = const Range*;
    using reference = Range;

    Iterator() = default;
    explicit Iterator(const Range* only) : only_(only) {}
    explicit Iterator(Ranges::const_iterator range) : range_(range) {}
    Range operator*() const { return only_ != nullptr ? *only_ : Range(*range_); }
    Iterator& operator++() {
      if (only_ != nullptr) {
        ++only_;
      } else {
        ++range_;
      }
      return *this;
    }
    Iterator operator++(int) {
      Iterator before = *this;
      ++*this;
      return before;
    }
    friend bool operator==(const Iterator& a, const Iterator& b) { return a.only_ == b.only_ && a.range_ == b.range_; }

   private:
    const Range* only_ = nullptr;
    Ranges::const_iterator range_;
  };

  // Ascending, disjoint and not touching. Like an iterator into the set: ends with its next change.
  class View {
   public:
    explicit View(const RangeSet& set) : set_(set) {}
    Iterator begin() const { return set_.many_ != nullptr ? Iterator(set_.many_->cbegin()) : Iterator(&set_.only_); }
    Iterator end() const {
      return set_.many_ != nullptr ? Iterator(set_.many_->cend()) : Iterator(&set_.only_ + (set_.empty() ? 0 : 1));
    }
    std::size_t size() const { return set_.many_ != nullptr ? set_.many_->size() : (set_.empty() ? 0 : 1); }

   private:
    const RangeSet& set_;
  };
  View ranges() const { return View(*this); }

 private:
  void move_to_many() {
    many_ = std::make_unique<Ranges>();
    many_->insert(std::exchange(only_, Range()));
  }

  void add_to_many(std::uint64_t first, std::uint64_t end) {
    auto range = many_->upper_bound(first);
    if (range == many_->end() && std::prev(range)->second >= first) {
      // The usual case: the last range grows.
      std::prev(range)->second = std::max(std::prev(range)->second, end);
      return;
    }
    if (range != many_->begin() && std::prev(range)->second >= first) {
      --range;
      first = range->first;
    }
    while (range != many_->end() && range->first <= end) {
      end = std::max(end, range->second);
      range = many_->erase(range);
    }
    many_->emplace(first, end);
  }

  void remove_from_many(std::uint64_t first, std::uint64_t end) {
    auto range = many_->upper_bound(first);
    if (range != many_->begin()) --range;
    while (range != many_->end() && range->first < end) {
      const auto [range_first, range_end] = *range;
      if (range_end <= first) {
        ++range;
        continue;
      }
      range = many_->erase(range);
      if (range_first < first) many_->emplace(range_first, first);
      if (range_end > end) range = many_->emplace(end, range_end).first;
    }
    if (many_->empty()) many_ = nullptr;
  }

  // The end of the last range that begins at or before `index`, or 0.
  std::uint64_t end_around(std::uint64_t index) const {
    if (many_ == nullptr) return only_.first <= index ? only_.second : 0;
    const auto range = many_->upper_bound(index);
    return range == many_->begin() ? 0 : std::prev(range)->second;
  }

  Range last() const { return many_ == nullptr ? only_ : Range(*many_->rbegin()); }

  Range only_;
  std::unique_ptr<Ranges> many_;
};

}  // namespace tarnfs
