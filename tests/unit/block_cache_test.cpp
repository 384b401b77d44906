// The cache of metadata: what it finds, what it gives up at its limit, and what it is told to forget.
#include "fs/storage/block_cache.h"

#include <doctest/doctest.h>

#include <random>
#include <unordered_map>

#include "common/checksum.h"
#include "tests/support/memory_block_device.h"
#include "tests/support/seed.h"

using namespace tarnfs;
using tarnfs::testing::MemoryBlockDevice;

namespace {

constexpr std::uint64_t kShards = 16;
constexpr std::uint64_t kPagesPerShard = 16;
constexpr std::uint64_t kLimitBytes = kShards * kPagesPerShard * kBlockSize;

PageRef page_with(std::uint64_t content) {
  return PageRef::copy_of(std::as_bytes(std::span(&content, 1)));
}

std::uint64_t content_of(const PageRef& page) {
  std::uint64_t content = 0;
  std::memcpy(&content, page.data(), sizeof content);
  return content;
}

BlockPointer pointer_to(std::uint64_t address, std::uint64_t content, std::uint64_t birth_cp = 1) {
  BlockPointer pointer;
  pointer.address = address;
  pointer.birth_cp = birth_cp;
  pointer.checksum = checksum_of(page_with(content).bytes());
  return pointer;
}

// Addresses that share a shard with address 0.
std::uint64_t address_in_first_shard(std::uint64_t number) {
  return number / 8 * 8 * kShards + number % 8;
}

}  // namespace

TEST_CASE("a block is found by its pointer, not by its address alone") {
  MemoryBlockDevice device(1024);
  BlockCache cache(device, kLimitBytes);
  cache.insert(pointer_to(100, 1), page_with(1));
  REQUIRE(cache.find(pointer_to(100, 1)));
  CHECK(content_of(cache.find(pointer_to(100, 1))) == 1);
  CHECK_FALSE(cache.find(pointer_to(100, 1, 2)));
  CHECK_FALSE(cache.find(pointer_to(100, 2)));
  CHECK_FALSE(cache.find(pointer_to(101, 1)));
  cache.insert(pointer_to(100, 2, 2), page_with(2));
  CHECK_FALSE(cache.find(pointer_to(100, 1)));
  CHECK(content_of(cache.find(pointer_to(100, 2, 2))) == 2);
  CHECK(cache.used_bytes() == kBlockSize);
}

TEST_CASE("a block that is not in memory is read once and verified") {
  MemoryBlockDevice device(1024);
  const PageRef page = page_with(7);
  REQUIRE(device.write(Address{50}, std::span(&page, 1)).ok());
  BlockCache cache(device, kLimitBytes);
  CHECK(content_of(cache.load(pointer_to(50, 7)).value()) == 7);
  CHECK(content_of(cache.load(pointer_to(50, 7)).value()) == 7);
  CHECK(device.reads() == 1);
  CHECK(cache.load(pointer_to(50, 8)).error().code() == ErrorCode::kCorrupt);
  CHECK_FALSE(cache.find(pointer_to(50, 8)));
}

TEST_CASE("at the limit the blocks stay that were asked for") {
  MemoryBlockDevice device(1024);
  BlockCache cache(device, kLimitBytes);
  const auto pointer = [](std::uint64_t number) { return pointer_to(address_in_first_shard(number + 8), number); };
  for (std::uint64_t n = 0; n < kPagesPerShard; ++n) cache.insert(pointer(n), page_with(n));
  CHECK(cache.used_bytes() == kPagesPerShard * kBlockSize);
  for (std::uint64_t n = 0; n < kPagesPerShard; n += 2) CHECK(cache.find(pointer(n)));
  for (std::uint64_t n = 0; n < kPagesPerShard / 2; ++n) {
    cache.insert(pointer(kPagesPerShard + n), page_with(kPagesPerShard + n));
  }
  CHECK(cache.used_bytes() == kPagesPerShard * kBlockSize);
  for (std::uint64_t n = 0; n < kPagesPerShard; ++n) {
    CAPTURE(n);
    CHECK(static_cast<bool>(cache.find(pointer(n))) == (n % 2 == 0));
  }
}

TEST_CASE("a block that replaces one in use outlives a round of those that nobody asked for") {
  MemoryBlockDevice device(1024);
  BlockCache cache(device, kLimitBytes);
  const auto pointer = [](std::uint64_t number) { return pointer_to(address_in_first_shard(number + 8), number); };
  for (std::uint64_t n = 0; n < kPagesPerShard; ++n) {
    const bool in_use = n % 4 == 0;
    cache.insert(pointer(n), page_with(n), in_use ? BlockCache::Use::kAskedFor : BlockCache::Use::kNotYet);
  }
  for (std::uint64_t n = kPagesPerShard; n < kPagesPerShard * 7 / 4; ++n) cache.insert(pointer(n), page_with(n));
  for (std::uint64_t n = 0; n < kPagesPerShard; ++n) {
    CAPTURE(n);
    CHECK(static_cast<bool>(cache.find(pointer(n))) == (n % 4 == 0));
  }
}

TEST_CASE("what is forgotten makes room") {
  MemoryBlockDevice device(1024);
  BlockCache cache(device, kLimitBytes);
  const auto pointer = [](std::uint64_t number) { return pointer_to(address_in_first_shard(number + 8), number); };
  for (std::uint64_t n = 0; n < kPagesPerShard; ++n) cache.insert(pointer(n), page_with(n));
  cache.forget(Address{pointer(3).address}, 1);
  cache.forget(Address{pointer(3).address}, 1);
  cache.forget(Address{1000}, 1);
  CHECK_FALSE(cache.find(pointer(3)));
  CHECK(cache.used_bytes() == (kPagesPerShard - 1) * kBlockSize);
  cache.insert(pointer(kPagesPerShard), page_with(kPagesPerShard));
  for (std::uint64_t n = 0; n <= kPagesPerShard; ++n) {
    CAPTURE(n);
    CHECK(static_cast<bool>(cache.find(pointer(n))) == (n != 3));
  }
}

TEST_CASE("it never finds anything else than what was put in") {
  std::mt19937_64 random(testing::printed_seed());
  MemoryBlockDevice device(1024);
  BlockCache cache(device, kLimitBytes);
  std::unordered_map<std::uint64_t, std::uint64_t> newest;  // address -> content
  for (std::uint64_t step = 0; step < 100'000; ++step) {
    const std::uint64_t address = 17 + random() % 1000;
    switch (random() % 4) {
      case 0:
        newest[address] = step;
        cache.insert(pointer_to(address, step), page_with(step));
        break;
      case 1:
        for (std::uint64_t gone = address; gone < address + step % 40; ++gone) newest.erase(gone);
        cache.forget(Address{address}, step % 40);
        break;
      default:
        const auto known = newest.find(address);
        const PageRef page = cache.find(pointer_to(address, known == newest.end() ? 0 : known->second));
        if (page) REQUIRE((known != newest.end() && content_of(page) == known->second));
    }
    REQUIRE(cache.used_bytes() <= kLimitBytes);
  }
}
