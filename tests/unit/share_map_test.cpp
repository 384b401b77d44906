// Pages that are blocks of others too, the counts of their references, and trees that are rewritten with them.
#include <doctest/doctest.h>

#include <map>
#include <random>
#include <set>

#include "common/checksum.h"
#include "fs/tree/share_map.h"
#include "tests/support/memory_blocks.h"
#include "tests/support/seed.h"

using namespace tarnfs;
using tarnfs::testing::MemoryBlocks;

namespace {

BlockPointer pointer_to(std::uint64_t address) {
  BlockPointer pointer;
  pointer.address = address;
  pointer.birth_cp = 1;
  pointer.checksum = address * 7;
  return pointer;
}

}  // namespace

TEST_CASE("shared pages agree with a map") {
  std::mt19937_64 random(testing::printed_seed());
  SharedPages pages;
  std::map<std::uint64_t, BlockPointer> model;
  for (int step = 0; step < 3000; ++step) {
    const std::uint64_t index = random() % 2000 * (random() % 5 == 0 ? 1000 : 1);
    if (random() % 3 != 0) {
      pages.put(index, pointer_to(100 + random() % 100));
      model[index] = *pages.find(index);
    } else {
      const std::uint64_t end = index + random() % 300;
      pages.erase(index, end);
      model.erase(model.lower_bound(index), model.lower_bound(end));
    }
    REQUIRE(pages.size() == model.size());
    REQUIRE(pages.empty() == model.empty());
    const std::uint64_t from = random() % 2000;
    const auto next = model.lower_bound(from);
    REQUIRE(pages.next(from) == (next == model.end() ? std::nullopt : std::optional(next->first)));
    REQUIRE((pages.find(from) != nullptr) == model.contains(from));
    const auto beside = model.lower_bound(from / kPointersPerNode * kPointersPerNode);
    const bool any = beside != model.end() && beside->first / kPointersPerNode == from / kPointersPerNode;
    REQUIRE(pages.any_beside(from) == any);
  }
  auto expected = model.begin();
  for (SharedPages::Cursor page(pages); !page.at_end(); page.advance(), ++expected) {
    REQUIRE(expected != model.end());
    REQUIRE(page.index() == expected->first);
    REQUIRE(page.pointer() == expected->second);
  }
  CHECK(expected == model.end());
  pages.erase(0, kEndOfFile);
  CHECK(pages.chunk_count() == 0);
}

TEST_CASE("a block goes with its last reference, and the map has no page without a count") {
  MemoryBlocks blocks;
  ShareMap map(blocks);
  CHECK_FALSE(map.in_use());
  const BlockPointer near = pointer_to(5000);
  const BlockPointer far = pointer_to(900000);
  REQUIRE(map.add(near).ok());
  REQUIRE(map.add(near).ok());
  REQUIRE(map.add(far).ok());
  const TreeRoot first = map.write_tree(blocks.environment(Cp{1})).value();
  map.install();
  CHECK_FALSE(map.changed());
  CHECK(first.block_count == blocks.used.size());
  CHECK(find_pointer(first, 0, blocks)->is_hole());
  CHECK_FALSE(find_pointer(first, 5000 / kSharesPerPage, blocks)->is_hole());
  // As after a remount.
  ShareMap again(blocks);
  again.open(first);
  CHECK(again.in_use());
  CHECK(again.drop(near).value());
  CHECK(again.drop(far).value());
  CHECK(again.drop(near).value());
  CHECK_FALSE(again.drop(near).value());
  CHECK_FALSE(again.drop(far).value());
  CHECK_FALSE(again.drop(pointer_to(77)).value());
  const TreeRoot second = again.write_tree(blocks.environment(Cp{2})).value();
  CHECK(second.block_count == 0);
  CHECK(blocks.used.empty());
  CHECK_FALSE(again.in_use());
}

TEST_CASE("a block whose count cannot be read stays allocated") {
  MemoryBlocks blocks;
  ShareMap map(blocks);
  REQUIRE(map.add(pointer_to(5000)).ok());
  const TreeRoot tree = map.write_tree(blocks.environment(Cp{1})).value();
  blocks.unreadable.insert(find_pointer(tree, 5000 / kSharesPerPage, blocks)->address);
  ShareMap again(blocks);
  again.open(tree);
  CHECK(again.drop(pointer_to(5000)).value());
  CHECK_FALSE(again.changed());
  CHECK_FALSE(again.add(pointer_to(5000)).ok());
}

TEST_CASE("no block is claimed more often than can be counted, over two generations") {
  MemoryBlocks blocks;
  ShareMap map(blocks);
  SharePage counts{};
  counts[5] = 40000;
  const SharePages durable{{1, page_of(counts)}};
  std::vector<BlockPointer> pointers(20000, pointer_to(kSharesPerPage + 5));
  pointers[7] = BlockPointer{};
  CHECK(map.claim(6, pointers, durable).empty());
  const std::vector<std::size_t> left_out = map.claim(7, pointers, durable);
  CHECK(left_out.size() == 40000 + 2 * 19999 - kSharesMax);
  CHECK(left_out.front() == 20000 - left_out.size());
  CHECK(map.claim(7, std::span(pointers).first(1), durable).size() == 1);
  map.give_back(7, std::span(pointers).first(1));
  CHECK(map.claim(7, std::span(pointers).first(1), durable).empty());
  CHECK(map.claim(7, std::vector(1, pointer_to(kSharesPerPage + 6)), durable).empty());
  CHECK(map.take_claims_before(8).size() == 1);  // what generation 6 added is durable
  CHECK(map.claim(8, std::vector(1, pointer_to(kSharesPerPage + 5)), durable).empty());
}

TEST_CASE("a tree takes blocks of another one, keeps its own between them, and gives them back") {
  MemoryBlocks blocks;
  ShareMap shares(blocks);
  SharingAllocator sharing(shares, blocks);
  const auto environment = [&](std::uint64_t cp) { return TreeEnvironment{blocks, sharing, blocks, Cp{cp}}; };
  PageMap content;
  for (std::uint64_t i = 0; i < 600; ++i) content.put(i, PageRef::copy_of(std::as_bytes(std::span(&i, 1))));
  const TreeRoot source = rewrite_tree({}, {}, content, {}, {}, environment(1)).value();
  const std::size_t source_blocks = blocks.used.size();
  REQUIRE(source_blocks == dense_tree_blocks(600));

  SharedPages shared;
  PageMap own;
  for (std::uint64_t i = 0; i < 600; ++i) {
    const BlockPointer pointer = find_pointer(source, i, blocks).value();
    if (i % 50 == 13) {
      own.put(i, PageRef::zeroed());
    } else {
      shared.put(i, pointer);
      REQUIRE(shares.add(pointer).ok());
    }
  }
  const TreeRoot copy = rewrite_tree({}, {}, own, {}, shared, environment(2)).value();
  CHECK(copy.block_count == dense_tree_blocks(600));
  CHECK(blocks.used.size() == source_blocks + 12 + (dense_tree_blocks(600) - 600));
  for (std::uint64_t i = 0; i < 600; ++i) {
    const BlockPointer pointer = find_pointer(copy, i, blocks).value();
    REQUIRE((pointer == find_pointer(source, i, blocks).value()) == (i % 50 != 13));
  }
  // The source goes, then the copy.
  RangeSet all;
  all.add(0, kEndOfFile);
  CHECK(rewrite_tree(source, all, {}, {}, {}, environment(3))->block_count == 0);
  CHECK(blocks.used.size() == 600 + (dense_tree_blocks(600) - 600));
  for (std::uint64_t i = 0; i < 600; ++i) REQUIRE(blocks.get(find_pointer(copy, i, blocks).value()).ok());
  CHECK(rewrite_tree(copy, all, {}, {}, {}, environment(4))->block_count == 0);
  CHECK(blocks.used.empty());
  CHECK(shares.write_tree(blocks.environment(Cp{4}))->block_count == 0);
}
