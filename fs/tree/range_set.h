// A set of half-open ranges of page indexes: what a generation has cut out of a file.
//
// Thread safety: none of its own; the owner's lock guards it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <limits>
#include <map>

namespace tarnfs {

inline constexpr std::uint64_t kEndOfFile = std::numeric_limits<std::uint64_t>::max();

class RangeSet {
 public:
  bool empty() const { return ranges_.empty(); }

  void add(std::uint64_t first, std::uint64_t end) {
    if (first >= end) return;
    auto range = ranges_.upper_bound(first);
    if (range == ranges_.end() && range != ranges_.begin() && std::prev(range)->second >= first) {
      // The usual case: the last range grows.
      std::prev(range)->second = std::max(std::prev(range)->second, end);
      return;
    }
    if (range != ranges_.begin() && std::prev(range)->second >= first) {
      --range;
      first = range->first;
    }
    while (range != ranges_.end() && range->first <= end) {
      end = std::max(end, range->second);
      range = ranges_.erase(range);
    }
    ranges_.emplace(first, end);
  }

  void remove(std::uint64_t first, std::uint64_t end) {
    if (first >= end) return;
    auto range = ranges_.upper_bound(first);
    if (range != ranges_.begin()) --range;
    while (range != ranges_.end() && range->first < end) {
      const auto [range_first, range_end] = *range;
      if (range_end <= first) {
        ++range;
        continue;
      }
      range = ranges_.erase(range);
      if (range_first < first) ranges_.emplace(range_first, first);
      if (range_end > end) range = ranges_.emplace(end, range_end).first;
    }
  }

  // How many indexes are in the set.
  std::uint64_t count() const {
    std::uint64_t count = 0;
    for (const auto& [first, end] : ranges_) count += end - first;
    return count;
  }

  bool contains(std::uint64_t index) const {
    const auto range = ranges_.upper_bound(index);
    return range != ranges_.begin() && std::prev(range)->second > index;
  }

  // The smallest index at or above `index` that is in no range.
  std::uint64_t next_outside(std::uint64_t index) const {
    const auto range = ranges_.upper_bound(index);
    return range != ranges_.begin() && std::prev(range)->second > index ? std::prev(range)->second : index;
  }

  // The smallest index at or above `index` that is in some range, or kEndOfFile.
  std::uint64_t next_inside(std::uint64_t index) const {
    const auto range = ranges_.upper_bound(index);
    if (range != ranges_.begin() && std::prev(range)->second > index) return index;
    return range == ranges_.end() ? kEndOfFile : range->first;
  }

  // Behind the last range; 0 when there is none.
  std::uint64_t end() const { return ranges_.empty() ? 0 : std::prev(ranges_.end())->second; }

  // Where the range begins that reaches to the end of the file; kEndOfFile when none does.
  std::uint64_t tail_first() const { return end() == kEndOfFile ? std::prev(ranges_.end())->first : kEndOfFile; }

  // first -> end, ascending, disjoint and not touching.
  const std::map<std::uint64_t, std::uint64_t>& ranges() const { return ranges_; }

 private:
  std::map<std::uint64_t, std::uint64_t> ranges_;
};

}  // namespace tarnfs
