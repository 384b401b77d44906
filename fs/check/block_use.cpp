#include "fs/check/block_use.h"

#include <algorithm>

namespace tarnfs::check {
namespace {

std::byte mask_of(std::uint16_t bit) {
  return std::byte{1} << (bit % 8);
}

void set_bits(const std::vector<std::uint16_t>& list, std::span<std::byte> bits) {
  for (const std::uint16_t bit : list) bits[bit / 8] |= mask_of(bit);
}

}  // namespace

bool BlockUse::add(Address address) {
  Chunk& chunk = chunks_[address.value / kBitsPerFreeMapPage];
  const auto bit = static_cast<std::uint16_t>(address.value % kBitsPerFreeMapPage);
  if (!chunk.bits.empty()) {
    std::byte& byte = chunk.bits[bit / 8];
    if ((byte & mask_of(bit)) != std::byte{0}) return false;
    byte |= mask_of(bit);
    ++count_;
    return true;
  }
  const auto place = std::lower_bound(chunk.list.begin(), chunk.list.end(), bit);
  if (place != chunk.list.end() && *place == bit) return false;
  chunk.list.insert(place, bit);
  ++count_;
  if (chunk.list.size() > kListMax) {
    chunk.bits.resize(kBlockSize);
    set_bits(chunk.list, chunk.bits);
    std::vector<std::uint16_t>().swap(chunk.list);
  }
  return true;
}

bool BlockUse::contains(Address address) const {
  const auto found = chunks_.find(address.value / kBitsPerFreeMapPage);
  if (found == chunks_.end()) return false;
  const Chunk& chunk = found->second;
  const auto bit = static_cast<std::uint16_t>(address.value % kBitsPerFreeMapPage);
  if (!chunk.bits.empty()) return (chunk.bits[bit / 8] & mask_of(bit)) != std::byte{0};
  return std::binary_search(chunk.list.begin(), chunk.list.end(), bit);
}

void BlockUse::expand(std::uint64_t index, std::span<std::byte, kBlockSize> bits) const {
  std::fill(bits.begin(), bits.end(), std::byte{0});
  const auto found = chunks_.find(index);
  if (found == chunks_.end()) return;
  if (found->second.bits.empty()) {
    set_bits(found->second.list, bits);
  } else {
    std::copy(found->second.bits.begin(), found->second.bits.end(), bits.begin());
  }
}

std::vector<std::uint64_t> BlockUse::chunk_indexes() const {
  std::vector<std::uint64_t> indexes;
  indexes.reserve(chunks_.size());
  for (const auto& [index, chunk] : chunks_) indexes.push_back(index);
  std::sort(indexes.begin(), indexes.end());
  return indexes;
}

}  // namespace tarnfs::check
