// Sets of ranges: with one range in the set itself and with many in a tree they must say the same as a plain set.
#include "fs/tree/range_set.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bitset>
#include <random>
#include <utility>
#include <vector>

#include "tests/support/seed.h"

using namespace tarnfs;

namespace {

constexpr std::size_t kIndexes = 64;
// The last index of the plain set stands for all from there on.
constexpr std::uint64_t kTail = kIndexes - 1;
using Plain = std::bitset<kIndexes>;

void set_plain(Plain& plain, std::uint64_t first, std::uint64_t end, bool value) {
  for (std::uint64_t i = first; i < std::min<std::uint64_t>(end, kIndexes); ++i) plain[i] = value;
}

std::vector<RangeSet::Range> ranges_of(const Plain& plain) {
  std::vector<RangeSet::Range> ranges;
  for (std::uint64_t i = 0; i < kIndexes; ++i) {
    if (!plain[i]) continue;
    if (i == 0 || !plain[i - 1]) ranges.emplace_back(i, i);
    ranges.back().second = i == kTail ? kEndOfFile : i + 1;
  }
  return ranges;
}

std::uint64_t next_of(const Plain& plain, std::uint64_t index, bool value) {
  while (index < kIndexes && plain[index] != value) ++index;
  return index < kIndexes ? index : kEndOfFile;
}

void check_same(const RangeSet& set, const Plain& plain) {
  const auto ranges = ranges_of(plain);
  CHECK(std::vector<RangeSet::Range>(set.ranges().begin(), set.ranges().end()) == ranges);
  CHECK(set.ranges().size() == ranges.size());
  CHECK(set.empty() == plain.none());
  CHECK(set.end() == (ranges.empty() ? 0 : ranges.back().second));
  const bool has_tail = plain[kTail];
  CHECK(set.tail_first() == (has_tail ? ranges.back().first : kEndOfFile));
  if (!has_tail) CHECK(set.count() == plain.count());
  for (std::uint64_t i = 0; i < kIndexes; ++i) {
    CHECK(set.contains(i) == plain[i]);
    CHECK(set.next_inside(i) == next_of(plain, i, true));
    CHECK(set.next_outside(i) == next_of(plain, i, false));
  }
}

}  // namespace

TEST_CASE("ranges that come and go are those of a plain set") {
  std::mt19937_64 random(testing::printed_seed());
  for (int round = 0; round < 500; ++round) {
    RangeSet set;
    Plain plain;
    for (int step = 0; step < 20; ++step) {
      const std::uint64_t first = random() % kIndexes;
      const std::uint64_t length = random() % (random() % 4 == 0 ? kIndexes : 4);
      const std::uint64_t end = first + length > kTail ? kEndOfFile : first + length;
      if (random() % 2 == 0) {
        set.add(first, end);
        set_plain(plain, first, end, true);
      } else {
        set.remove(first, end);
        set_plain(plain, first, end, false);
      }
      check_same(set, plain);
    }
  }
}

TEST_CASE("a copy has the ranges and what was moved from has none") {
  for (const bool many : {false, true}) {
    RangeSet set;
    set.add(3, 5);
    if (many) set.add(8, 9);
    RangeSet copy(set);
    set.add(0, 1);
    CHECK_FALSE(copy.contains(0));
    CHECK(copy.contains(4));
    RangeSet moved(std::move(copy));
    CHECK(copy.empty());  // NOLINT(bugprone-use-after-move): that is what it proves
    CHECK(moved.ranges().size() == (many ? 2 : 1));
    copy = moved;
    CHECK(copy.contains(3));
    copy = RangeSet();
    CHECK(copy.empty());
    CHECK(moved.contains(3));
  }
}
