// Free blocks are given back to the device below, and nothing else is.
#include <doctest/doctest.h>

#include <atomic>
#include <functional>
#include <thread>

#include "fs/tree/free_map.h"
#include "tests/support/test_volume.h"

using namespace tarnfs;
using namespace tarnfs::testing;

namespace {

// Calls a hook before each discard.
class DiscardHook final : public BlockDevice {
 public:
  DiscardHook(BlockDevice& below, std::function<Status(Address, std::uint64_t)> hook)
      : below_(below), hook_(std::move(hook)) {}
  std::string name() const override { return below_.name(); }
  std::uint64_t size_blocks() const override { return below_.size_blocks(); }
  Status read(Address first, std::span<std::byte> out) override { return below_.read(first, out); }
  Status write(Address first, std::span<const PageRef> pages) override { return below_.write(first, pages); }
  Status flush() override { return below_.flush(); }
  Status discard(Address first, std::uint64_t count_blocks) override {
    TARNFS_TRY(hook_(first, count_blocks));
    return below_.discard(first, count_blocks);
  }

 private:
  BlockDevice& below_;
  const std::function<Status(Address, std::uint64_t)> hook_;
};

std::string text_of(std::uint64_t pages, char letter) {
  return std::string(pages * kBlockSize, letter);
}

InodeNumber make_file(TestVolume& test, std::string_view name, std::uint64_t pages, char letter) {
  const InodeNumber inode = test.make(kRootDirectory, name);
  REQUIRE(test.write(inode, 0, text_of(pages, letter)).ok());
  return inode;
}

void remove_file(TestVolume& test, InodeNumber inode, std::string_view name) {
  REQUIRE(test.volume->unlink(kRootDirectory, name).ok());
  test.volume->forget(inode, 1);
}

// Nothing is held any more: what the newest root does not use is free.
void settle(TestVolume& test) {
  REQUIRE(test.volume->consistency_point().ok());
  AttributeChanges changes;
  changes.mode = 0755;
  REQUIRE(test.volume->change_attributes(kRootDirectory, changes).ok());
  REQUIRE(test.volume->consistency_point().ok());
}

}  // namespace

TEST_CASE("a trim discards all that is free, and what is in use stays") {
  TestVolume test(8192);
  const InodeNumber kept = make_file(test, "kept", 300, 'k');
  const InodeNumber gone = make_file(test, "gone", 700, 'g');
  REQUIRE(test.volume->consistency_point().ok());
  remove_file(test, gone, "gone");
  settle(test);

  const auto trimmed = test.volume->trim({});
  REQUIRE(trimmed.ok());
  const RootBlock root = test.volume->newest_root();
  const std::uint64_t free = end_of_data_blocks(root.size_blocks) - kFirstDataBlock - root.used_blocks;
  CHECK(*trimmed == free * kBlockSize);
  CHECK(test.device->discarded_blocks() == free);
  CHECK(test.problems().empty());
  CHECK(test.read(kept, 0, 300 * kBlockSize) == text_of(300, 'k'));
  test.reopen();
  CHECK(test.read(test.volume->lookup(kRootDirectory, "kept")->inode, 0, 300 * kBlockSize) == text_of(300, 'k'));

  // What was discarded is as free as before.
  make_file(test, "new", 1500, 'n');
  test.reopen();
  CHECK(test.problems().empty());
}

TEST_CASE("what a pinned root refers to is not discarded") {
  TestVolume test(8192);
  const InodeNumber inode = make_file(test, "file", 500, 'f');
  REQUIRE(test.volume->consistency_point().ok());
  const PinnedRoot pinned = test.volume->pin_newest_root();
  remove_file(test, inode, "file");
  settle(test);
  REQUIRE(test.volume->trim({}).ok());
  std::uint64_t blocks = 0;
  const Status walked = test.volume->walk_changed(pinned.root, Cp{0}, [&](const BlockWrite&) -> Status {
    ++blocks;
    return {};
  });
  CHECK(walked.ok());
  CHECK(blocks >= 500);
  test.volume->unpin(pinned.pin);
}

TEST_CASE("range and smallest length of a trim hold") {
  constexpr std::uint64_t kBlocks = 3 * kBitsPerMapPage;  // runs go over pages of the free map
  TestVolume test(kBlocks);
  settle(test);
  std::vector<FreeMap::FreeRun> discarded;
  DiscardHook device(*test.device, [&](Address first, std::uint64_t count) -> Status {
    discarded.push_back({first.value, first.value + count});
    return {};
  });
  REQUIRE(test.volume->close().ok());
  const auto volume = Volume::open(device, test.options);
  REQUIRE(volume.ok());

  SUBCASE("bytes are rounded to whole blocks inside the range") {
    const auto trimmed = (*volume)->trim({50000 * kBlockSize + 1, 10 * kBlockSize, 0});
    REQUIRE(trimmed.ok());
    CHECK(*trimmed == 9 * kBlockSize);
    REQUIRE(discarded.size() == 1);
    CHECK(discarded[0].first == 50001);
    CHECK(discarded[0].end == 50010);
  }
  SUBCASE("a run over several pages of the map counts as one") {
    REQUIRE(
        (*volume)->trim({kBitsPerMapPage / 2 * kBlockSize, ~std::uint64_t{0}, 2 * kBitsPerMapPage * kBlockSize}).ok());
    REQUIRE(!discarded.empty());
    CHECK(discarded.back().end == end_of_data_blocks(kBlocks));
  }
  SUBCASE("shorter runs are left out") {
    const auto trimmed = (*volume)->trim({50000 * kBlockSize, 100 * kBlockSize, 101 * kBlockSize});
    REQUIRE(trimmed.ok());
    CHECK(*trimmed == 0);
    CHECK(discarded.empty());
  }
  SUBCASE("nothing of the volume, or less than a block") {
    CHECK((*volume)->trim({kBlocks * kBlockSize, kBlockSize, 0}).error().code() == ErrorCode::kInvalid);
    CHECK((*volume)->trim({~std::uint64_t{0}, ~std::uint64_t{0}, 0}).error().code() == ErrorCode::kInvalid);
    CHECK((*volume)->trim({0, kBlockSize - 1, 0}).error().code() == ErrorCode::kInvalid);
    CHECK((*volume)->trim({0, ~std::uint64_t{0}, kBlocks * kBlockSize + 1}).error().code() == ErrorCode::kInvalid);
    CHECK(discarded.empty());
  }
}

TEST_CASE("a trim of a volume that takes no changes, or on a device that cannot") {
  TestVolume test(8192);
  DiscardHook device(*test.device, [](Address, std::uint64_t) { return Error(ErrorCode::kUnsupported); });
  REQUIRE(test.volume->close().ok());
  {
    const auto volume = Volume::open(device, test.options);
    REQUIRE(volume.ok());
    CHECK((*volume)->trim({}).error().code() == ErrorCode::kUnsupported);
    test.volume = nullptr;
  }
  test.options.mode = VolumeMode::kReadOnly;
  test.open();
  CHECK(test.volume->trim({}).error().code() == ErrorCode::kReadOnly);
}

TEST_CASE("nobody runs out of space because of what a trim has set aside") {
  TestVolume test(2048);
  DiscardHook device(*test.device, [](Address, std::uint64_t) -> Status {
    std::this_thread::yield();
    return {};
  });
  REQUIRE(test.volume->close().ok());
  test.volume = Volume::open(device, test.options).value();
  // Fills the volume with one file, page by page; returns how many there was room for.
  const auto fill = [&] {
    const InodeNumber inode = test.make(kRootDirectory, "file");
    std::uint64_t pages = 0;
    while (test.write(inode, pages * kBlockSize, text_of(1, 'f')).ok()) ++pages;
    remove_file(test, inode, "file");
    settle(test);
    return pages;
  };
  fill();
  const std::uint64_t room = fill();
  REQUIRE(room > 1000);
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> trims{0};
  std::thread trimming([&] {
    for (; !done; ++trims) CHECK(test.volume->trim({}).ok());
  });
  for (int round = 0; round < 5; ++round) CHECK(fill() >= room);
  done = true;
  trimming.join();
  CHECK(trims > 0);
  test.volume = nullptr;
  CHECK(test.problems().empty());
}
