// Which blocks something refers to: a set of addresses, sparse, so that it costs what is in use and not what the
// volume could hold.
//
// Invariants:
//   1. Chunk n holds the addresses [n * 32768, (n + 1) * 32768), which are the bits of page n of the free map: as a
//      sorted list while there are few, then as bits.
//
// Thread safety: none.
// Errors: none; memory is at most twice that of the bits alone, or four bytes an address.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "common/types.h"

namespace tarnfs::check {

inline constexpr std::uint64_t kBitsPerFreeMapPage = kBlockSize * 8;

class BlockUse {
 public:
  // Adds an address. False when it was in the set already.
  bool add(Address address);
  bool contains(Address address) const;
  std::uint64_t count() const { return count_; }
  // Writes the bits of chunk `index` as the free map has them.
  void expand(std::uint64_t index, std::span<std::byte, kBlockSize> bits) const;
  // The chunks that hold anything, in order.
  std::vector<std::uint64_t> chunk_indexes() const;

 private:
  static constexpr std::size_t kListMax = 1024;
  struct Chunk {
    std::vector<std::uint16_t> list;  // sorted; empty when `bits` is used
    std::vector<std::byte> bits;      // empty, or kBlockSize bytes
  };

  std::unordered_map<std::uint64_t, Chunk> chunks_;
  std::uint64_t count_ = 0;
};

}  // namespace tarnfs::check
