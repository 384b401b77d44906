// Strong types for the numbers that must not be mixed up.
//
// Thread safety: plain values.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace tarnfs {

inline constexpr std::size_t kBlockSize = 4096;
inline constexpr unsigned kBlockShift = 12;

// A block's index in the image.
struct Address {
  std::uint64_t value = 0;
  auto operator<=>(const Address&) const = default;
};

// An inode's index in the inode file. Never reused.
struct InodeNumber {
  std::uint64_t value = 0;
  auto operator<=>(const InodeNumber&) const = default;
};

// A consistency point's number. Counts upwards from 1; 0 is "none".
struct Cp {
  std::uint64_t value = 0;
  auto operator<=>(const Cp&) const = default;
};

// 128 bits that name something for ever.
struct Id128 {
  std::array<std::uint8_t, 16> bytes{};
  auto operator<=>(const Id128&) const = default;
  bool is_zero() const { return *this == Id128{}; }
  // 8-4-4-4-12 hexadecimal digits.
  std::string to_string() const;
};

// Names a volume.
struct VolumeId : Id128 {
  auto operator<=>(const VolumeId&) const = default;
};

// The reign of one writer.
struct Epoch : Id128 {
  auto operator<=>(const Epoch&) const = default;
};

// A point in time: seconds since 1970 (negative before) and nanoseconds within the second.
struct Timestamp {
  std::int64_t seconds = 0;
  std::uint32_t nanoseconds = 0;
  auto operator<=>(const Timestamp&) const = default;
};

// (volume, epoch, cp, root checksum): what names a state of a volume.
struct StateName {
  VolumeId volume;
  Epoch epoch;
  Cp cp;
  std::uint64_t root_checksum = 0;
  auto operator<=>(const StateName&) const = default;
};

}  // namespace tarnfs

template <>
struct std::hash<tarnfs::Address> {
  std::size_t operator()(tarnfs::Address a) const noexcept { return a.value * 0x9e3779b97f4a7c15ULL; }
};
template <>
struct std::hash<tarnfs::InodeNumber> {
  std::size_t operator()(tarnfs::InodeNumber n) const noexcept { return n.value * 0x9e3779b97f4a7c15ULL; }
};
