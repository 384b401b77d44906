// What a generation changed in a file, by page: against the standard library's map.
#include "fs/tree/page_map.h"

#include <doctest/doctest.h>

#include <map>
#include <random>

#include "common/result.h"
#include "tests/support/seed.h"

using namespace tarnfs;

namespace {

constexpr std::uint64_t kGroup = 128;

void check_same(const PageMap& pages, const std::map<std::uint64_t, const std::byte*>& model) {
  REQUIRE(pages.size() == model.size());
  REQUIRE(pages.empty() == model.empty());
  auto expected = model.begin();
  const Status walked = pages.for_each([&](std::uint64_t index, const PageRef& page) -> Status {
    REQUIRE(expected != model.end());
    REQUIRE(expected->first == index);
    REQUIRE(expected->second == page.data());
    ++expected;
    return {};
  });
  REQUIRE(walked.ok());
  REQUIRE(expected == model.end());
}

}  // namespace

TEST_CASE("it has what was put in and not erased, in order") {
  std::mt19937_64 random(testing::printed_seed());
  for (int round = 0; round < 20; ++round) {
    const std::uint64_t range = std::uint64_t{64} << (round % 5 * 3);
    PageMap pages;
    std::map<std::uint64_t, const std::byte*> model;
    for (int step = 0; step < 400; ++step) {
      const std::uint64_t index = random() % range;
      if (random() % 8 != 0) {
        PageRef page = PageRef::uninitialised();
        const std::byte* const data = page.data();
        REQUIRE(pages.put(index, std::move(page)) == !model.contains(index));
        model[index] = data;
      } else {
        const std::uint64_t end = index + 1 + random() % (range / 8);
        const std::size_t before = model.size();
        model.erase(model.lower_bound(index), model.lower_bound(end));
        REQUIRE(pages.erase(index, end) == before - model.size());
      }
      const std::uint64_t looked_at = random() % range;
      const PageRef* const found = pages.find(looked_at);
      REQUIRE((found != nullptr) == model.contains(looked_at));
      const auto next = model.lower_bound(looked_at);
      REQUIRE(pages.next(looked_at) == (next == model.end() ? std::nullopt : std::optional(next->first)));
      const std::uint64_t group = looked_at / kGroup * kGroup;
      const auto in_group = model.lower_bound(group);
      const bool any = in_group != model.end() && in_group->first < group + kGroup;
      REQUIRE(pages.any_chunk_in(group, group + kGroup) == any);
    }
    check_same(pages, model);
    REQUIRE(pages.erase(0, ~std::uint64_t{0}) == model.size());
    check_same(pages, {});
  }
}
