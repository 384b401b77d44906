// Buffers that are let go of are used again, and no two users have one at a time.
#include <doctest/doctest.h>

#include <cstring>
#include <optional>
#include <set>
#include <thread>

#include "common/buffer_pool.h"

using namespace tarnfs;

TEST_CASE("a buffer is used again when it was let go of, and only then") {
  BufferPool pool(1000, 2);
  auto first = pool.take();
  const auto second = pool.take();
  CHECK(first.get() != second.get());
  std::byte* const place = first.get();
  const std::shared_ptr<const void> other_reference = first;
  first.reset();
  auto third = pool.take();
  CHECK(third.get() != place);
  CHECK(third.get() != second.get());
}

TEST_CASE("so many are kept, and they outlive the pool") {
  std::optional<BufferPool> pool(std::in_place, 1000, 2);
  std::vector<std::shared_ptr<std::byte[]>> buffers;
  std::set<std::byte*> places;
  for (int i = 0; i < 5; ++i) places.insert(buffers.emplace_back(pool->take()).get());
  CHECK(places.size() == 5);
  buffers.clear();
  const auto again = pool->take();
  const auto once_more = pool->take();
  CHECK(places.contains(again.get()));
  CHECK(places.contains(once_more.get()));
  pool.reset();
  std::memset(again.get(), 1, 1000);
}

TEST_CASE("another thread may let go of a buffer") {
  BufferPool pool(64, 4);
  for (int i = 0; i < 1000; ++i) {
    auto buffer = pool.take();
    std::memset(buffer.get(), i, 64);
    std::thread([taken = std::move(buffer)] { CHECK(taken[0] == taken[63]); }).join();
  }
}
