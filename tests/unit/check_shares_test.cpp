// The checker and blocks that several files share: right counts are clean, and every way of being wrong is told.
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <string>

#include "fs/check/checker.h"
#include "tests/support/check_volume_builder.h"

using namespace tarnfs;
using tarnfs::testing::BuilderInode;
using tarnfs::testing::CheckVolumeBuilder;
using tarnfs::testing::kSampleBlocks;
using tarnfs::testing::MemoryBlockDevice;

namespace {

constexpr std::uint64_t kSourceFile = 16;
constexpr std::uint64_t kFirstCopy = 600;

// A volume in which `copies` files refer to the first block of file 16, and the share map says `count`. A page of the
// share map comes before the files, so a first build finds out where their blocks are.
class SharedVolume {
 public:
  std::uint64_t copies = 1;
  std::uint16_t count = 1;
  std::function<void(InodeRecord& copy)> change_copy;
  std::function<void(BuilderInode& map)> change_map;
  std::uint32_t copy_flags = 0;

  CheckReport check() {
    CheckVolumeBuilder first;
    prepare(first, 0);
    first.build();
    shared_ = first.address_of(kSourceFile, 0);
    CheckVolumeBuilder second;
    prepare(second, count);
    BlockPointer pointer;
    second.on_record = [&](std::uint64_t number, InodeRecord& record) {
      if (number == kSourceFile) pointer = record.pointers[0];
      if (number < kFirstCopy) return;
      record.pointers[0] = pointer;
      record.block_count = 1;
      record.flags = copy_flags;
      if (change_copy) change_copy(record);
    };
    auto report = check_volume(second.build(), {});
    REQUIRE(report.ok());
    REQUIRE(second.address_of(kSourceFile, 0) == shared_);
    return *std::move(report);
  }
  Address shared() const { return shared_; }

 private:
  void prepare(CheckVolumeBuilder& builder, std::uint16_t counted) {
    builder.add_sample();
    for (std::uint64_t i = 0; i < copies; ++i) {
      builder.add_named(kFirstCopy + i, S_IFREG | 0600, 32, "copy" + std::to_string(i)).record.size_bytes = kBlockSize;
    }
    BuilderInode& map = builder.add(kShareFile.value, S_IFREG | 0600, 1);
    map.record.size_bytes = share_pages_of(kSampleBlocks) * kBlockSize;
    SharePage counts{};
    counts[0] = 0;
    if (shared_.value != 0) counts[shared_.value] = counted;
    REQUIRE(shared_.value < kSharesPerPage);
    map.pages[0] = page_of(counts);
    if (change_map) change_map(map);
  }

  Address shared_;
};

bool has(const CheckReport& report, ProblemKind kind) {
  return std::any_of(report.problems.begin(), report.problems.end(),
                     [&](const Problem& problem) { return problem.kind == kind; });
}

std::string texts(const CheckReport& report) {
  std::string all;
  for (const Problem& problem : report.problems) all += problem.text + "\n";
  return all;
}

}  // namespace

TEST_CASE("a block that three files refer to is clean with a count of two") {
  SharedVolume volume;
  volume.copies = 2;
  volume.count = 2;
  const CheckReport report = volume.check();
  CHECK(texts(report) == "");
  CHECK(report.counters.reachable_blocks == report.root.used_blocks);
}

TEST_CASE("a count that is too high or too low is told, with the block") {
  for (const std::uint16_t count : {1, 3, 700}) {
    SharedVolume volume;
    volume.copies = 2;
    volume.count = count;
    const CheckReport report = volume.check();
    CHECK(report.error_count == 1);
    REQUIRE(has(report, ProblemKind::kShareMap));
    CHECK(report.problems[0].address == volume.shared());
    CHECK(texts(report).find("has 2 references beyond the first, but the share map says " + std::to_string(count)) !=
          std::string::npos);
  }
}

TEST_CASE("a count for a block of which the only reference is known is an error") {
  SharedVolume volume;
  volume.copies = 0;
  const CheckReport report = volume.check();
  CHECK(report.error_count == 1);
  CHECK(has(report, ProblemKind::kShareMap));
}

TEST_CASE("a second reference that is not counted is an error") {
  SharedVolume volume;
  volume.count = 0;
  volume.change_map = [](BuilderInode& map) {
    SharePage other{};
    other[2000] = 1;
    map.pages[0] = page_of(other);
  };
  const CheckReport report = volume.check();
  CHECK(has(report, ProblemKind::kUsedTwice));
  CHECK(has(report, ProblemKind::kShareMap));  // block 2000 has no reference at all
}

TEST_CASE("what is no file's data is not shared, counted or not") {
  SharedVolume volume;
  volume.copy_flags = kInodeFlagAttributes;
  CHECK(has(volume.check(), ProblemKind::kUsedTwice));
}

TEST_CASE("a node is never shared") {
  SharedVolume volume;
  volume.change_copy = [](InodeRecord& copy) {
    copy.height = 1;  // what is a data block of file 16 is a node here
  };
  const CheckReport report = volume.check();
  CHECK(has(report, ProblemKind::kUsedTwice));
}

TEST_CASE("pointers to one block that differ are told") {
  SUBCASE("checksum") {
    SharedVolume volume;
    volume.change_copy = [](InodeRecord& copy) { copy.pointers[0].checksum ^= 1; };
    const CheckReport report = volume.check();
    CHECK(report.error_count == 1);
    CHECK(has(report, ProblemKind::kShareMap));
  }
  SUBCASE("birth") {
    SharedVolume volume;
    volume.change_copy = [](InodeRecord& copy) { copy.pointers[0].birth_cp -= 1; };
    const CheckReport report = volume.check();
    CHECK(report.error_count == 1);
    CHECK(has(report, ProblemKind::kShareMap));
  }
}

TEST_CASE("a share map that cannot be") {
  SharedVolume volume;
  SUBCASE("size") {
    volume.change_map = [](BuilderInode& map) { map.record.size_bytes = 3 * kBlockSize; };
  }
  SUBCASE("mode") {
    volume.change_map = [](BuilderInode& map) { map.record.mode = S_IFREG | 0644; };
  }
  SUBCASE("links") {
    volume.change_map = [](BuilderInode& map) { map.record.link_count = 2; };
  }
  SUBCASE("a page beyond the end") {
    volume.change_map = [](BuilderInode& map) { map.pages[3] = CheckVolumeBuilder::page_filled_with(1); };
  }
  SUBCASE("a page of zeros") {
    volume.change_map = [](BuilderInode& map) { map.pages[1] = PageRef::zeroed(); };
  }
  CHECK(has(volume.check(), ProblemKind::kShareMap));
}

TEST_CASE("where the share map cannot be read, nothing is said about what is shared") {
  CheckVolumeBuilder builder;
  builder.add_sample();
  builder.add_named(kFirstCopy, S_IFREG | 0600, 32, "copy").record.size_bytes = kBlockSize;
  BuilderInode& map = builder.add(kShareFile.value, S_IFREG | 0600, 1);
  map.record.size_bytes = share_pages_of(kSampleBlocks) * kBlockSize;
  map.pages[0] = CheckVolumeBuilder::page_filled_with(1);
  BlockPointer pointer;
  builder.on_record = [&](std::uint64_t number, InodeRecord& record) {
    if (number == kSourceFile) pointer = record.pointers[0];
    if (number != kFirstCopy) return;
    record.pointers[0] = pointer;
    record.block_count = 1;
  };
  MemoryBlockDevice& device = builder.build();
  device.damage(builder.address_of(kShareFile.value, 0));
  const auto report = check_volume(device, {});
  REQUIRE(report.ok());
  CHECK(has(*report, ProblemKind::kChecksum));
  CHECK(report->error_count == 1);
}
