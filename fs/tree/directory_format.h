// The bytes of a directory file: a B+tree by name hash in pages of 4 KiB.
//
// A directory inode's size is page_count * 4096. An empty directory has no pages. "." and ".." are not stored: the
// first is the inode itself, the second is InodeRecord::parent. All numbers are little-endian.
//
//   Key.    A name's hash is the upper 56 bits of XXH3 of its bytes, seeded with Superblock::name_hash_seed; 0
//   becomes 1.
//           An entry's key is hash << 7 | sequence, so 128 <= key < 2^63. Names of equal hash have different sequences;
//           a new one takes the smallest that is free. The key never changes while the name exists: it is the cookie of
//           readdir, where 0 means the start, 1 after ".", 2 after "..".
//   Page.   A DirectoryPageHeader, then slots sorted by key without gap. Every page has at least one slot. Bytes that
//           belong to no slot and no record are written as zero and ignored when read.
//   Leaf.   type 1, level 0. Slot i is a LeafSlot at 16 + 12 * i. Its record is at record_offset: a LeafRecord (the
//           inode) and right behind it name_bytes bytes of name (1 to 255; no NUL and no '/'; not "." and "..").
//           Records do not overlap and lie in the heap, which goes from heap_start to the end of the page.
//           heap_live_bytes is the sum of their sizes; the rest of the heap is waste that a compaction gives back. Keys
//           grow strictly.
//   Index.  type 2, level >= 1. Slot i is an IndexSlot at 16 + 16 * i; heap_start and heap_live_bytes are 0. The child
//           is a page of level - 1. The key of slot 0 is 0 and not used; those of the others grow strictly. A page has
//           a range of keys [low, high), [0, 2^63) for the root. Child i has the range [key i or low when i is 0, key i
//           + 1 or high when it is the last); every key in a page lies in its range, and those of an index page (but
//           slot 0's) are above low. Entries of one hash may spread over neighbouring leaves.
//   Tree.   Page 0 is the root: a leaf as long as all entries fit. A child's page index is above 0 and below the page
//           count, and every page but the root is the child of exactly one slot. Pages that are no part of the tree are
//           holes. A page index is not used a second time until the directory was empty.
//           The height (the root's level + 1) is at most directory_height_max(page count).
//
// Thread safety: constants and plain values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "common/checksum.h"
#include "common/types.h"

namespace tarnfs {

inline constexpr std::uint32_t kDirectoryMagic = 0x52494454;  // "TDIR" in bytes
inline constexpr std::uint8_t kDirectoryLeaf = 1;
inline constexpr std::uint8_t kDirectoryIndex = 2;

struct DirectoryPageHeader {
  std::uint32_t magic = kDirectoryMagic;
  std::uint8_t type = 0;   // kDirectoryLeaf or kDirectoryIndex
  std::uint8_t level = 0;  // 0 for leaves; of an index page, one more than its children's
  std::uint16_t count = 0;
  std::uint16_t heap_start = 0;       // leaf: offset of the heap in the page, at most 4096
  std::uint16_t heap_live_bytes = 0;  // leaf: bytes of the heap that records use
  std::uint32_t reserved = 0;         // 0
};
static_assert(sizeof(DirectoryPageHeader) == 16 && offsetof(DirectoryPageHeader, level) == 5);
static_assert(offsetof(DirectoryPageHeader, count) == 6 && offsetof(DirectoryPageHeader, heap_live_bytes) == 10);

struct [[gnu::packed]] LeafSlot {
  std::uint64_t key = 0;
  std::uint16_t record_offset = 0;  // in the page
  std::uint8_t name_bytes = 0;
  std::uint8_t type = 0;  // the file type of the mode: mode >> 12, as in d_type
};
static_assert(sizeof(LeafSlot) == 12 && offsetof(LeafSlot, record_offset) == 8 && offsetof(LeafSlot, type) == 11);

struct [[gnu::packed]] LeafRecord {
  std::uint64_t inode = 0;  // not 0
};
static_assert(sizeof(LeafRecord) == 8);

struct IndexSlot {
  std::uint64_t key = 0;
  std::uint64_t child = 0;  // page index
};
static_assert(sizeof(IndexSlot) == 16);

inline constexpr std::size_t kDirectoryBodyBytes = kBlockSize - sizeof(DirectoryPageHeader);
inline constexpr std::size_t kIndexSlotsMax = kDirectoryBodyBytes / sizeof(IndexSlot);
static_assert(kIndexSlotsMax == 255);
inline constexpr std::size_t kDirectoryNameMaxBytes = 255;

inline constexpr unsigned kSequenceBits = 7;
inline constexpr std::uint64_t kSequencesPerHash = std::uint64_t{1} << kSequenceBits;
inline constexpr std::uint64_t kDirectoryKeyMin = kSequencesPerHash;
inline constexpr std::uint64_t kDirectoryKeyEnd = std::uint64_t{1} << 63;
inline constexpr std::uint64_t kDirectoryPagesMax = std::uint64_t{1} << 50;

// The hash of a name: 1 to 2^56 - 1.
inline std::uint64_t name_hash_of(std::string_view name, std::uint64_t seed) {
  const std::uint64_t hash = seeded_hash_of(std::as_bytes(std::span(name.data(), name.size())), seed) >> 8;
  return hash == 0 ? 1 : hash;
}

constexpr std::uint64_t first_key_of(std::uint64_t name_hash) {
  return name_hash << kSequenceBits;
}
constexpr std::uint64_t last_key_of(std::uint64_t name_hash) {
  return first_key_of(name_hash) | (kSequencesPerHash - 1);
}

// The greatest height that the tree of a directory with this many pages can have, holes counted. A root splits when it
// has 255 children. At every level above, a page splits only when it is full, which takes at least 63 splits below it
// since the one before, merges of pages under a quarter included; 32 leaves a margin.
constexpr unsigned directory_height_max(std::uint64_t page_count) {
  if (page_count <= 1) return 1;
  if (page_count > kDirectoryPagesMax) page_count = kDirectoryPagesMax;
  unsigned height = 2;
  for (std::uint64_t pages = kIndexSlotsMax; pages <= page_count; pages *= 32) ++height;
  return height;
}
inline constexpr unsigned kDirectoryHeightMax = directory_height_max(kDirectoryPagesMax);
static_assert(kDirectoryHeightMax <= 12);

}  // namespace tarnfs
