// What the checker keeps of every inode while it checks: 9 bytes each, so that ten million cost 90 MB.
//
// Invariants:
//   1. Inodes are added in ascending order of their numbers.
//   2. Directories are also in directories(), in ascending order, so that binary search finds them.
//
// Thread safety: none.
// Errors: none.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/format.h"
#include "common/types.h"

namespace tarnfs::check {

// The upper bits of a slot's state; the lower four are the file type (mode >> 12).
inline constexpr std::uint8_t kTypeBits = 0x0f;
inline constexpr std::uint8_t kTypeUnknown = 0x0f;   // in use with an impossible mode
inline constexpr std::uint8_t kIsAttributes = 0x10;  // an attribute inode
inline constexpr std::uint8_t kIsNamed = 0x20;       // a directory with an entry that names it
inline constexpr std::uint8_t kIsOrphan = 0x40;      // in the orphan file
inline constexpr std::uint8_t kIsUnreadable = 0x80;  // a directory of which not all pages could be read

inline constexpr std::uint8_t kTypeDirectory = 4;

struct InodeChunk {
  static constexpr std::size_t kInodes = 256;
  std::uint64_t first = 0;
  std::array<std::uint32_t, kInodes> link_count{};   // as the inode says
  std::array<std::uint32_t, kInodes> found_count{};  // entries that name it; of a directory, its subdirectories
  std::array<std::uint8_t, kInodes> state{};         // 0: not in use
};

// One inode of the table.
struct InodeSlot {
  InodeChunk* chunk = nullptr;  // null: not in use
  std::size_t index = 0;
  explicit operator bool() const { return chunk != nullptr; }
  std::uint32_t link_count() const { return chunk->link_count[index]; }
  std::uint32_t& found_count() const { return chunk->found_count[index]; }
  std::uint8_t& state() const { return chunk->state[index]; }
  std::uint8_t type() const { return state() & kTypeBits; }
  bool has(std::uint8_t flag) const { return (state() & flag) != 0; }
};

struct DirectoryInfo {
  std::uint64_t number = 0;
  std::uint64_t parent = 0;  // as the inode says
};

class InodeTable {
 public:
  // `state` is the type and flags, not 0. Directories give their parent.
  void add(std::uint64_t number, std::uint32_t link_count, std::uint8_t state, std::uint64_t parent);
  InodeSlot find(std::uint64_t number) const;
  std::vector<DirectoryInfo>& directories() { return directories_; }
  // The position in directories(), or its size when there is none.
  std::size_t find_directory(std::uint64_t number) const;

  template <class Visit>
  void for_each(Visit visit) const {
    for (const auto& chunk : chunks_) {
      for (std::size_t i = 0; i < InodeChunk::kInodes; ++i) {
        if (chunk->state[i] != 0) visit(chunk->first + i, InodeSlot{chunk.get(), i});
      }
    }
  }

 private:
  std::vector<std::unique_ptr<InodeChunk>> chunks_;  // ascending
  std::vector<DirectoryInfo> directories_;
};

// Ranges of numbers (inodes, pages) about which nothing is known, because their blocks could not be read. Added in
// ascending order.
class LostRanges {
 public:
  void add(std::uint64_t first, std::uint64_t count);
  bool contains(std::uint64_t number) const;
  bool empty() const { return ranges_.empty(); }

 private:
  struct Range {
    std::uint64_t first;
    std::uint64_t end;
  };
  std::vector<Range> ranges_;
};

}  // namespace tarnfs::check
