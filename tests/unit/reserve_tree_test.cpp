// Reserved holes in block trees: what a tree says of each page agrees with a model of pages, and its two counts, blocks
// and reserve, together stay the same when pages are put where space is kept.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "tests/support/memory_blocks.h"
#include "tests/support/seed.h"
#include "tests/support/thread_sanitizer.h"

using namespace tarnfs;
using tarnfs::testing::kOneRoundOf;
using tarnfs::testing::MemoryBlocks;
using tarnfs::testing::page_with;
using tarnfs::testing::range;

namespace {

// What a walk over all pointers finds.
struct Counted {
  std::uint64_t blocks = 0;
  std::uint64_t reserve = 0;
};

// A pointer and the level of what it leads to.
using Places = std::vector<std::pair<BlockPointer, unsigned>>;

void count_place(const BlockPointer& pointer, unsigned level, MemoryBlocks& blocks, Counted& counted, Places& below) {
  if (pointer.is_reserved()) counted.reserve += whole_blocks(level);
  if (pointer.is_hole()) return;
  ++counted.blocks;
  if (level == 0) return;
  const PageRef page = blocks.get(pointer).value();
  TreeNode node;
  std::memcpy(static_cast<void*>(&node), page.data(), kBlockSize);
  REQUIRE(std::any_of(node.begin(), node.end(), [](const auto& child) { return child != BlockPointer{}; }));
  REQUIRE_FALSE(std::all_of(node.begin(), node.end(), [](const auto& child) { return child.is_reserved(); }));
  for (const BlockPointer& child : node) below.emplace_back(child, level - 1);
}

void check_counts(const TreeRoot& tree, MemoryBlocks& blocks) {
  Counted counted;
  Places places;
  for (const BlockPointer& pointer : tree.pointers) places.emplace_back(pointer, tree.height);
  while (!places.empty()) {
    const auto [pointer, level] = places.back();
    places.pop_back();
    count_place(pointer, level, blocks, counted, places);
  }
  REQUIRE(counted.blocks == tree.block_count);
  REQUIRE(counted.reserve == tree.reserve_blocks);
  REQUIRE(blocks.used.size() == tree.block_count);
}

enum class Page { kHole, kReserved, kData };

class TreeModel {
 public:
  explicit TreeModel(std::uint64_t seed) : random_(seed) {}

  void step() {
    RangeSet removed;
    RangeSet reserved;
    PageMap pages;
    if (random_() % 3 == 0) {
      const auto [first, end] = some_range();
      const bool to_end = random_() % 8 == 0;
      removed.add(first, to_end ? kEndOfFile : end);
      pages_.erase(pages_.lower_bound(first), to_end ? pages_.end() : pages_.lower_bound(end));
    }
    for (unsigned i = random_() % 3; i > 0; --i) {
      const auto [first, end] = some_range();
      reserved.add(first, end);
      for (std::uint64_t index = first; index < end; ++index) pages_.try_emplace(index, Page::kReserved);
    }
    for (unsigned i = random_() % 20; i > 0; --i) {
      const std::uint64_t index = some_range().first;
      pages.put(index, page_with(++written_));
      pages_[index] = Page::kData;
      content_[index] = written_;
    }
    tree_ = rewrite_tree(tree_, removed, pages, {}, {}, blocks_.environment(Cp{++cp_}), 0, reserved).value();
  }

  void check() {
    check_counts(tree_, blocks_);
    for (unsigned i = 0; i < 300; ++i) check_page(some_range().first);
    for (auto page = pages_.begin(); page != pages_.end();) {
      check_page(page->first);
      for (unsigned skipped = random_() % 20; skipped > 0 && page != pages_.end(); --skipped) ++page;
      if (page != pages_.end()) ++page;
    }
  }

 private:
  std::pair<std::uint64_t, std::uint64_t> some_range() {
    constexpr std::uint64_t kPages = 60000;
    std::uint64_t first = random_() % kPages;
    std::uint64_t count = 1 + random_() % (random_() % 4 == 0 ? 20000 : 200);
    if (random_() % 2 == 0) first &= ~std::uint64_t{127};
    if (random_() % 3 == 0) count = (count | 127) + 1;
    return {first, first + count};
  }
  void check_page(std::uint64_t index) {
    const BlockPointer pointer = find_pointer(tree_, index, blocks_).value();
    const auto found = pages_.find(index);
    const Page expected = found == pages_.end() ? Page::kHole : found->second;
    BlockPointer several[1];
    REQUIRE(find_pointers(tree_, index, several, blocks_).ok());
    REQUIRE(several[0] == pointer);
    REQUIRE(pointer.is_reserved() == (expected == Page::kReserved));
    REQUIRE(pointer.is_hole() == (expected != Page::kData));
    if (expected == Page::kData) {
      REQUIRE(std::memcmp(blocks_.get(pointer)->data(), page_with(content_[index]).data(), kBlockSize) == 0);
    }
  }

  std::mt19937_64 random_;
  MemoryBlocks blocks_;
  TreeRoot tree_;
  std::uint64_t cp_ = 0;
  std::uint64_t written_ = 0;
  std::map<std::uint64_t, Page> pages_;
  std::map<std::uint64_t, std::uint64_t> content_;
};

}  // namespace

TEST_CASE("a large range takes a few pointers, and no block where they stand in the inode") {
  MemoryBlocks blocks;
  constexpr std::uint64_t kPages = std::uint64_t{1} << 28;  // 1 TiB
  TreeRoot tree = rewrite_tree({}, {}, {}, {}, {}, blocks.environment(Cp{1}), 0, range(0, kPages)).value();
  CHECK(tree.block_count == 0);
  CHECK(tree.reserve_blocks == whole_blocks(4));
  CHECK(find_pointer(tree, kPages - 1, blocks)->is_reserved());
  CHECK_FALSE(find_pointer(tree, kPages, blocks)->is_reserved());
  check_counts(tree, blocks);
  tree = rewrite_tree(tree, {}, {}, {}, {}, blocks.environment(Cp{2}), 0, range(kPages, kPages + 1000)).value();
  CHECK(tree.block_count <= 4);
  check_counts(tree, blocks);
  tree = rewrite_tree(tree, range(5, kEndOfFile), {}, {}, {}, blocks.environment(Cp{3})).value();
  CHECK(find_pointer(tree, 4, blocks)->is_reserved());
  CHECK_FALSE(find_pointer(tree, 5, blocks)->is_reserved());
  check_counts(tree, blocks);
  tree = rewrite_tree(tree, range(0, kEndOfFile), {}, {}, {}, blocks.environment(Cp{4})).value();
  CHECK(tree.block_count + tree.reserve_blocks + tree.height == 0);
  CHECK(blocks.used.empty());
}

TEST_CASE("pages that are put where space is kept take it from there, nodes too") {
  MemoryBlocks blocks;
  TreeRoot tree = rewrite_tree({}, {}, {}, {}, {}, blocks.environment(Cp{1}), 0, range(3, 40000)).value();
  const std::uint64_t all = tree.block_count + tree.reserve_blocks;
  std::uint64_t cp = 1;
  for (const std::uint64_t stride : {577, 64, 1}) {
    PageMap pages;
    for (std::uint64_t index = 3; index < 40000; index += stride) pages.put(index, page_with(index));
    tree = rewrite_tree(tree, {}, pages, {}, {}, blocks.environment(Cp{++cp})).value();
    CHECK(tree.block_count + tree.reserve_blocks == all);
    check_counts(tree, blocks);
  }
  CHECK(tree.reserve_blocks == 0);
}

TEST_CASE("pieces that were reserved one by one become one") {
  MemoryBlocks blocks;
  TreeRoot tree;
  for (std::uint64_t first = 0; first < 16384; first += 64) {
    tree = rewrite_tree(tree, {}, {}, {}, {}, blocks.environment(Cp{first + 1}), 0, range(first, first + 64)).value();
  }
  CHECK(tree.block_count == 0);
  CHECK(tree.reserve_blocks == dense_tree_blocks(16384));
  check_counts(tree, blocks);
}

TEST_CASE("random cuts, reservations and pages agree with a model") {
  const std::uint64_t seed = testing::printed_seed();
  for (unsigned round = 0; round < 4; ++round) {
    TreeModel model(seed + round);
    for (unsigned step = 0; step < 60 / kOneRoundOf; ++step) {
      model.step();
      if (step % 4 == 0) model.check();
    }
    model.check();
  }
}
