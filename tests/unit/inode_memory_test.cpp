// What the engine keeps for each inode in memory: the inodes themselves, and how often the kernel holds them.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>
#include <vector>

#include "fs/engine/inode_cache.h"
#include "fs/engine/lookup_counts.h"
#include "tests/support/seed.h"

using namespace tarnfs;

namespace {

constexpr std::size_t kInodesMax = 640;

InodePtr inode_with(std::uint64_t number) {
  InodeRecord record;
  record.number = number;
  return std::make_shared<Inode>(record);
}

std::size_t count_in(InodeCache& cache, std::uint64_t end) {
  std::size_t count = 0;
  for (std::uint64_t number = 1; number < end; ++number) count += cache.find(InodeNumber{number}) != nullptr ? 1 : 0;
  return count;
}

}  // namespace

TEST_CASE("new inodes push no others out, and a look at all of them drops those that nobody uses") {
  InodeCache cache(kInodesMax);
  constexpr std::uint64_t kEnd = 10 * kInodesMax;
  std::vector<InodePtr> dirty;
  for (std::uint64_t number = 1; number < kEnd; ++number) {
    const InodePtr inode = cache.insert_new(inode_with(number));
    if (number % 20 == 0) dirty.push_back(inode);
  }
  CHECK(count_in(cache, kEnd) == kEnd - 1);
  // All were asked for just now, which the first look takes note of.
  cache.shrink();
  CHECK(count_in(cache, kEnd) > kEnd / 2);
  constexpr int kLooks = 10;  // what a dropped one makes room for moves, and may be passed over
  for (int look = 0; look < kLooks; ++look) cache.shrink();
  CHECK(count_in(cache, kEnd) <= kInodesMax + 64);
  for (const InodePtr& inode : dirty) CHECK(cache.find(inode->number) == inode);
  CHECK(cache.insert_new(inode_with(20)) == dirty.front());
}

TEST_CASE("inodes that are read push out others") {
  InodeCache cache(kInodesMax);
  for (std::uint64_t number = 1; number < 100 * kInodesMax; ++number) cache.insert(inode_with(number));
  CHECK(count_in(cache, 100 * kInodesMax) <= kInodesMax + 64);
}

TEST_CASE("the kernel's holds are counted for each inode apart from its neighbours") {
  std::mt19937_64 random(tarnfs::testing::printed_seed());
  LookupCounts counts;
  std::map<std::uint64_t, std::uint64_t> model;
  // Neighbours, and numbers far apart.
  const auto any_number = [&] { return random() % 2 == 0 ? random() % 300 : (random() % 50) * 0x1'0000'0001; };
  for (int turn = 0; turn < 30000; ++turn) {
    const std::uint64_t number = any_number();
    if (random() % 2 == 0) {
      counts.add(InodeNumber{number});
      ++model[number];
    } else {
      const std::uint64_t given_back = random() % 4;
      std::uint64_t& left = model[number];
      left -= std::min(left, given_back);
      CHECK(counts.subtract(InodeNumber{number}, given_back) == (left == 0));
    }
    const std::uint64_t other = any_number();
    CHECK(counts.is_zero(InodeNumber{other}) == (model[other] == 0));
  }
  std::vector<std::uint64_t> held;
  for (const InodeNumber number : counts.held()) held.push_back(number.value);
  std::sort(held.begin(), held.end());
  std::vector<std::uint64_t> expected;
  for (const auto& [number, count] : model) {
    if (count != 0) expected.push_back(number);
  }
  CHECK(held == expected);
  for (const std::uint64_t number : expected) CHECK(counts.subtract(InodeNumber{number}, model[number]));
  CHECK(counts.held().empty());
}
