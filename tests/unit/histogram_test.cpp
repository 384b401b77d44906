#include "common/histogram.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <thread>
#include <vector>

#include "tests/support/seed.h"

using namespace tarnfs;

TEST_CASE("an empty histogram, and one of zeros") {
  Histogram histogram;
  CHECK(histogram.count() == 0);
  CHECK(histogram.percentile_ns(999) == 0);
  CHECK(histogram.summary().longest_ns == 0);
  for (int i = 0; i < 10; ++i) histogram.add(0);
  CHECK(histogram.count() == 10);
  CHECK(histogram.summary().waited_count == 0);
  CHECK(histogram.percentile_ns(1000) == 0);
}

TEST_CASE("one value in a thousand is above the 99.9th percentile, two are not") {
  Histogram histogram;
  for (int i = 0; i < 999; ++i) histogram.add(0);
  histogram.add(7'000'000);
  CHECK(histogram.percentile_ns(999) == 0);
  CHECK(histogram.percentile_ns(1000) == 7'000'000);
  histogram.add(7'000'000);
  CHECK(histogram.percentile_ns(999) == 7'000'000);
  const WaitSummary summary = histogram.summary();
  CHECK(summary.count == 1001);
  CHECK(summary.waited_count == 2);
  CHECK(summary.p50_ns == 0);
  CHECK(summary.p99_ns == 0);
  CHECK(summary.longest_ns == 7'000'000);
}

TEST_CASE("a percentile is not below the true value and at most a quarter above") {
  std::mt19937_64 random(testing::printed_seed());
  for (int round = 0; round < 50; ++round) {
    Histogram histogram;
    std::vector<std::uint64_t> values;
    for (int i = 0; i < 1000; ++i) {
      values.push_back(random() >> (random() % 64));
      histogram.add(values.back());
    }
    std::sort(values.begin(), values.end());
    for (const unsigned part : {1U, 500U, 900U, 990U, 1000U}) {
      const std::uint64_t exact = values[part - 1];
      const std::uint64_t told = histogram.percentile_ns(part);
      CHECK(told >= exact);
      CHECK(static_cast<double>(told) <= static_cast<double>(exact) * 1.25);
    }
    CHECK(histogram.longest_ns() == values.back());
  }
}

TEST_CASE("the smallest and the largest values") {
  for (const std::uint64_t value : {std::uint64_t{1}, std::uint64_t{3}, std::uint64_t{4}, ~std::uint64_t{0}}) {
    Histogram histogram;
    histogram.add(value);
    CHECK(histogram.count() == 1);
    CHECK(histogram.summary().waited_count == 1);
    CHECK(histogram.percentile_ns(500) == value);
  }
}

TEST_CASE("what many threads add is all there") {
  Histogram histogram;
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint64_t i = 0; i < 10'000; ++i) histogram.add(i % 2 * (t * 10'000 + i));
    });
  }
  for (std::thread& thread : threads) thread.join();
  const WaitSummary summary = histogram.summary();
  CHECK(summary.count == 40'000);
  CHECK(summary.waited_count == 20'000);
  CHECK(summary.longest_ns == 39'999);
}
