// The checksum is XXH3-64 by its definition, whatever vectors the processor has: it stands in every pointer on disk.
#define XXH_INLINE_ALL
#include "common/checksum.h"

#include <doctest/doctest.h>
#include <xxhash.h>

#include <vector>

using namespace tarnfs;

TEST_CASE("bytes of every length have the checksum that the plain implementation gives") {
  std::vector<std::byte> bytes(5000);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * i + i / 7);
  for (std::size_t length = 0; length <= bytes.size(); ++length) {
    CAPTURE(length);
    REQUIRE(checksum_of(std::span(bytes).first(length)) == XXH3_64bits(bytes.data(), length));
  }
}

TEST_CASE("known checksums") {
  CHECK(checksum_of({}) == 0x2d06800538d394c2);
  // A block of zeroes.
  const std::vector<std::byte> zeroes(4096);
  CHECK(checksum_of(zeroes) == 0x93d76fe148c689ba);
}
