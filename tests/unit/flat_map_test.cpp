// The hash map in one array: against the standard library's, and with keys that a bad hash would pile up.
#include "common/flat_map.h"
#include "tests/support/seed.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <unordered_map>

using namespace tarnfs;

TEST_CASE("it has what was put in and not erased") {
  std::mt19937_64 random(testing::printed_seed());
  FlatMap<std::uint64_t> map;
  std::unordered_map<std::uint64_t, std::uint64_t> model;
  for (std::uint64_t step = 0; step < 200'000; ++step) {
    // It grows and shrinks in turn.
    const bool growing = step / 20'000 % 2 == 0;
    const std::uint64_t key = 1 + random() % 8000 * 64;
    if (random() % 4 < (growing ? 2 : 1)) {
      const auto [value, added] = map.put(key);
      REQUIRE(added == !model.contains(key));
      if (!added) REQUIRE(*value == model.at(key));
      *value = model[key] = step;
    } else if (random() % 4 != 0) {
      REQUIRE(map.erase(key) == (model.erase(key) > 0));
    }
    const std::uint64_t* const found = map.find(key);
    REQUIRE((found != nullptr) == model.contains(key));
    if (found != nullptr) REQUIRE(*found == model.at(key));
    REQUIRE(map.size() == model.size());
  }
  std::size_t seen = 0;
  for (std::size_t i = 0; i < map.slot_count(); ++i) {
    if (map.slot_at(i).key == 0) continue;
    CHECK(model.at(map.slot_at(i).key) == map.slot_at(i).value);
    ++seen;
  }
  CHECK(seen == model.size());
}

TEST_CASE("what is erased is let go, and the memory follows") {
  FlatMap<std::shared_ptr<int>> map;
  const auto shared = std::make_shared<int>(1);
  for (std::uint64_t key = 1; key <= 10'000; ++key) *map.put(key).first = shared;
  CHECK(shared.use_count() == 10'001);
  const std::size_t slots_max = map.slot_count();
  CHECK(slots_max <= 16384 * 2);
  for (std::uint64_t key = 1; key <= 9'990; ++key) REQUIRE(map.erase(key));
  CHECK(shared.use_count() == 11);
  CHECK(map.slot_count() <= 128);
  map.clear();
  CHECK(shared.use_count() == 1);
  CHECK(map.size() == 0);
  CHECK(map.find(5) == nullptr);
  CHECK_FALSE(map.erase(5));
  map.put(5);
  CHECK(map.find(0) == nullptr);
  CHECK_FALSE(map.erase(0));
}

TEST_CASE("keys at distances of powers of two do not pile up") {
  for (unsigned shift = 0; shift < 48; ++shift) {
    FlatMap<int> map;
    for (std::uint64_t n = 1; n <= 4096; ++n) map.put(n << shift);
    std::size_t longest = 0;
    std::size_t run = 0;
    for (std::size_t i = 0; i < map.slot_count(); ++i) {
      run = map.slot_at(i).key == 0 ? 0 : run + 1;
      longest = std::max(longest, run);
    }
    CAPTURE(shift);
    CHECK(longest < 256);
  }
}
