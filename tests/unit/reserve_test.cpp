// fallocate promises space: what it has reserved can be written when nobody else can write anything any more, over
// consistency points, remounts and crashes; and what is given back is free.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <random>

#include "tests/support/seed.h"
#include "tests/support/test_volume.h"
#include "tests/support/thread_sanitizer.h"

using namespace tarnfs;
using tarnfs::testing::kOneRoundOf;
using tarnfs::testing::TestVolume;

namespace {

constexpr FallocateOptions kExtend{};
constexpr FallocateOptions kKeepSize{.keep_size = true};
constexpr FallocateOptions kPunch{.keep_size = true, .punch_hole = true};
constexpr FallocateOptions kZero{.zero_range = true};

class ReserveVolume : public TestVolume {
 public:
  explicit ReserveVolume(std::uint64_t size_blocks = 8000) : TestVolume(size_blocks) {
    volume->forget(make(kRootDirectory, "fill"), 1);  // on a full volume there is no space for a new name
    point();
  }

  Status fallocate(InodeNumber file, std::uint64_t first_page, std::uint64_t pages, FallocateOptions how) {
    return volume->fallocate(file, first_page * kBlockSize, pages * kBlockSize, how);
  }
  Status write_pages(InodeNumber file, std::uint64_t first_page, std::uint64_t pages, char content = 'w') {
    return write(file, first_page * kBlockSize, std::string(pages * kBlockSize, content));
  }
  Status resize(InodeNumber file, std::uint64_t size_bytes) {
    AttributeChanges changes;
    changes.size_bytes = size_bytes;
    const auto changed = volume->change_attributes(file, changes);
    return changed.ok() ? Status() : Status(changed.error());
  }
  void remove(const std::string& name, InodeNumber file) {
    REQUIRE(volume->unlink(kRootDirectory, name).ok());
    volume->forget(file, 1);
  }
  void point() { REQUIRE(volume->consistency_point().ok()); }

  // Until not even one more page can be had.
  void fill() {
    const InodeNumber file = volume->lookup(kRootDirectory, "fill")->inode;
    std::uint64_t page = volume->attributes(file)->size_bytes / kBlockSize;
    for (const std::uint64_t pages : {64, 4, 1, 1}) {
      while (write_pages(file, page, pages, 'f').ok()) page += pages;
      point();
    }
    CHECK(write_pages(file, page, 1).error().code() == ErrorCode::kNoSpace);
  }
  // Writes the pages in pieces, every second one first.
  void write_all(InodeNumber file, std::uint64_t first_page, std::uint64_t pages, std::uint64_t piece) {
    for (const std::uint64_t odd : {1, 0}) {
      for (std::uint64_t page = odd * piece; page < pages; page += 2 * piece) {
        INFO("page ", page);
        const std::uint64_t count = std::min(piece, pages - page);
        REQUIRE(write_pages(file, first_page + page, count).ok());
        if (page % (20 * piece) == 0) point();
      }
      point();
    }
  }
  std::uint64_t available() { return volume->usage().available_blocks; }
  std::uint64_t reserve() { return volume->newest_root().reserve_blocks; }
  std::uint64_t blocks_of(InodeNumber file) { return volume->attributes(file)->block_count; }
  // Nothing is promised any more: what is free is what the root says.
  void check_books() {
    point();
    const RootBlock root = volume->newest_root();
    const VolumeStatus status = volume->status();
    CHECK(status.usage.free_blocks == status.usage.size_blocks - root.used_blocks - root.reserve_blocks);
    CHECK(problems() == "");
  }
};

}  // namespace

TEST_CASE("on a full volume what was preallocated can be written, and nothing else") {
  for (const std::uint64_t pages : {3U, 200U, 2000U}) {
    ReserveVolume test;
    const InodeNumber file = test.make(kRootDirectory, "file");
    REQUIRE(test.write_pages(file, 0, 16).ok());
    REQUIRE(test.fallocate(file, 16, pages, kKeepSize).ok());
    test.fill();
    CHECK_FALSE(test.write_pages(file, 17 + pages, 1).ok());
    test.write_all(file, 16, pages, 5);
    CHECK(test.volume->attributes(file)->size_bytes == (16 + pages) * kBlockSize);
    CHECK(test.reserve() == 0);
    CHECK(test.read(file, 0, 30 * kBlockSize) ==
          std::string(std::min<std::uint64_t>(16 + pages, 30) * kBlockSize, 'w'));
    test.check_books();
  }
}

TEST_CASE("a reserve is there after an unmount, and after a crash") {
  ReserveVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  REQUIRE(test.fallocate(file, 0, 1000, kExtend).ok());
  test.reopen();
  CHECK(test.reserve() >= 1000);
  test.fill();
  REQUIRE(test.write_pages(file, 100, 100).ok());
  test.crash_and_reopen();
  test.fill();
  test.write_all(file, 0, 1000, 16);
  CHECK(test.reserve() == 0);
  test.check_books();
}

TEST_CASE("an fsync makes a reserve durable, and recovery does it once") {
  ReserveVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  REQUIRE(test.write_pages(file, 10, 2, 'd').ok());
  REQUIRE(test.fallocate(file, 0, 500, kExtend).ok());
  REQUIRE(test.volume->fsync(file, true).ok());
  REQUIRE(test.write_pages(file, 20, 2, 'e').ok());
  REQUIRE(test.fallocate(file, 30, 10, kPunch).ok());
  REQUIRE(test.volume->fsync(file, false).ok());
  REQUIRE(test.fallocate(file, 30, 1, kKeepSize).ok());
  REQUIRE(test.volume->fsync(file, false).ok());
  test.crash_and_reopen();
  test.crash_and_reopen();
  const InodeNumber again = test.volume->lookup(kRootDirectory, "file")->inode;
  CHECK(test.volume->attributes(again)->size_bytes == 500 * kBlockSize);
  CHECK(test.read(again, 10 * kBlockSize, 2 * kBlockSize) == std::string(2 * kBlockSize, 'd'));
  CHECK(test.read(again, 20 * kBlockSize, 2 * kBlockSize) == std::string(2 * kBlockSize, 'e'));
  test.fill();
  CHECK_FALSE(test.write_pages(again, 35, 1).ok());
  test.write_all(again, 0, 10, 3);
  test.write_all(again, 40, 460, 7);
  REQUIRE(test.write_pages(again, 30, 1).ok());
  test.check_books();
}

TEST_CASE("a crash while the reserve is being used leaves the rest of it") {
  ReserveVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  REQUIRE(test.fallocate(file, 0, 600, kKeepSize).ok());
  test.fill();
  for (std::uint64_t page = 0; page < 600; page += 6) {
    REQUIRE(test.write_pages(file, page, 6).ok());
    if (page % 36 == 0) REQUIRE(test.volume->fsync(file, true).ok());
    if (page % 120 == 60) test.crash_and_reopen();
  }
  // What has content by now is written to other blocks, which there are none of.
  for (std::uint64_t page = 0; page < 600; ++page) {
    const bool has_content = test.read(file, page * kBlockSize, 1) == "w";
    INFO("page ", page);
    if (!has_content) REQUIRE(test.write_pages(file, page, 1).ok());
  }
  test.check_books();
  CHECK(test.reserve() == 0);
}

TEST_CASE("truncation, holes and deletion give the reserve back") {
  ReserveVolume test;
  const std::uint64_t before = test.available();
  const InodeNumber file = test.make(kRootDirectory, "file");
  REQUIRE(test.fallocate(file, 0, 4000, kExtend).ok());
  CHECK(test.available() <= before - 4000);
  test.point();
  CHECK(test.reserve() >= 4000);
  CHECK(test.available() <= before - 4000);
  REQUIRE(test.resize(file, 3000 * kBlockSize).ok());
  CHECK(test.available() >= before - 3100);  // at once
  REQUIRE(test.fallocate(file, 100, 900, kPunch).ok());
  test.point();
  CHECK(test.available() >= before - 2200);
  test.remove("file", file);
  CHECK(test.available() >= before - 50);
  test.check_books();
  CHECK(test.reserve() == 0);
}

TEST_CASE("what is kept behind the end goes with a truncation to the same size, not with one to a larger") {
  ReserveVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  REQUIRE(test.write(file, 0, "abc").ok());
  REQUIRE(test.fallocate(file, 0, 300, kKeepSize).ok());
  test.point();
  REQUIRE(test.resize(file, 100).ok());
  test.point();
  CHECK(test.reserve() >= 299);
  REQUIRE(test.resize(file, 100).ok());
  test.check_books();
  CHECK(test.reserve() == 0);
  CHECK(test.read(file, 0, 200) == "abc" + std::string(97, '\0'));
}

TEST_CASE("more than there is cannot be reserved, and what has content needs nothing") {
  ReserveVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  CHECK(test.fallocate(file, 0, 9000, kExtend).error().code() == ErrorCode::kNoSpace);
  CHECK(test.fallocate(file, 0, std::uint64_t{1} << 45, kExtend).error().code() == ErrorCode::kNoSpace);
  CHECK(test.volume->attributes(file)->size_bytes == 0);
  for (std::uint64_t page = 0; page < 4500; page += 100) REQUIRE(test.write_pages(file, page, 100).ok());
  const std::uint64_t blocks = test.blocks_of(file);
  REQUIRE(test.fallocate(file, 0, 4500, kExtend).ok());
  REQUIRE(test.fallocate(file, 0, 4600, kExtend).ok());
  CHECK(test.blocks_of(file) <= blocks + 110);
  test.check_books();
  CHECK(test.reserve() <= 110);
}

TEST_CASE("the number of blocks does not change when preallocated pages are written") {
  ReserveVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  REQUIRE(test.volume->fallocate(file, kBlockSize - 1, 2, kExtend).ok());
  CHECK(test.blocks_of(file) == 2);
  REQUIRE(test.write(file, kBlockSize - 1, "ab").ok());
  CHECK(test.blocks_of(file) == 2);
  test.point();
  CHECK(test.blocks_of(file) == 2);
  const InodeNumber large = test.make(kRootDirectory, "large");
  REQUIRE(test.fallocate(large, 0, 3000, kExtend).ok());
  const std::uint64_t blocks = test.blocks_of(large);
  CHECK(blocks >= 3000);
  CHECK(blocks <= 3050);
  REQUIRE(test.write_pages(large, 5, 100).ok());
  CHECK(test.blocks_of(large) == blocks);
  test.point();
  CHECK(test.blocks_of(large) == blocks);
  REQUIRE(test.write_pages(large, 50, 100).ok());
  test.point();
  CHECK(test.blocks_of(large) == blocks);
  REQUIRE(test.resize(large, 2000 * kBlockSize).ok());
  CHECK(test.blocks_of(large) <= 2030);
  CHECK(test.blocks_of(large) >= 2000);
  test.check_books();
}

TEST_CASE("a range is zeroed on a full volume, and can be written again") {
  ReserveVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  REQUIRE(test.fallocate(file, 0, 800, kExtend).ok());
  REQUIRE(test.write_pages(file, 0, 100).ok());
  test.point();
  REQUIRE(test.volume->fallocate(file, 10, 50 * kBlockSize, kZero).ok());
  CHECK(test.read(file, 0, 2 * kBlockSize) == std::string(10, 'w') + std::string(2 * kBlockSize - 10, '\0'));
  test.fill();
  REQUIRE(test.fallocate(file, 300, 400, kZero).ok());
  test.point();
  test.write_all(file, 1, 49, 7);
  test.write_all(file, 100, 700, 20);
  CHECK(test.reserve() == 0);
  test.check_books();
}

TEST_CASE("copies take holes from what is reserved, and give back what was reserved for the target") {
  ReserveVolume test;
  const InodeNumber from = test.make(kRootDirectory, "from");
  const InodeNumber to = test.make(kRootDirectory, "to");
  REQUIRE(test.fallocate(from, 0, 400, kExtend).ok());
  REQUIRE(test.write_pages(from, 10, 20).ok());
  REQUIRE(test.fallocate(to, 0, 400, kExtend).ok());
  test.point();
  REQUIRE(test.volume->copy_range(from, 0, to, 0, 400 * kBlockSize).value() == 400 * kBlockSize);
  test.check_books();
  CHECK(test.blocks_of(to) < 30);
  CHECK(test.read(to, 9 * kBlockSize, 2 * kBlockSize) == std::string(kBlockSize, '\0') + std::string(kBlockSize, 'w'));
}

TEST_CASE("a TiB is reserved with a few blocks and little memory") {
  ReserveVolume test((std::uint64_t{1} << 28) + (std::uint64_t{1} << 24));
  const InodeNumber file = test.make(kRootDirectory, "file");
  REQUIRE(test.fallocate(file, 0, std::uint64_t{1} << 28, kExtend).ok());
  CHECK(test.volume->status().dirty_bytes < 100000);
  const std::uint64_t used = test.volume->newest_root().used_blocks;
  test.point();
  CHECK(test.volume->newest_root().used_blocks < used + 20);
  CHECK(test.blocks_of(file) >= std::uint64_t{1} << 28);
  REQUIRE(test.write_pages(file, 123456789, 1).ok());
  REQUIRE(test.fallocate(file, 5, (std::uint64_t{1} << 28) - 10, kPunch).ok());
  test.point();
  CHECK(test.reserve() < 2000);
  test.remove("file", file);
  test.check_books();
}

TEST_CASE("a volume of format 3 opens, and takes a reserve") {
  ReserveVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  REQUIRE(test.write_pages(file, 0, 3).ok());
  REQUIRE(test.volume->close().ok());
  Superblock superblock = test.volume->superblock();
  RootBlock root = test.volume->newest_root();
  test.volume.reset();
  superblock.format_version = 3;
  root.format_version = 3;
  seal(superblock);
  seal(root);
  REQUIRE(write_superblock(*test.device, superblock).ok());
  REQUIRE(publish_root(*test.device, root).ok());
  CHECK(test.problems() == "");
  test.open();
  REQUIRE(test.fallocate(file, 3, 100, kExtend).ok());
  test.reopen();
  CHECK(test.volume->newest_root().format_version == 4);
  CHECK(test.reserve() >= 100);
  test.check_books();
}

TEST_CASE("random operations on files with a reserve: the books are right, and what is promised is kept") {
  std::mt19937_64 random(testing::printed_seed());
  for (unsigned round = 0; round < 15 / kOneRoundOf; ++round) {
    ReserveVolume test(6000);
    std::vector<InodeNumber> files;
    for (unsigned i = 0; i < 4; ++i) files.push_back(test.make(kRootDirectory, "f" + std::to_string(i)));
    const InodeNumber promised = test.make(kRootDirectory, "promised");
    REQUIRE(test.fallocate(promised, 100, 300, kKeepSize).ok());
    REQUIRE(test.volume->fsync(promised, false).ok());
    for (unsigned step = 0; step < 120; ++step) {
      const InodeNumber file = files[random() % files.size()];
      const std::uint64_t first = random() % 700;
      const std::uint64_t pages = 1 + random() % (random() % 3 == 0 ? 600 : 40);
      Status done;
      switch (random() % 12) {
        case 0:
        case 1:
          done = test.fallocate(file, first, pages, random() % 2 == 0 ? kExtend : kKeepSize);
          break;
        case 2:
          done = test.fallocate(file, first, pages, kPunch);
          break;
        case 3:
          done = test.fallocate(file, first, pages, kZero);
          break;
        case 4:
          done = test.resize(file, first * kBlockSize + random() % 3);
          break;
        case 5: {
          const InodeNumber to = files[random() % files.size()];
          if (to == file) break;
          const auto copied =
              test.volume->copy_range(file, first * kBlockSize, to, first * kBlockSize, pages * kBlockSize);
          if (!copied.ok()) done = copied.error();
          break;
        }
        case 6:
          done = test.volume->fsync(file, random() % 2 == 0);
          break;
        case 7:
          if (random() % 3 == 0) test.crash_and_reopen();
          break;
        case 8:
          test.check_books();
          break;
        default:
          done = test.write_pages(file, first, std::min<std::uint64_t>(pages, 200));
      }
      const std::string what = done.ok() ? "" : done.error().describe();
      INFO(what);
      REQUIRE((done.ok() || done.error().code() == ErrorCode::kNoSpace));
    }
    test.fill();
    test.write_all(promised, 100, 300, 1 + random() % 30);
    test.check_books();
    test.reopen();
    test.check_books();
  }
}
