// The extended attributes of one inode: names and values, and the bytes they have in the attribute inode.
//
// The bytes, little-endian: an XattrHeader, then `count` entries, each an XattrEntryHeader with the name and the value
// right behind it, sorted by name without two equal ones. The inode's size is XattrHeader::size_bytes.
//
// Invariants:
//   1. A name has 1 to 255 bytes and no NUL; a value at most 64 KiB; names and values together at most 1 MiB; the names
//      with a NUL each at most 64 KiB, so that listxattr(2) can always tell them.
//   2. A function that returns an error has changed nothing.
//
// Thread safety: none of its own; guarded by the inode's lock.
// Ownership: owns copies of names and values.
// Errors: parse(): kCorrupt. The others say it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"
#include "fs/engine/file_system.h"

namespace tarnfs {

inline constexpr std::uint32_t kXattrMagic = 0x54415854;  // "TXAT" in bytes
inline constexpr std::size_t kXattrNameMaxBytes = 255;
inline constexpr std::size_t kXattrSetMaxBytes = std::size_t{1} << 20;
inline constexpr std::size_t kXattrListMaxBytes = std::size_t{1} << 16;

struct XattrHeader {
  std::uint32_t magic = kXattrMagic;
  std::uint32_t count = 0;
  std::uint32_t size_bytes = 0;  // of the whole set, this header included
  std::uint32_t reserved = 0;    // 0
};
static_assert(sizeof(XattrHeader) == 16 && offsetof(XattrHeader, size_bytes) == 8);

struct XattrEntryHeader {
  std::uint32_t value_bytes = 0;
  std::uint8_t name_bytes = 0;
  std::array<std::uint8_t, 3> reserved{};  // 0
};
static_assert(sizeof(XattrEntryHeader) == 8 && offsetof(XattrEntryHeader, name_bytes) == 4);

class XattrSet {
 public:
  static Result<XattrSet> parse(std::span<const std::byte> bytes);
  std::vector<std::byte> serialise() const;

  // kNoAttribute. The view is valid until the attribute changes.
  Result<std::string_view> get(std::string_view name) const;
  // kExists or kNoAttribute as `mode` asks; kInvalid and kRange for a bad name; kTooBig for the value; kNoSpace when
  // the set would become too large.
  Status set(std::string_view name, std::span<const std::byte> value, XattrMode mode);
  // kNoAttribute.
  Status remove(std::string_view name);

  std::vector<std::string> names() const;
  bool empty() const { return attributes_.empty(); }
  std::size_t count() const { return attributes_.size(); }
  // What serialise() gives.
  std::size_t serialised_bytes() const {
    return sizeof(XattrHeader) + count() * sizeof(XattrEntryHeader) + content_bytes_;
  }

 private:
  std::map<std::string, std::string, std::less<>> attributes_;
  std::size_t content_bytes_ = 0;  // names and values
  std::size_t list_bytes_ = 0;     // names with a NUL each
};

}  // namespace tarnfs
