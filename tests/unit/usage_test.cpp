// What statfs(2) says is free: with what was deleted a moment ago, and never more than an operation can have.
//
// A program that deletes until there is space again looks with statfs(2) after each file. When that did not know of the
// deletion before the next consistency point, the program deleted far more than it had to (xfstests generic/747).
#include <doctest/doctest.h>

#include <random>

#include "tests/support/seed.h"
#include "tests/support/test_volume.h"
#include "tests/support/thread_sanitizer.h"

using namespace tarnfs;
using tarnfs::testing::kOneRoundOf;
using tarnfs::testing::TestVolume;

namespace {

constexpr std::uint64_t kMiB = 1U << 20;

InodeNumber make_file(TestVolume& test, const std::string& name, std::uint64_t blocks) {
  const InodeNumber file = test.make(kRootDirectory, name);
  for (std::uint64_t done = 0; done < blocks * kBlockSize; done += kMiB) {
    const std::uint64_t length = std::min(kMiB, blocks * kBlockSize - done);
    REQUIRE(test.write(file, done, std::string(length, 'x')).ok());
  }
  return file;
}

void remove(TestVolume& test, const std::string& name, InodeNumber file) {
  REQUIRE(test.volume->unlink(kRootDirectory, name).ok());
  test.volume->forget(file, 1);
}

void resize(TestVolume& test, InodeNumber file, std::uint64_t size_bytes) {
  AttributeChanges changes;
  changes.size_bytes = size_bytes;
  REQUIRE(test.volume->change_attributes(file, changes).ok());
}

std::uint64_t available(TestVolume& test) {
  return test.volume->usage().available_blocks;
}

}  // namespace

TEST_CASE("what was deleted is free at once, whether it had been written or not") {
  TestVolume test(20000);
  const std::uint64_t empty = available(test);
  const InodeNumber written = make_file(test, "written", 4000);
  REQUIRE(test.volume->consistency_point().ok());
  const InodeNumber dirty = make_file(test, "dirty", 2000);
  CHECK(available(test) < empty - 6000);
  remove(test, "dirty", dirty);
  CHECK(available(test) > empty - 4000 - 500);  // promises for nodes end with the consistency point
  remove(test, "written", written);
  CHECK(available(test) > empty - 500);
  const std::uint64_t before = available(test);
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(available(test) >= before);
  CHECK(available(test) > empty - 50);
}

TEST_CASE("what truncate cuts off is free at once") {
  TestVolume test(20000);
  const InodeNumber file = make_file(test, "file", 5000);
  REQUIRE(test.volume->consistency_point().ok());
  const std::uint64_t full = available(test);
  resize(test, file, 3000 * kBlockSize);
  CHECK(available(test) > full + 2000 - 100);
  CHECK(available(test) <= full + 2050);
  resize(test, file, 1000 * kBlockSize);
  CHECK(available(test) > full + 4000 - 100);
  resize(test, file, 0);
  resize(test, file, 5000 * kBlockSize);
  resize(test, file, 0);
  CHECK(available(test) <= full + 5100);  // counted once
  const std::uint64_t before = available(test);
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(available(test) >= before);
}

TEST_CASE("a large file that is cut down over several consistency points is free at once, and can be had") {
  constexpr std::uint64_t kBlocks = 70000;
  TestVolume test(80000);
  const std::uint64_t empty = available(test);
  const InodeNumber file = make_file(test, "large", kBlocks);
  REQUIRE(test.volume->consistency_point().ok());
  const std::uint64_t full = available(test);
  remove(test, "large", file);
  CHECK(available(test) > full + kBlocks - 200);
  // What comes now needs all of it, not what the first consistency point frees.
  make_file(test, "next", available(test) * 9 / 10);
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(available(test) < empty);
  CHECK(test.problems() == "");
}

TEST_CASE("what is kept for a mirror counts as free: it is given up before somebody gets ENOSPC") {
  TestVolume test(20000);
  const InodeNumber file = make_file(test, "file", 3000);
  REQUIRE(test.volume->consistency_point().ok());
  test.volume->pin_newest_root();
  remove(test, "file", file);
  const std::uint64_t before = available(test);
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.volume->status().held_blocks >= 3000);
  CHECK(available(test) >= before);
  make_file(test, "next", available(test) * 9 / 10);
}

TEST_CASE("where blocks are shared a deletion counts when it is known what it frees") {
  TestVolume test(20000);
  const InodeNumber file = make_file(test, "file", 3000);
  const InodeNumber copy = test.make(kRootDirectory, "copy");
  REQUIRE(test.volume->consistency_point().ok());
  REQUIRE(test.volume->copy_range(file, 0, copy, 0, 3000 * kBlockSize).value() == 3000 * kBlockSize);
  REQUIRE(test.volume->consistency_point().ok());
  const std::uint64_t full = available(test);
  remove(test, "file", file);
  CHECK(available(test) < full + 500);
  REQUIRE(test.volume->settle_usage().ok());
  CHECK(available(test) < full + 500);
  remove(test, "copy", copy);
  REQUIRE(test.volume->settle_usage().ok());
  CHECK(available(test) > full + 2900);
}

TEST_CASE("whatever was done before, nine tenths of what is said to be available can be written") {
  std::mt19937_64 random(testing::printed_seed());
  for (unsigned round = 0; round < 12 / kOneRoundOf + 1; ++round) {
    TestVolume test(6000);
    std::map<std::string, InodeNumber> files;
    for (unsigned step = 0; step < 60; ++step) {
      const std::string name = "f" + std::to_string(random() % 8);
      const auto found = files.find(name);
      const unsigned kind = random() % 8;
      if (found == files.end()) {
        files[name] = make_file(test, name, std::min<std::uint64_t>(random() % 900, available(test) / 2));
      } else if (kind < 3) {
        remove(test, name, found->second);
        files.erase(found);
      } else if (kind < 5) {
        resize(test, found->second, random() % 900 * kBlockSize);
      } else if (kind == 5) {
        FallocateOptions options{.keep_size = true, .punch_hole = true};
        REQUIRE(test.volume->fallocate(found->second, random() % 400 * kBlockSize, 300 * kBlockSize, options).ok());
      } else {
        const std::uint64_t offset = random() % 900 * kBlockSize;
        if (available(test) > 400) REQUIRE(test.write(found->second, offset, std::string(80000, 'y')).ok());
      }
      if (random() % 5 == 0) REQUIRE(test.volume->consistency_point().ok());
    }
    make_file(test, "rest", available(test) * 9 / 10);
    REQUIRE(test.volume->consistency_point().ok());
    REQUIRE(test.problems() == "");
  }
}
