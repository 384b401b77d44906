// A volume that was opened for reading is made writable: it goes on from what it shows.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <atomic>
#include <thread>

#include "tests/support/test_volume.h"

using namespace tarnfs;
using tarnfs::testing::TestVolume;

namespace {

void crash_and_open_for_reading(TestVolume& test) {
  test.options.mode = VolumeMode::kReadOnly;
  test.crash_and_reopen();
  test.options.mode = VolumeMode::kReadWrite;
}

}  // namespace

TEST_CASE("what the journal has stays, orphans go, and nothing is written before") {
  TestVolume test(4096);
  const InodeNumber kept = test.make(kRootDirectory, "kept");
  const InodeNumber orphan = test.make(kRootDirectory, "orphan");
  REQUIRE(test.write(orphan, 0, std::string(5 * kBlockSize, 'o')).ok());
  REQUIRE(test.volume->unlink(kRootDirectory, "orphan").ok());
  REQUIRE(test.volume->consistency_point().ok());
  REQUIRE(test.write(kept, 0, "content").ok());
  const InodeNumber unlinked = test.make(kRootDirectory, "unlinked");
  REQUIRE(test.volume->unlink(kRootDirectory, "unlinked").ok());
  REQUIRE(test.volume->fsync(kept, false).ok());
  crash_and_open_for_reading(test);
  CHECK(test.read(kept, 0, 100) == "content");
  CHECK(test.write(kept, 0, "other").error().code() == ErrorCode::kReadOnly);
  CHECK(test.volume->consistency_point().error().code() == ErrorCode::kReadOnly);
  CHECK(test.volume->fsync(kept, false).ok());
  CHECK_FALSE(test.volume->takes_changes());
  CHECK(test.volume->status().journal_size_bytes == 0);
  CHECK(test.device->written_blocks() == 0);

  REQUIRE(test.volume->make_writable().ok());
  CHECK(test.volume->make_writable().ok());
  CHECK(test.volume->takes_changes());
  CHECK(test.volume->status().journal_used_bytes == 0);
  CHECK(test.read(kept, 0, 100) == "content");
  REQUIRE(test.write(kept, 7, " and more").ok());
  const InodeNumber made = test.make(kRootDirectory, "new");
  CHECK(made > unlinked);
  REQUIRE(test.volume->fsync(kept, false).ok());
  test.crash_and_reopen();
  CHECK(test.read(kept, 0, 100) == "content and more");
  CHECK(test.volume->lookup(kRootDirectory, "new").ok());
  for (const InodeNumber gone : {orphan, unlinked}) CHECK_FALSE(test.volume->attributes(gone).ok());
  test.reopen();
  CHECK(test.problems() == "");
}

TEST_CASE("blocks that only the journal names are not given to others") {
  TestVolume test(4096);
  test.options.placed_pages_min = 4;
  test.reopen();
  const InodeNumber large = test.make(kRootDirectory, "large");
  const std::string content(64 * kBlockSize, 'l');
  REQUIRE(test.write(large, 0, content).ok());
  REQUIRE(test.volume->fsync(large, false).ok());
  crash_and_open_for_reading(test);
  REQUIRE(test.volume->make_writable().ok());
  const InodeNumber other = test.make(kRootDirectory, "other");
  REQUIRE(test.write(other, 0, std::string(200 * kBlockSize, 'x')).ok());
  REQUIRE(test.volume->consistency_point().ok());
  test.reopen();
  CHECK(test.read(large, 0, content.size()) == content);
  CHECK(test.problems() == "");
}

TEST_CASE("readers go on meanwhile") {
  TestVolume test(4096);
  const InodeNumber file = test.make(kRootDirectory, "file");
  REQUIRE(test.write(file, 0, std::string(100 * kBlockSize, 'f')).ok());
  REQUIRE(test.volume->fsync(file, false).ok());
  crash_and_open_for_reading(test);
  std::atomic<bool> done{false};
  std::atomic<unsigned> wrong{0};
  const auto read = [&] {
    std::string text(kBlockSize, '?');
    for (unsigned i = 0; !done || i < 100; ++i) {
      const std::uint64_t offset = i % 100 * kBlockSize;
      const auto count = test.volume->read(file, offset, std::as_writable_bytes(std::span(text)));
      if (!count.ok() || text != std::string(kBlockSize, 'f')) ++wrong;
      if (test.volume->usage().size_blocks == 0 || !test.volume->lookup(kRootDirectory, "file").ok()) ++wrong;
      test.volume->forget(file, 1);
    }
  };
  std::thread one(read);
  std::thread two(read);
  CHECK(test.volume->make_writable().ok());
  CHECK(test.volume->consistency_point().ok());
  done = true;
  one.join();
  two.join();
  CHECK(wrong == 0);
  test.reopen();
  CHECK(test.problems() == "");
}

TEST_CASE("a mirror stays one, and a damaged free map only matters where it is needed") {
  TestVolume test(4096);
  VolumeOptions options;
  options.mode = VolumeMode::kMirror;
  const auto mirror = Volume::open(*test.device, options).value();
  CHECK(mirror->make_writable().error().code() == ErrorCode::kReadOnly);

  test.options.placed_pages_min = 4;
  test.reopen();
  const InodeNumber large = test.make(kRootDirectory, "large");
  REQUIRE(test.write(large, 0, std::string(64 * kBlockSize, 'l')).ok());
  REQUIRE(test.volume->fsync(large, false).ok());
  test.device->damage(Address{test.volume->newest_root().free_map.pointers[0].address});
  crash_and_open_for_reading(test);
  CHECK(test.read(large, 0, 4) == "llll");
  CHECK(test.volume->make_writable().error().code() == ErrorCode::kReadOnly);
  CHECK_FALSE(test.volume->takes_changes());
}
