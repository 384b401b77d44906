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

TEST_CASE("a copy of the superblock is found in an image that is longer than the volume") {
  MemoryBlockDevice device(2 * kBlocks);
  REQUIRE(write_superblock(device, sample_superblock()).ok());
  REQUIRE(publish_root(device, sample_root(5)).ok());
  device.damage(Address{0});
  CHECK(label_of(read_superblock(device).value()) == "lake");
}

TEST_CASE("a growth at each of its steps") {
  MemoryBlockDevice device(kBlocks);
  device.give_room(2 * kBlocks);
  const Superblock superblock = sample_superblock();
  const Superblock larger = grown(superblock, 2 * kBlocks);
  REQUIRE(write_superblock(device, superblock).ok());
  for (std::uint64_t cp = 1; cp <= 6; ++cp) REQUIRE(publish_root(device, sample_root(cp)).ok());
  REQUIRE(prepare_grown_end(device, larger).ok());
  CHECK(read_superblock(device)->size_blocks == kBlocks);
  CHECK(read_newest_root(device, superblock)->cp == 6);
  // Whichever copy is found, it leads to the newest root.
  const auto check_front_may_be_lost = [&](std::uint64_t newest_cp) {
    for (const bool wiped : {false, true}) {
      CAPTURE(wiped);
      const auto copy = device.clone();
      const PageRef nothing = PageRef::zeroed();
      copy->damage(Address{0});
      if (wiped) REQUIRE(copy->write(Address{0}, std::span(&nothing, 1)).ok());
      const auto found = read_superblock(*copy);
      REQUIRE(found.ok());
      CHECK(read_newest_root(*copy, *found)->cp == newest_cp);
    }
  };
  check_front_may_be_lost(6);

  // A root at the front is the commit; one at the new end is not seen before the superblock.
  for (const std::uint64_t cp : {7U, 8U}) {
    CAPTURE(cp);
    RootBlock root = sample_root(cp);
    root.size_blocks = 2 * kBlocks;
    seal(root);
    REQUIRE(publish_root(device, root).ok());
    const auto newest = read_newest_root(device, read_superblock(device).value());
    REQUIRE(newest.ok());
    CHECK(newest->cp == 7);
    CHECK(newest->size_blocks == 2 * kBlocks);
    if (cp == 7) check_front_may_be_lost(7);
  }
  REQUIRE(finish_growth(device, larger, kBlocks).ok());
  CHECK(read_superblock(device)->size_blocks == 2 * kBlocks);
  CHECK(read_newest_root(device, larger)->cp == 8);
  check_front_may_be_lost(8);
}

TEST_CASE("a root of a volume that is larger than the image, or smaller than its superblock, is refused") {
  MemoryBlockDevice device(kBlocks);
  REQUIRE(write_superblock(device, sample_superblock()).ok());
  RootBlock root = sample_root(3);
  root.size_blocks = 2 * kBlocks;
  seal(root);
  REQUIRE(publish_root(device, root).ok());
  CHECK(read_newest_root(device, sample_superblock()).error().code() == ErrorCode::kCorrupt);
  MemoryBlockDevice long_device(2 * kBlocks);
  REQUIRE(publish_root(long_device, sample_root(3)).ok());
  CHECK(read_newest_root(long_device, grown(sample_superblock(), 2 * kBlocks)).error().code() == ErrorCode::kCorrupt);
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
