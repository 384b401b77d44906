// The seed of what is random in a test: another one each time, printed, and given again by TARNFS_TEST_SEED.
//
// Thread safety: may be called from any thread.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

namespace tarnfs::testing {

inline std::uint64_t printed_seed() {
  const char* const given = std::getenv("TARNFS_TEST_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::printf("seed %llu (TARNFS_TEST_SEED)\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  return seed;
}

}  // namespace tarnfs::testing
