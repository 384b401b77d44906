// Damaged blocks of one file's tree and of the inode file: whoever needs them hears of it, everybody else goes on.
#include <doctest/doctest.h>

#include <cstring>
#include <string>

#include "common/format.h"
#include "fs/tree/block_tree.h"
#include "tests/support/test_volume.h"

using namespace tarnfs;
using tarnfs::testing::content_of;
using tarnfs::testing::TestVolume;

namespace {

constexpr std::uint64_t kSourcePages = 4096;
constexpr std::uint64_t kManyCopies = 17;  // of the source: more pages than are deleted at once

class DeviceBlocks final : public BlockSource {
 public:
  explicit DeviceBlocks(BlockDevice& device) : device_(device) {}
  Result<PageRef> get(const BlockPointer& pointer) override { return read_block(device_, pointer); }

 private:
  BlockDevice& device_;
};

// As the newest root has it.
InodeRecord record_of(TestVolume& test, InodeNumber number) {
  DeviceBlocks blocks(*test.device);
  const TreeRoot inode_file = tree_of(test.volume->newest_root().inode_file);
  const BlockPointer pointer = find_pointer(inode_file, number.value / kInodesPerBlock, blocks).value();
  InodeRecord record;
  std::memcpy(static_cast<void*>(&record), blocks.get(pointer)->data() + number.value % kInodesPerBlock * sizeof record,
              sizeof record);
  REQUIRE(record.number == number.value);
  return record;
}

// A file with `kManyCopies` times the source's blocks from `first_page` on, in the newest root.
InodeNumber make_large(TestVolume& test, std::uint64_t first_page) {
  const InodeNumber source = test.make(kRootDirectory, "source");
  const std::string chunk(256 * kBlockSize, 's');
  for (std::uint64_t done = 0; done < kSourcePages * kBlockSize; done += chunk.size()) {
    REQUIRE(test.write(source, done, chunk).ok());
  }
  REQUIRE(test.volume->consistency_point().ok());
  const InodeNumber large = test.make(kRootDirectory, "large");
  for (std::uint64_t i = 0; i < kManyCopies; ++i) {
    const std::uint64_t to = (first_page + i * kSourcePages) * kBlockSize;
    const std::uint64_t length = kSourcePages * kBlockSize;
    REQUIRE(test.volume->copy_range(source, 0, large, to, length).value() == length);
  }
  REQUIRE(test.volume->consistency_point().ok());
  REQUIRE(test.volume->attributes(large)->block_count > kManyCopies * kSourcePages);
  return large;
}

bool is_gone(TestVolume& test, InodeNumber number) {
  const auto attributes = test.volume->attributes(number);
  return !attributes.ok() && attributes.error().code() == ErrorCode::kStale;
}

// That orphans are deleted takes a few.
void take_consistency_points(TestVolume& test) {
  for (int i = 0; i < 4; ++i) REQUIRE(test.volume->consistency_point().ok());
}

}  // namespace

// What lay below the damaged node stayed counted, so that the file never became small enough to be deleted, and one
// consistency point followed the other to make it smaller.
TEST_CASE("a file whose blocks all lie below a damaged node is deleted, and then there is peace") {
  TestVolume test;
  constexpr std::uint64_t kFirst = std::uint64_t{1} << 21;  // below the second pointer of a tree of height 3
  const InodeNumber large = make_large(test, kFirst);
  test.reopen();
  const InodeRecord record = record_of(test, large);
  REQUIRE(record.height == 3);
  test.device->damage(Address{record.pointers[1].address});
  AttributeChanges empty;
  empty.size_bytes = 0;
  REQUIRE(test.volume->change_attributes(large, empty).ok());
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.volume->attributes(large)->block_count == 0);
  REQUIRE(test.volume->lookup(kRootDirectory, "large").ok());
  REQUIRE(test.volume->unlink(kRootDirectory, "large").ok());
  test.volume->forget(large, 1);
  take_consistency_points(test);
  CHECK(is_gone(test, large));
  const std::uint64_t taken = test.volume->status().cp_count;
  take_consistency_points(test);
  CHECK(test.volume->status().cp_count == taken);
}

// A large file is cut down by parts. The node above the place of the cut could not be read, and the volume stopped,
// with this mount and with each one after it.
TEST_CASE("a large file with a damaged node is deleted, now or after a crash") {
  for (const bool crash : {false, true}) {
    for (const bool above_all : {true, false}) {
      CAPTURE(crash);
      CAPTURE(above_all);
      TestVolume test;
      const InodeNumber large = make_large(test, above_all ? 0 : 3 * (std::uint64_t{1} << 21) - kSourcePages);
      test.reopen();
      const InodeRecord record = record_of(test, large);
      REQUIRE(record.height == 3);
      test.device->damage(Address{record.pointers[above_all ? 0 : 2].address});
      REQUIRE(test.volume->lookup(kRootDirectory, "large").ok());
      REQUIRE(test.volume->unlink(kRootDirectory, "large").ok());
      REQUIRE(test.volume->fsync(kRootDirectory, false).ok());
      if (crash) {
        test.crash_and_reopen();
      } else {
        test.volume->forget(large, 1);
      }
      take_consistency_points(test);
      CHECK_FALSE(test.volume->status().stopped);
      test.crash_and_reopen();
      take_consistency_points(test);
      CHECK(is_gone(test, large));
      CHECK(content_of(*test.volume, "source").size() == kSourcePages * kBlockSize);
    }
  }
}
