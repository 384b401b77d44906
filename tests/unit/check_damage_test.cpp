// The checker on random damage: it always ends, and with a report. Half of the volumes have checksums that fit the
// damaged bytes, so that the damage reaches everything that reads them.
#include <doctest/doctest.h>

#include <random>

#include "fs/check/checker.h"
#include "tests/support/check_volume_builder.h"

using namespace tarnfs;
using tarnfs::testing::CheckVolumeBuilder;
using tarnfs::testing::kSampleBlocks;
using tarnfs::testing::kSampleCp;
using tarnfs::testing::MemoryBlockDevice;

namespace {

constexpr std::uint64_t kSeed = 20240717;

// Flips, zeroes or sets bytes, more often in the first part of the page, where headers are.
void damage(std::span<std::byte, kBlockSize> page, std::mt19937_64& random) {
  for (std::uint64_t i = 0; i <= random() % 4; ++i) {
    const std::size_t limit = random() % 2 == 0 ? 64 : kBlockSize;
    std::byte& byte = page[random() % limit];
    switch (random() % 4) {
      case 0:
        byte = std::byte{0};
        break;
      case 1:
        byte = std::byte{0xff};
        break;
      default:
        byte ^= std::byte{1} << static_cast<int>(random() % 8);
    }
  }
}

}  // namespace

TEST_CASE("random bytes of blocks are flipped: the checksums tell") {
  MESSAGE("seed ", kSeed);
  std::mt19937_64 random(kSeed);
  CheckVolumeBuilder sample;
  sample.add_sample();
  MemoryBlockDevice& device = sample.build();
  const std::uint64_t blocks = sample.next_free().value;
  for (int round = 0; round < 300; ++round) {
    const auto copy = device.clone();
    for (std::uint64_t i = 0; i <= random() % 3; ++i) {
      const Address address{random() % blocks};
      PageRef page = PageRef::uninitialised();
      REQUIRE(copy->read(address, page.mutable_bytes()).ok());
      damage(page.mutable_bytes(), random);
      REQUIRE(copy->write(address, std::span(&page, 1)).ok());
    }
    const auto report = check_volume(*copy, {});
    CHECK((report.ok() || report.error().code() == ErrorCode::kCorrupt ||
           report.error().code() == ErrorCode::kIncompatible));
  }
}

TEST_CASE("random bytes are wrong under right checksums: everything that is read is judged") {
  MESSAGE("seed ", kSeed);
  std::mt19937_64 random(kSeed);
  std::uint64_t damaged_volumes = 0;
  for (int round = 0; round < 400; ++round) {
    CheckVolumeBuilder sample;
    sample.add_sample();
    const std::uint64_t one_in = 1 + random() % 40;
    sample.on_block = [&](PageRef& page) {
      if (random() % one_in == 0) damage(page.mutable_bytes(), random);
    };
    const auto report = check_volume(sample.build(), {});
    REQUIRE(report.ok());
    damaged_volumes += report->clean() ? 0 : 1;
  }
  CHECK(damaged_volumes > 200);
}

TEST_CASE("random bytes of the root block are wrong under its right checksum") {
  MESSAGE("seed ", kSeed);
  std::mt19937_64 random(kSeed);
  CheckVolumeBuilder sample;
  sample.add_sample();
  MemoryBlockDevice& device = sample.build();
  for (int round = 0; round < 400; ++round) {
    const auto copy = device.clone();
    PageRef page = page_of(sample.root());
    for (std::uint64_t i = 0; i <= random() % 3; ++i) {
      page.mutable_bytes()[64 + random() % 704] ^= std::byte{1} << static_cast<int>(random() % 8);
    }
    RootBlock root;
    std::memcpy(static_cast<void*>(&root), page.data(), kBlockSize);
    seal(root);
    page = page_of(root);
    REQUIRE(copy->write(root_slot_of(kSampleCp, kSampleBlocks), std::span(&page, 1)).ok());
    const auto report = check_volume(*copy, {});
    CHECK((report.ok() || report.error().code() == ErrorCode::kCorrupt));
  }
}

TEST_CASE("a report lists a bounded number of problems and counts all") {
  CheckVolumeBuilder sample;
  sample.add_sample();
  for (std::uint64_t number = 100; number < 200; ++number) sample.inodes.at(number).record.link_count = 5;
  CheckOptions options;
  options.problems_max = 10;
  const auto report = check_volume(sample.build(), options);
  REQUIRE(report.ok());
  CHECK(report->problems.size() == 10);
  CHECK(report->error_count == 100);
}
