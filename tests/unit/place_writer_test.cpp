// A batch that two threads write is in its places as if one had written it.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdio>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "mirror/receiver/place_writer.h"
#include "tests/support/memory_block_device.h"

using namespace tarnfs;
using namespace tarnfs::testing;

namespace {

constexpr std::uint64_t kSizeBlocks = 4096;

PageRef page_of_number(std::uint64_t number) {
  return PageRef::copy_of(std::as_bytes(std::span(&number, 1)));
}

// Counts who writes, and fails at one address.
class WatchedDevice final : public BlockDevice {
 public:
  explicit WatchedDevice(Address failing = {}) : failing_(failing) {}

  std::string name() const override { return "watched"; }
  std::uint64_t size_blocks() const override { return kSizeBlocks; }
  Status read(Address first, std::span<std::byte> out) override { return memory.read(first, out); }
  Status write(Address first, std::span<const PageRef> pages) override {
    const Inside inside(*this);
    {
      MutexLock lock(mutex_);
      threads_.insert(std::this_thread::get_id());
    }
    const bool fails = first.value <= failing_.value && failing_.value < first.value + pages.size();
    if (fails) return Error(ErrorCode::kIo, "block " + std::to_string(failing_.value));
    return memory.write(first, pages);
  }
  Status flush() override { return memory.flush(); }

  std::size_t thread_count() const {
    MutexLock lock(mutex_);
    return threads_.size();
  }
  int inside_count() const { return inside_; }

  MemoryBlockDevice memory{kSizeBlocks};

 private:
  struct Inside {
    explicit Inside(WatchedDevice& of) : device(of) { ++device.inside_; }
    ~Inside() { --device.inside_; }
    WatchedDevice& device;
  };

  const Address failing_;
  std::atomic<int> inside_{0};
  mutable Mutex mutex_;
  std::set<std::thread::id> threads_ TARNFS_GUARDED_BY(mutex_);
};

std::vector<BlockWrite> blocks_from(std::uint64_t first, std::uint64_t count) {
  std::vector<BlockWrite> blocks;
  for (std::uint64_t i = first; i < first + count; ++i) blocks.push_back({Address{i}, 0, page_of_number(i)});
  return blocks;
}

}  // namespace

TEST_CASE("every block is in its place, and of two contents for one the later one") {
  const std::uint64_t seed = std::random_device{}();
  std::printf("place writer: seed %llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  MemoryBlockDevice device(kSizeBlocks);
  PlaceWriter writer;
  std::map<std::uint64_t, std::uint64_t> expected;
  std::uint64_t number = 0;
  for (int batch = 0; batch < 300; ++batch) {
    std::vector<BlockWrite> blocks;
    const std::uint64_t count = 1 + random() % 256;
    const std::uint64_t range = 1 + random() % (random() % 2 == 0 ? 50 : kSizeBlocks - 1);
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t address = random() % range;
      expected[address] = ++number;
      blocks.push_back({Address{address}, 0, page_of_number(number)});
    }
    REQUIRE(writer.write(device, blocks).ok());
  }
  for (const auto& [address, content] : expected) {
    PageRef page = PageRef::uninitialised();
    REQUIRE(device.read(Address{address}, page.mutable_bytes()).ok());
    const PageRef wanted = page_of_number(content);
    CHECK(std::memcmp(page.data(), wanted.data(), kBlockSize) == 0);
  }
}

TEST_CASE("two threads write a large batch, one a small one") {
  PlaceWriter writer;
  WatchedDevice few;
  auto blocks = blocks_from(100, 8);
  REQUIRE(writer.write(few, blocks).ok());
  CHECK(few.thread_count() == 1);
  WatchedDevice many;
  blocks = blocks_from(100, 256);
  REQUIRE(writer.write(many, blocks).ok());
  CHECK(many.thread_count() == 2);
}

TEST_CASE("a failure of either half is told, when the other one has ended; the next batch is written") {
  PlaceWriter writer;
  for (const std::uint64_t failing : {100, 227, 228, 355}) {
    CAPTURE(failing);
    WatchedDevice device(Address{failing});
    auto blocks = blocks_from(100, 256);
    const Status status = writer.write(device, blocks);
    CHECK(device.inside_count() == 0);
    CHECK(status.error().message() == "block " + std::to_string(failing));
    blocks = blocks_from(1000, 256);
    CHECK(writer.write(device, blocks).ok());
  }
}
