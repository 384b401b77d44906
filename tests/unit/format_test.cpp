// The fixed structures on disk: what is written is read back, and damage or a newer format is told.
#include "common/format.h"

#include <doctest/doctest.h>

#include <cstring>

#include "tests/support/memory_block_device.h"

using namespace tarnfs;
using tarnfs::testing::MemoryBlockDevice;

namespace {

constexpr std::uint64_t kBlocks = 2048;

Superblock sample_superblock() {
  Superblock superblock;
  superblock.size_blocks = kBlocks;
  superblock.volume.fill(7);
  std::memcpy(superblock.label.data(), "lake", 4);
  seal(superblock);
  return superblock;
}

RootBlock sample_root(std::uint64_t cp) {
  RootBlock root;
  root.volume.fill(7);
  root.cp = cp;
  root.size_blocks = kBlocks;
  seal(root);
  return root;
}

}  // namespace

TEST_CASE("the superblock is read back, from its copy when the front is damaged") {
  MemoryBlockDevice device(kBlocks);
  REQUIRE(write_superblock(device, sample_superblock()).ok());
  CHECK(label_of(read_superblock(device).value()) == "lake");
  device.damage(Address{0});
  CHECK(label_of(read_superblock(device).value()) == "lake");
  device.damage(Address{kBlocks - 1});
  CHECK(!read_superblock(device).ok());
}

TEST_CASE("an image that is no volume, too small, truncated or newer is refused") {
  MemoryBlockDevice empty(kBlocks);
  CHECK(read_superblock(empty).error().code() == ErrorCode::kInvalid);
  MemoryBlockDevice small(10);
  CHECK(read_superblock(small).error().code() == ErrorCode::kInvalid);
  MemoryBlockDevice truncated(kBlocks - 5);
  const PageRef page = page_of(sample_superblock());
  REQUIRE(truncated.write(Address{0}, std::span(&page, 1)).ok());
  CHECK(read_superblock(truncated).error().code() == ErrorCode::kCorrupt);
  MemoryBlockDevice newer(kBlocks);
  Superblock superblock = sample_superblock();
  superblock.format_version = kFormatVersion + 1;
  seal(superblock);
  REQUIRE(write_superblock(newer, superblock).ok());
  CHECK(read_superblock(newer).error().code() == ErrorCode::kIncompatible);
}

TEST_CASE("the newest valid root wins, and a damaged one falls back to the one before") {
  MemoryBlockDevice device(kBlocks);
  const Superblock superblock = sample_superblock();
  for (std::uint64_t cp = 1; cp <= 40; ++cp) REQUIRE(publish_root(device, sample_root(cp)).ok());
  CHECK(read_newest_root(device, superblock)->cp == 40);
  device.damage(root_slot_of(Cp{40}, kBlocks));
  CHECK(read_newest_root(device, superblock)->cp == 39);
}

TEST_CASE("every cp of the ring has a slot of its own, outside the data area") {
  for (std::uint64_t cp = 1; cp <= kRootSlots; ++cp) {
    const Address slot = root_slot_of(Cp{cp}, kBlocks);
    CHECK(!is_data_address(slot, kBlocks));
    CHECK(slot.value != 0);
    CHECK(slot.value < kBlocks - 1);
    for (std::uint64_t other = 1; other < cp; ++other) CHECK(slot != root_slot_of(Cp{other}, kBlocks));
  }
}
