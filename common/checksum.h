// The checksum of blocks and records: XXH3, 64 bits. It finds damage, not malice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace tarnfs {

std::uint64_t checksum_of(std::span<const std::byte> bytes);

// The same with a seed; for hashing names with a volume's secret.
std::uint64_t seeded_hash_of(std::span<const std::byte> bytes, std::uint64_t seed);

}  // namespace tarnfs
