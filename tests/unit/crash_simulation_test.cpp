// Cuts the power of a volume at every event of its disk: what fsync promised is there, and the rest is legal.
//
// TARNFS_CRASH_STATES          how many states (default 3000)
// TARNFS_TEST_FULL             200,000 states when TARNFS_CRASH_STATES asks for 20,000
// TARNFS_TEST_SEED             the seed of what is random (default: another one each time)
// TARNFS_CRASH_REPLAY          "seed:workload:state", as a violation prints it: runs that state alone
// TARNFS_CRASH_EXPECT_VIOLATION  a bug was planted: passes only when it is found within 2,000 states
#include <doctest/doctest.h>

#include <chrono>
#include <cstdlib>
#include <random>

#include "common/log.h"
#include "tests/support/crash_simulation.h"
#include "tests/support/seed.h"
#include "tests/support/thread_sanitizer.h"

using tarnfs::testing::CrashSimulation;

namespace {

constexpr std::uint64_t kStatesDefault = 3000 / tarnfs::testing::kOneRoundOf;
constexpr std::uint64_t kStatesCi = 20'000;
constexpr std::uint64_t kStatesFull = 200'000;
constexpr std::uint64_t kStatesForPlantedBug = 2000;

std::uint64_t number_from_environment(const char* name, std::uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

std::uint64_t states_wanted() {
  if (std::getenv("TARNFS_CRASH_EXPECT_VIOLATION") != nullptr) return kStatesForPlantedBug;
  const std::uint64_t states = number_from_environment("TARNFS_CRASH_STATES", kStatesDefault);
  return states == kStatesCi && std::getenv("TARNFS_TEST_FULL") != nullptr ? kStatesFull : states;
}

}  // namespace

TEST_CASE("after a power cut at any moment a volume holds what was promised") {
  if (std::getenv("TARNFS_CRASH_REPLAY") != nullptr) return;
  const std::uint64_t seed = tarnfs::testing::printed_seed();
  const std::uint64_t states = states_wanted();
  std::printf("crash simulation: %llu states wanted\n", static_cast<unsigned long long>(states));
  std::fflush(stdout);
  // Thousands of recoveries and, where a bug is planted, damaged volumes.
  tarnfs::open_log(tarnfs::LogTarget::kNowhere, "crash_simulation_test");
  CrashSimulation simulation(seed);
  const auto started = std::chrono::steady_clock::now();
  const std::string violation = simulation.simulate(states);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  const auto& counts = simulation.counts();
  std::printf(
      "%llu distinct states checked (%llu of them after a recovery) of %llu workloads, %llu duplicates, %.1f s, "
      "%.0f states/s\n",
      static_cast<unsigned long long>(counts.states), static_cast<unsigned long long>(counts.states_after_recovery),
      static_cast<unsigned long long>(counts.workloads), static_cast<unsigned long long>(counts.duplicates), seconds,
      static_cast<double>(counts.states) / seconds);
  if (std::getenv("TARNFS_CRASH_EXPECT_VIOLATION") != nullptr) {
    std::printf("the planted bug was %s\n%s", violation.empty() ? "NOT found" : "found:", violation.c_str());
    CHECK_FALSE(violation.empty());
    return;
  }
  CHECK_MESSAGE(violation.empty(), violation);
  CHECK(counts.states >= states);
}

TEST_CASE("one state again") {
  const char* const text = std::getenv("TARNFS_CRASH_REPLAY");
  if (text == nullptr) return;
  char* rest = nullptr;
  const std::uint64_t seed = std::strtoull(text, &rest, 10);
  REQUIRE_MESSAGE(*rest == ':', "TARNFS_CRASH_REPLAY is seed:workload:state");
  CrashSimulation simulation(seed);
  const std::string violation = simulation.replay(rest + 1);
  CHECK_MESSAGE(violation.empty(), violation);
}
