#include "common/checksum.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#if defined(__x86_64__)
// libxxhash's own choice of the widest vectors that the processor has; the inlined one takes what every processor has.
// Its header does not go with XXH_INLINE_ALL.
// NOLINTNEXTLINE(readability-identifier-naming): the name is the library's.
extern "C" std::uint64_t XXH3_64bits_dispatch(const void* input, std::size_t length);
#endif

namespace tarnfs {
namespace {

#if defined(__x86_64__)
// Up to here XXH3 uses no vectors.
constexpr std::size_t kShortBytes = 240;
#endif

}  // namespace

std::uint64_t checksum_of(std::span<const std::byte> bytes) {
#if defined(__x86_64__)
  if (bytes.size() > kShortBytes) return XXH3_64bits_dispatch(bytes.data(), bytes.size());
#endif
  return XXH3_64bits(bytes.data(), bytes.size());
}

std::uint64_t seeded_hash_of(std::span<const std::byte> bytes, std::uint64_t seed) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

}  // namespace tarnfs
