// Trees whose nodes cannot be read, and a free map that is wrong about their blocks: what is given up is what is
// damaged, and nothing else.
#include <doctest/doctest.h>

#include "tests/support/memory_blocks.h"

using namespace tarnfs;
using tarnfs::testing::MemoryBlocks;
using tarnfs::testing::page_with;
using tarnfs::testing::range;

namespace {

PageMap pages_from(std::uint64_t first, std::uint64_t end) {
  PageMap pages;
  for (std::uint64_t index = first; index < end; ++index) pages.put(index, page_with(index + 1));
  return pages;
}

}  // namespace

// The next node was taken for the unreadable one: it became a hole, and what had changed in this one was lost.
TEST_CASE("a cut does not pass over a node that cannot be given up") {
  MemoryBlocks blocks;
  const TreeRoot tree = rewrite_tree({}, {}, pages_from(0, 384), {}, {}, blocks.environment(Cp{1})).value();
  REQUIRE(tree.height == 1);
  blocks.used.erase(tree.pointers[0].address);
  const auto cut = rewrite_tree(tree, range(100, 256), {}, {}, {}, blocks.environment(Cp{2}));
  REQUIRE_FALSE(cut.ok());
  CHECK(cut.error().code() == ErrorCode::kCorrupt);
}

TEST_CASE("a cut passes over a node that cannot be read, when all below it is cut") {
  MemoryBlocks blocks;
  const TreeRoot tree = rewrite_tree({}, {}, pages_from(0, 384), {}, {}, blocks.environment(Cp{1})).value();
  blocks.unreadable.insert(tree.pointers[1].address);
  const TreeRoot cut = rewrite_tree(tree, range(100, 256), {}, {}, {}, blocks.environment(Cp{2})).value();
  CHECK(cut.pointers[1] == BlockPointer{});
  CHECK_FALSE(find_pointer(cut, 99, blocks)->is_hole());
  CHECK(find_pointer(cut, 100, blocks)->is_hole());
  CHECK_FALSE(find_pointer(cut, 256, blocks)->is_hole());
  CHECK_FALSE(rewrite_tree(tree, range(129, 256), {}, {}, {}, blocks.environment(Cp{2})).ok());
}
