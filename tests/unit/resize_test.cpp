// A volume becomes larger while it is used.
#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <thread>

#include "fs/engine/space_ledger.h"
#include "fs/tree/free_map.h"
#include "tests/support/test_volume.h"

using namespace tarnfs;
using namespace tarnfs::testing;

namespace {

std::string page_text(std::uint64_t number) {
  std::string text = std::to_string(number) + ":";
  text.resize(kBlockSize, 'p');
  return text;
}

// Pages of a new file until there is no more space; returns how many there are.
std::uint64_t fill(TestVolume& test, std::string_view name, std::uint64_t pages_max = ~std::uint64_t{0}) {
  const InodeNumber inode = test.make(kRootDirectory, name);
  std::uint64_t pages = 0;
  while (pages < pages_max && test.write(inode, pages * kBlockSize, page_text(pages)).ok()) ++pages;
  return pages;
}

void check_file(TestVolume& test, std::string_view name, std::uint64_t pages) {
  const auto found = test.volume->lookup(kRootDirectory, name);
  REQUIRE(found.ok());
  std::uint64_t wrong = 0;
  for (std::uint64_t page = 0; page < pages; ++page) {
    wrong += test.read(found->inode, page * kBlockSize, kBlockSize) == page_text(page) ? 0 : 1;
  }
  CHECK(wrong == 0);
}

void wipe(MemoryBlockDevice& device, std::uint64_t first, std::uint64_t count) {
  const std::vector<PageRef> zeros(count, PageRef::zeroed());
  REQUIRE(device.write(Address{first}, zeros).ok());
}

}  // namespace

TEST_CASE("a full volume grows, takes more, and has both its ends") {
  constexpr std::uint64_t kSmall = 2048;
  constexpr std::uint64_t kLarge = 4500;
  TestVolume test(kSmall);
  test.device->give_room(kLarge);
  const std::uint64_t before = fill(test, "before");
  const FileSystemUsage full = test.volume->usage();
  const auto size_bytes = test.volume->resize(kLarge * kBlockSize);
  REQUIRE_MESSAGE(size_bytes.ok(), (size_bytes.ok() ? "" : size_bytes.error().describe()));
  CHECK(*size_bytes == kLarge * kBlockSize);
  const FileSystemUsage larger = test.volume->usage();
  CHECK(larger.size_blocks == full.size_blocks + kLarge - kSmall);
  CHECK(larger.available_blocks > full.available_blocks + (kLarge - kSmall) * 9 / 10);
  CHECK(test.volume->superblock().size_blocks == kLarge);
  CHECK(check_superblock(page_of(test.volume->superblock()).bytes()).ok());
  CHECK(test.problems().empty());

  const std::uint64_t after = fill(test, "after");
  CHECK(after > (kLarge - kSmall) * 9 / 10 - accepted_reserve_blocks_of(kLarge - kSmall));
  test.reopen();
  CHECK(test.problems().empty());
  check_file(test, "before", before);
  check_file(test, "after", after);
  REQUIRE(test.volume->close().ok());
  test.volume = nullptr;
  const std::unique_ptr<MemoryBlockDevice> whole = test.device->clone();
  SUBCASE("without the front") {
    wipe(*test.device, 0, kFirstDataBlock);
  }
  SUBCASE("without the end") {
    wipe(*test.device, end_of_data_blocks(kLarge), kRootSlotsPerEnd + 1);
  }
  SUBCASE("as it is") {}
  test.open();
  check_file(test, "before", before);
  check_file(test, "after", after);
}

TEST_CASE("right after a growth both ends have a root and a superblock of the new size") {
  TestVolume test(2048);
  test.device->give_room(3000);
  fill(test, "file", 100);
  REQUIRE(test.volume->resize(3000 * kBlockSize).ok());
  const auto front_gone = test.device->clone();
  wipe(*front_gone, 0, kFirstDataBlock);
  const auto end_gone = test.device->clone();
  wipe(*end_gone, end_of_data_blocks(3000), kRootSlotsPerEnd + 1);
  for (MemoryBlockDevice* const device : {front_gone.get(), end_gone.get()}) {
    const auto superblock = read_superblock(*device);
    REQUIRE(superblock.ok());
    CHECK(superblock->size_blocks == 3000);
    const auto root = read_newest_root(*device, *superblock);
    REQUIRE(root.ok());
    CHECK(root->size_blocks == 3000);
  }
}

TEST_CASE("the free map becomes higher when the new size asks for it") {
  // 4, 4 * 128 and 4 * 128 * 128 pages of the map are what heights 0, 1 and 2 have.
  for (const std::uint64_t map_pages : {5ULL, 600ULL, 70000ULL}) {
    CAPTURE(map_pages);
    const std::uint64_t size_blocks = map_pages * kBitsPerMapPage;
    TestVolume test(8192);
    test.device->give_room(size_blocks);
    fill(test, "file", 200);
    REQUIRE(test.volume->consistency_point().ok());
    REQUIRE(test.volume->resize(size_blocks * kBlockSize).ok());
    CHECK(test.volume->newest_root().free_map.height == height_for(map_pages));
    CHECK(test.problems().empty());
    fill(test, "more", 9000);
    test.reopen();
    CHECK(test.problems().empty());
    check_file(test, "file", 200);
    check_file(test, "more", 9000);
  }
}

TEST_CASE("it grows again and again, by little and by much") {
  TestVolume test(1024);
  test.device->give_room(200000);
  std::uint64_t size_blocks = 1024;
  std::uint64_t files = 0;
  for (const std::uint64_t growth : {17ULL, 18ULL, 100ULL, 31000ULL, 17ULL, 130000ULL}) {
    size_blocks += growth;
    REQUIRE(test.volume->resize(size_blocks * kBlockSize).ok());
    fill(test, "file" + std::to_string(files++), 200);
    if (files % 2 == 0) test.crash_and_reopen();
    test.device->give_room(200000);
    CHECK(test.volume->superblock().size_blocks == size_blocks);
    CHECK(test.volume->usage().size_blocks == end_of_data_blocks(size_blocks) - kFirstDataBlock);
    CHECK(test.problems().empty());
  }
  CHECK(*test.volume->resize(0) == 200000 * kBlockSize);
  CHECK(*test.volume->resize(0) == 200000 * kBlockSize);
  CHECK(test.problems().empty());
}

TEST_CASE("sizes that cannot be are refused, and the volume goes on") {
  TestVolume test(2048);
  const auto code_of = [&](std::uint64_t size_bytes) { return test.volume->resize(size_bytes).error().code(); };
  CHECK(code_of(2047 * kBlockSize) == ErrorCode::kUnsupported);
  CHECK(code_of(kBlockSize) == ErrorCode::kUnsupported);
  CHECK(code_of((2048 + kGrowthBlocksMin - 1) * kBlockSize) == ErrorCode::kInvalid);
  CHECK(code_of((kVolumeBlocksMax + 1) * kBlockSize) == ErrorCode::kInvalid);
  CHECK(code_of(4096 * kBlockSize) == ErrorCode::kNoSpace);
  CHECK(*test.volume->resize(2048 * kBlockSize) == 2048 * kBlockSize);
  CHECK(*test.volume->resize(0) == 2048 * kBlockSize);
  fill(test, "file", 100);
  test.reopen();
  check_file(test, "file", 100);
  CHECK(test.problems().empty());
  REQUIRE(test.volume->close().ok());
  test.volume = nullptr;
  test.options.mode = VolumeMode::kReadOnly;
  test.open();
  CHECK(code_of(4096 * kBlockSize) == ErrorCode::kReadOnly);
}

TEST_CASE("what the share map may need is kept for it, whichever comes first: the first shared block or the growth") {
  // What operations leave alone.
  const auto reserves = [](TestVolume& test) {
    const FileSystemUsage usage = test.volume->usage();
    return usage.free_blocks - usage.available_blocks;
  };
  const auto share = [](TestVolume& test) {
    const InodeNumber from = test.make(kRootDirectory, "from");
    REQUIRE(test.write(from, 0, page_text(0)).ok());
    REQUIRE(test.volume->consistency_point().ok());
    const InodeNumber to = test.make(kRootDirectory, "to");
    CHECK(*test.volume->copy_range(from, 0, to, 0, kBlockSize) == kBlockSize);
    REQUIRE(test.volume->consistency_point().ok());
  };
  constexpr std::uint64_t kLarge = 400000;
  TestVolume test(8192);
  test.device->give_room(kLarge);
  const std::uint64_t small_reserves = reserves(test);
  bool shared_first = false;
  SUBCASE("a block is shared first") {
    shared_first = true;
    share(test);
    CHECK(reserves(test) > small_reserves);
  }
  SUBCASE("the volume grows first") {}
  REQUIRE(test.volume->resize(kLarge * kBlockSize).ok());
  if (!shared_first) share(test);
  const std::uint64_t large_reserves = reserves(test);
  CHECK(large_reserves > small_reserves + 2 * share_pages_of(kLarge));
  CHECK(test.problems().empty());
  test.reopen();
  CHECK(reserves(test) == large_reserves);
  REQUIRE(test.volume->resize(kLarge * kBlockSize).ok());
  CHECK(reserves(test) == large_reserves);
}

TEST_CASE("shared blocks of a volume that grew: counted in its new part, and freed with their last reference") {
  TestVolume test(4096);
  test.device->give_room(12000);
  const std::uint64_t pages = fill(test, "from", 500);
  REQUIRE(test.volume->consistency_point().ok());
  const auto copy = [&](std::string_view from_name, std::string_view name) {
    const InodeNumber from = test.volume->lookup(kRootDirectory, from_name)->inode;
    const InodeNumber to = test.make(kRootDirectory, name);
    CHECK(*test.volume->copy_range(from, 0, to, 0, pages * kBlockSize) == pages * kBlockSize);
  };
  copy("from", "copy");
  REQUIRE(test.volume->resize(12000 * kBlockSize).ok());
  REQUIRE(fill(test, "filler", 5000) == 5000);  // beyond the old end
  REQUIRE(fill(test, "high", 500) == 500);
  REQUIRE(test.volume->consistency_point().ok());
  copy("high", "copy of high");
  REQUIRE(test.volume->unlink(kRootDirectory, "from").ok());
  REQUIRE(test.volume->unlink(kRootDirectory, "high").ok());
  test.reopen();
  CHECK(test.problems().empty());
  check_file(test, "copy", pages);
  check_file(test, "copy of high", pages);
  REQUIRE(test.volume->consistency_point().ok());  // what was unlinked is gone since the mount
  const std::uint64_t used_before = test.volume->newest_root().used_blocks;
  REQUIRE(test.volume->unlink(kRootDirectory, "copy").ok());
  REQUIRE(test.volume->unlink(kRootDirectory, "copy of high").ok());
  test.reopen();
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.problems().empty());
  CHECK(test.volume->newest_root().used_blocks + 2 * pages <= used_before);
}

// Where the superblock at the front was still the small one, a read-only mount that became a read-write one left it so:
// what it wrote to the new end was not found by the next mount.
TEST_CASE("a growth that was cut off is finished by a mount for reading that becomes one for writing") {
  TestVolume test(2048);
  test.device->give_room(4096);
  fill(test, "file", 100);
  // The root that is the commit stands at the front.
  while (test.volume->newest_root().cp % 2 != 0) {
    fill(test, "another", 1);
    REQUIRE(test.volume->consistency_point().ok());
  }
  const PageRef front = page_of(test.volume->superblock());
  REQUIRE(test.volume->resize(4096 * kBlockSize).ok());
  REQUIRE(test.volume->close().ok());
  test.volume.reset();
  wipe(*test.device, end_of_data_blocks(4096), kRootSlotsPerEnd);  // the growth's second root was not written
  REQUIRE(test.device->write(Address{0}, std::span(&front, 1)).ok());
  test.options.mode = VolumeMode::kReadOnly;
  test.open();
  CHECK(test.volume->superblock().size_blocks == 4096);
  CHECK(read_superblock(*test.device)->size_blocks == 2048);
  REQUIRE(test.volume->make_writable().ok());
  CHECK(read_superblock(*test.device)->size_blocks == 4096);
  CHECK(fill(test, "more", 2500) == 2500);
  test.options.mode = VolumeMode::kReadWrite;
  test.reopen();
  CHECK(test.volume->superblock().size_blocks == 4096);
  check_file(test, "file", 100);
  check_file(test, "more", 2500);
  CHECK(test.problems().empty());
}

TEST_CASE("a device that fails while the new end is made leaves a volume that goes on and can grow later") {
  for (const std::uint64_t failing_call : {0ULL, 1ULL, 2ULL}) {  // root slots, superblock, flush
    CAPTURE(failing_call);
    TestVolume test(2048);
    test.device->give_room(4096);
    fill(test, "file", 100);
    REQUIRE(test.volume->consistency_point().ok());
    test.device->fail_from_call(failing_call);
    CHECK(test.volume->resize(4096 * kBlockSize).error().code() == ErrorCode::kIo);
    CHECK(test.device->calls() == failing_call + 1);
    test.device->fail_from_call(std::nullopt);
    CHECK(test.volume->superblock().size_blocks == 2048);
    fill(test, "more", 50);
    test.reopen();
    CHECK(test.problems().empty());
    REQUIRE(test.volume->resize(4096 * kBlockSize).ok());
    test.reopen();
    CHECK(test.problems().empty());
    check_file(test, "file", 100);
    check_file(test, "more", 50);
  }
}

TEST_CASE("writers go on while the volume grows") {
  TestVolume test(8192);
  test.device->give_room(100000);
  std::atomic<bool> done{false};
  std::vector<std::thread> writers;
  std::array<std::uint64_t, 2> files{};
  for (std::size_t writer = 0; writer < files.size(); ++writer) {
    writers.emplace_back([&, writer] {
      while (!done && files[writer] < 500) {
        const std::string name = std::to_string(writer) + "-" + std::to_string(files[writer]);
        if (fill(test, name, 5) < 5) break;
        ++files[writer];
        if (files[writer] % 4 == 0)
          CHECK(test.volume->fsync(test.volume->lookup(kRootDirectory, name)->inode, false).ok());
        std::this_thread::yield();
      }
    });
  }
  for (std::uint64_t size_blocks = 9000; size_blocks <= 30000; size_blocks += 3000) {
    const auto resized = test.volume->resize(size_blocks * kBlockSize);
    CHECK(resized.ok());
    CHECK(test.volume->trim({size_blocks * kBlockSize / 2, 2000 * kBlockSize, 0}).ok());
  }
  done = true;
  for (std::thread& writer : writers) writer.join();
  test.crash_and_reopen();
  CHECK(test.volume->superblock().size_blocks == 30000);
  test.reopen();
  CHECK(test.problems().empty());
  for (std::size_t writer = 0; writer < files.size(); ++writer) CHECK(files[writer] > 0);
}
