// The checker on blocks, trees, inodes, the free map and the root: a whole volume is clean, and every planted damage is
// found as exactly what it is.
#include <doctest/doctest.h>

#include "fs/check/checker.h"
#include "fs/storage/format_volume.h"
#include "tests/support/check_volume_builder.h"

using namespace tarnfs;
using tarnfs::testing::CheckVolumeBuilder;
using tarnfs::testing::kSampleBlocks;
using tarnfs::testing::kSampleCp;
using tarnfs::testing::MemoryBlockDevice;

namespace {

CheckReport check(BlockDevice& device) {
  auto report = check_volume(device, {});
  REQUIRE(report.ok());
  return *std::move(report);
}

// The kinds of all problems, separated by spaces, warnings in parentheses.
std::string found(BlockDevice& device) {
  std::string kinds;
  const CheckReport report = check(device);
  for (const Problem& problem : report.problems) {
    INFO(problem.text);
    CHECK(!problem.text.empty());
    if (!kinds.empty()) kinds += ' ';
    const std::string kind(name_of(problem.kind));
    kinds += problem.severity == Severity::kError ? kind : '(' + kind + ')';
  }
  CHECK(report.clean() == (report.error_count == 0));
  return kinds;
}

struct Sample : CheckVolumeBuilder {
  Sample() { add_sample(); }
  // What the checker finds in the volume when one inode's record was changed after its tree was written.
  std::string found_with_record(std::uint64_t wanted, const std::function<void(InodeRecord&)>& change) {
    on_record = [=](std::uint64_t number, InodeRecord& record) {
      if (number == wanted) change(record);
    };
    return found(build());
  }
};

}  // namespace

TEST_CASE("a whole volume is clean, and everything in it is counted") {
  Sample sample;
  const CheckReport report = check(sample.build());
  for (const Problem& problem : report.problems) MESSAGE(problem.text);
  CHECK(report.clean());
  CHECK(report.problems.empty());
  CHECK(report.counters.inodes == 413);
  CHECK(report.counters.directories == 4);
  CHECK(report.counters.symlinks == 2);
  CHECK(report.counters.special_files == 2);
  CHECK(report.counters.attribute_inodes == 1);
  CHECK(report.counters.orphans == 1);
  CHECK(report.counters.entries == 410);
  CHECK(report.counters.reachable_blocks == sample.root().used_blocks);
}

TEST_CASE("a volume that was just made is clean") {
  for (const std::uint64_t blocks : {kVolumeBlocksMin, std::uint64_t{200000}, std::uint64_t{1} << 32}) {
    MemoryBlockDevice device(blocks);
    REQUIRE(format_volume(device, {}, system_clock()).ok());
    CHECK(found(device) == "");
  }
}

TEST_CASE("what is no volume, or a newer one, is an error and no report") {
  MemoryBlockDevice empty(kSampleBlocks);
  CHECK(check_volume(empty, {}).error().code() == ErrorCode::kInvalid);
  Superblock newer;
  newer.format_version = kFormatVersion + 1;
  newer.size_blocks = kSampleBlocks;
  seal(newer);
  REQUIRE(write_superblock(empty, newer).ok());
  CHECK(check_volume(empty, {}).error().code() == ErrorCode::kIncompatible);
}

TEST_CASE("damaged copies of the superblock and damaged root slots are warnings as long as a good one is left") {
  Sample sample;
  MemoryBlockDevice& device = sample.build();
  device.damage(Address{0});
  CHECK(found(device) == "(superblock)");
  device.damage(Address{kSampleBlocks - 1});
  CHECK(check_volume(device, {}).error().code() == ErrorCode::kCorrupt);
  Sample other;
  MemoryBlockDevice& ring = other.build();
  const PageRef garbage = CheckVolumeBuilder::page_filled_with(1);
  REQUIRE(ring.write(root_slot_of(Cp{8}, kSampleBlocks), std::span(&garbage, 1)).ok());
  CHECK(found(ring) == "(root_ring)");
  ring.damage(root_slot_of(kSampleCp, kSampleBlocks));
  CHECK(check_volume(ring, {}).error().code() == ErrorCode::kCorrupt);
}

TEST_CASE("a damaged block is one finding, wherever it is") {
  Sample sample;
  MemoryBlockDevice& device = sample.build();
  const RootBlock& root = sample.root();
  std::vector<Address> places = {
      sample.address_of(16, 1), sample.address_of(17, 70000), sample.address_of(21, 0),
      sample.address_of(24, 0), sample.address_of(2, 0),      sample.address_of(1, 0),
      sample.address_of(18, 0), sample.address_of(32, 1),     sample.address_of(0, 0),
      sample.address_of(0, 1),  sample.address_of(0, 7),      Address{root.free_map.pointers[0].address}};
  for (const Address place : places) {
    const auto copy = device.clone();
    copy->damage(place);
    INFO("block ", place.value);
    const CheckReport report = check(*copy);
    std::string texts;
    for (const Problem& problem : report.problems) texts += problem.text + '\n';
    INFO(texts);
    REQUIRE(report.problems.size() == 1);
    CHECK(report.problems[0].kind == ProblemKind::kChecksum);
    CHECK(report.problems[0].address == place);
  }
}

TEST_CASE("a damaged node is one finding, also when it is the inode file's") {
  Sample sample;
  BlockPointer node;
  sample.on_record = [&](std::uint64_t number, InodeRecord& record) {
    if (number == 17) node = record.pointers[0];
  };
  MemoryBlockDevice& device = sample.build();
  REQUIRE(sample.root().inode_file.height == 1);
  for (const BlockPointer& pointer : {node, sample.root().inode_file.pointers[0]}) {
    const auto copy = device.clone();
    copy->damage(Address{pointer.address});
    CHECK(found(*copy) == "checksum");
  }
}

TEST_CASE("a device that fails at any moment gives findings and ends") {
  std::uint64_t call = 0;
  for (bool clean = false; !clean; ++call) {
    Sample sample;
    MemoryBlockDevice& device = sample.build();
    device.fail_from_call(call);
    const auto report = check_volume(device, {});
    CHECK((report.ok() || call < 70));
    if (!report.ok()) continue;
    clean = report->clean();
    // The superblocks and the ring come first.
    if (!clean && call >= 70) CHECK(report->problems.back().kind == ProblemKind::kUnreadable);
  }
  CHECK(call > 70);
}

TEST_CASE("a block that is used twice") {
  BlockPointer other;
  Sample sample;
  sample.on_record = [&](std::uint64_t number, InodeRecord& record) {
    if (number == 16) other = record.pointers[1];
    if (number == 100) {
      record.pointers[0] = other;
      record.block_count = 1;
    }
  };
  CHECK(found(sample.build()) == "used_twice");
}

TEST_CASE("impossible pointers, births, counts and heights") {
  CHECK(Sample().found_with_record(16, [](InodeRecord& r) { r.block_count = 7; }) == "block_count");
  CHECK(Sample().found_with_record(16, [](InodeRecord& r) { r.pointers[0].address = 3; }) == "pointer leaked");
  CHECK(Sample().found_with_record(16, [](InodeRecord& r) { r.pointers[0].address = kSampleBlocks - 1; }) ==
        "pointer leaked");
  CHECK(Sample().found_with_record(16, [](InodeRecord& r) { r.pointers[0].flags = 1; }) == "pointer leaked");
  CHECK(Sample().found_with_record(16, [](InodeRecord& r) { r.pointers[0].birth_cp = kSampleCp.value + 1; }) ==
        "pointer leaked");
  CHECK(Sample().found_with_record(17, [](InodeRecord& r) { r.height = kTreeHeightMax + 1; }) == "tree_shape");
}

TEST_CASE("a pointer younger than the node that it stands in") {
  Sample sample;
  sample.on_record = [](std::uint64_t number, InodeRecord& record) {
    if (number == 17) record.pointers[0].birth_cp = kSampleCp.value - 1;
  };
  // Every pointer of the node above three data blocks says kSampleCp: the nodes below the pointer that was changed.
  const std::string kinds = found(sample.build());
  CHECK(kinds.starts_with("birth"));
  CHECK(kinds.find_first_not_of("birth ") == std::string::npos);
}

TEST_CASE("a node without pointers, and blocks beyond the end of a directory") {
  Sample empty_node;
  empty_node.on_record = [&](std::uint64_t number, InodeRecord& record) {
    if (number != 100) return;
    record.pointers[1] = empty_node.write(PageRef::zeroed());
    record.height = 1;
    record.block_count = 1;
  };
  CHECK(found(empty_node.build()) == "tree_shape");
  Sample long_symlink;
  long_symlink.inodes.at(21).pages[1] = CheckVolumeBuilder::page_filled_with('y');
  CHECK(found(long_symlink.build()) == "tree_shape");
}

TEST_CASE("a tree in which every node points to one block again and again ends") {
  Sample sample;
  sample.on_record = [&](std::uint64_t number, InodeRecord& record) {
    if (number != 100) return;
    BlockPointer pointer = sample.write(CheckVolumeBuilder::page_filled_with(1));
    for (unsigned level = 0; level < kTreeHeightMax; ++level) {
      TreeNode node;
      node.fill(pointer);
      pointer = sample.write(page_of(node));
    }
    record.pointers.fill(pointer);
    record.height = kTreeHeightMax;
  };
  const CheckReport report = check(sample.build());
  CHECK(report.error_count == 127 * 7 + 3);
  for (const Problem& problem : report.problems) CHECK(problem.kind == ProblemKind::kUsedTwice);
}

TEST_CASE("the free map must agree both ways, and with the root's count") {
  Sample leaked;
  leaked.on_free_map = [](std::span<std::byte> bits) { bits[3000 / 8] |= std::byte{3}; };
  leaked.on_root = [](RootBlock& root) { root.used_blocks += 2; };
  CHECK(found(leaked.build()) == "leaked");

  Sample freed;
  freed.on_free_map = [](std::span<std::byte> bits) { bits[20 / 8] &= ~(std::byte{1} << 20 % 8); };
  freed.on_root = [](RootBlock& root) { root.used_blocks -= 1; };
  CHECK(found(freed.build()) == "marked_free");

  Sample fixed;
  fixed.on_free_map = [](std::span<std::byte> bits) { bits[0] |= std::byte{1}; };
  fixed.on_root = [](RootBlock& root) { root.used_blocks += 1; };
  CHECK(found(fixed.build()) == "free_map");

  Sample beyond;
  beyond.on_free_map = [](std::span<std::byte> bits) { bits[kBlockSize - 1] |= std::byte{128}; };
  beyond.on_root = [](RootBlock& root) { root.used_blocks += 1; };
  CHECK(found(beyond.build()) == "free_map");

  Sample count;
  count.on_root = [](RootBlock& root) { root.used_blocks += 1; };
  CHECK(found(count.build()) == "used_blocks");

  Sample hole;
  hole.on_root = [](RootBlock& root) { root.free_map = InodeRecord{.mode = S_IFREG | 0600}; };
  // Everything in use is free in it, as one run, but for the block that the map itself had.
  CHECK(found(hole.build()) == "marked_free used_blocks");
}

TEST_CASE("fields of the root block") {
  const auto found_with = [](const std::function<void(RootBlock&)>& change) {
    Sample sample;
    sample.on_root = change;
    return found(sample.build());
  };
  CHECK(found_with([](RootBlock& root) { root.next_inode = 499; }) == "next_inode");
  CHECK(found_with([](RootBlock& root) { root.inode_count += 1; }) == "inode_count");
  CHECK(found_with([](RootBlock& root) { root.protected_inodes += 1; }) == "inode_count");
  CHECK(found_with([](RootBlock& root) { root.inode_file.block_count += 1; }) == "block_count");
  CHECK(found_with([](RootBlock& root) { root.inode_file.number = 4; }) == "root");
  CHECK(found_with([](RootBlock& root) {
          root.history_count = 1;
          root.history[0].last_cp = root.cp;
        }) == "root");
}

TEST_CASE("fields of inodes") {
  CHECK(Sample().found_with_record(16, [](InodeRecord& r) { r.number = 15; }) == "inode_number");
  CHECK(Sample().found_with_record(100, [](InodeRecord& r) { r.mode = 0; }) == "entry_target");
  CHECK(Sample().found_with_record(100, [](InodeRecord& r) { r.mode |= 1U << 20; }) == "inode");
  CHECK(Sample().found_with_record(100, [](InodeRecord& r) { r.device = 1; }) == "inode");
  CHECK(Sample().found_with_record(100, [](InodeRecord& r) { r.entry_count = 1; }) == "inode");
  CHECK(Sample().found_with_record(100, [](InodeRecord& r) { r.mtime_nanoseconds = 1000000000; }) == "inode");
  CHECK(Sample().found_with_record(100, [](InodeRecord& r) { r.layout = 2; }) == "inode");
  CHECK(Sample().found_with_record(100, [](InodeRecord& r) { r.flags = 1; }) == "(inode)");
  CHECK(Sample().found_with_record(100, [](InodeRecord& r) { r.flags = 0x10; }) == "inode_count");
  CHECK(Sample().found_with_record(100, [](InodeRecord& r) { r.flags = 0x20; }) == "inode_count");
  CHECK(Sample().found_with_record(20, [](InodeRecord& r) { r.size_bytes = 129; }) == "inode");
  CHECK(Sample().found_with_record(22, [](InodeRecord& r) { r.size_bytes = 1; }) == "inode");
  Sample empty_block;
  empty_block.add(5000, 0, 0);
  CHECK(found(empty_block.build()) == "tree_shape");
  Sample zero;
  zero.add(0, S_IFREG | 0600, 1);
  CHECK(found(zero.build()).starts_with("inode_number"));
}
