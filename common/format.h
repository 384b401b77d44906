// The fixed structures on disk: superblock, root block, inode record, block pointer. FORMAT.md says every bit.
//
// Purpose: encode and check them. Everything is little-endian, and the structs are the bytes on disk; static_asserts
// hold sizes and offsets.
//
// Invariants:
//   1. Nothing read from disk is used before check_superblock() or check_root_block() accepted it, or before the
//      pointer's checksum was verified for other blocks.
//   2. Address 0 is the superblock, so a pointer with address 0 is "no block": a hole.
//
// Thread safety: plain functions on values.
// Errors: kCorrupt, or kIncompatible for a newer format, each with the image's name in front.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "common/block_device.h"
#include "common/result.h"
#include "common/types.h"

namespace tarnfs {

static_assert(std::endian::native == std::endian::little, "the structures on disk are little-endian");

inline constexpr std::uint32_t kFormatVersion = 4;
// Is read, and written on as kFormatVersion: it has no reserve.
inline constexpr std::uint32_t kFormatVersionOldest = 3;
inline constexpr std::uint64_t kSuperblockMagic = 0x315346'4e524154ULL;  // "TARNFS1" in bytes
inline constexpr std::uint64_t kRootMagic = 0x544f4f52'4e524154ULL;      // "TARNROOT" in bytes
inline constexpr std::uint64_t kRootSlotsPerEnd = 16;
inline constexpr std::uint64_t kRootSlots = 2 * kRootSlotsPerEnd;
inline constexpr std::uint64_t kVolumeBlocksMin = 1024;                    // 4 MiB
inline constexpr std::uint64_t kVolumeBlocksMax = std::uint64_t{1} << 40;  // 4 PiB
inline constexpr std::uint64_t kJournalBlocksMin = 64;
inline constexpr std::uint64_t kJournalBlocksMax = 16384;  // 64 MiB
inline constexpr std::size_t kPointersPerNode = 128;
inline constexpr unsigned kNodeShift = 7;
inline constexpr std::size_t kPointersPerInode = 4;
inline constexpr unsigned kTreeHeightMax = 7;  // 4 * 128^7 blocks: beyond 2^51
inline constexpr std::size_t kInodesPerBlock = 16;
inline constexpr std::uint64_t kFileSizeMaxBytes = (std::uint64_t{1} << 62);
inline constexpr std::size_t kHistoryMax = 64;
inline constexpr std::size_t kInlineSymlinkMaxBytes = kPointersPerInode * 32;

inline constexpr InodeNumber kRootDirectory{1};
inline constexpr InodeNumber kOrphanFile{2};
inline constexpr InodeNumber kShareFile{3};
inline constexpr InodeNumber kFirstFreeInode{16};

// BlockPointer::flags of a hole: space is kept for all data blocks below the pointer, and for the nodes above them.
inline constexpr std::uint32_t kPointerReserved = 1;

// Where a block is, when it was written, and what it must contain.
struct BlockPointer {
  std::uint64_t address = 0;   // 0: a hole
  std::uint64_t birth_cp = 0;  // the consistency point that wrote it
  std::uint64_t checksum = 0;  // XXH3 of its 4096 bytes
  std::uint32_t flags = 0;     // 0, or kPointerReserved; room for compression
  std::uint32_t reserved = 0;  // 0
  bool is_hole() const { return address == 0; }
  bool is_reserved() const { return is_hole() && (flags & kPointerReserved) != 0; }
  static BlockPointer reserved_hole() { return BlockPointer{.flags = kPointerReserved}; }
  bool operator==(const BlockPointer&) const = default;
};
static_assert(sizeof(BlockPointer) == 32);

// An indirect block.
using TreeNode = std::array<BlockPointer, kPointersPerNode>;
static_assert(sizeof(TreeNode) == kBlockSize);

inline constexpr std::uint8_t kInodeInlineTarget = 1;  // InodeRecord::layout: a symlink's target is in `pointers`

// InodeRecord::flags: the inode is the content of another's extended attributes; its `parent` names that owner.
inline constexpr std::uint32_t kInodeFlagAttributes = 0x80000000U;
// FS_IMMUTABLE_FL and FS_APPEND_FL: what an open for writing must ask for.
inline constexpr std::uint32_t kProtectingFlags = 0x30U;

struct InodeRecord {
  std::uint32_t mode = 0;  // 0: the slot is free
  std::uint32_t link_count = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint64_t size_bytes = 0;
  std::uint64_t block_count = 0;  // data blocks and nodes of the tree
  std::int64_t atime_seconds = 0;
  std::int64_t mtime_seconds = 0;
  std::int64_t ctime_seconds = 0;
  std::int64_t btime_seconds = 0;
  std::uint32_t atime_nanoseconds = 0;
  std::uint32_t mtime_nanoseconds = 0;
  std::uint32_t ctime_nanoseconds = 0;
  std::uint32_t btime_nanoseconds = 0;
  std::uint32_t flags = 0;        // FS_IMMUTABLE_FL, FS_APPEND_FL, FS_NOATIME_FL, FS_NODUMP_FL as in linux/fs.h
  std::uint32_t device = 0;       // device files: major << 20 | minor
  std::uint64_t xattr_inode = 0;  // the inode whose content is the extended attributes; 0: none
  std::uint64_t parent = 0;       // directories: the directory that names this one; the root names itself
  std::uint8_t height = 0;        // levels of nodes between `pointers` and the data
  std::uint8_t layout = 0;        // 0 a block tree, or kInodeInlineTarget
  std::uint16_t reserve_low = 0;  // regular files: a number of 48 bits, how many blocks are kept for it
  std::uint32_t reserve_high = 0;
  std::uint64_t entry_count = 0;  // directories: names in it
  std::uint64_t number = 0;       // the inode's own number
  std::array<BlockPointer, kPointersPerInode> pointers{};
};
static_assert(sizeof(InodeRecord) == 256);
static_assert(offsetof(InodeRecord, flags) == 80 && offsetof(InodeRecord, xattr_inode) == 88);
static_assert(offsetof(InodeRecord, height) == 104 && offsetof(InodeRecord, pointers) == 128);
static_assert(offsetof(InodeRecord, reserve_low) == 106 && offsetof(InodeRecord, reserve_high) == 108);

constexpr std::uint64_t reserve_of(const InodeRecord& record) {
  return std::uint64_t{record.reserve_high} << 16 | record.reserve_low;
}

using InodeBlock = std::array<InodeRecord, kInodesPerBlock>;
static_assert(sizeof(InodeBlock) == kBlockSize);

// A page of the share map: for each of so many blocks its references beyond the first.
inline constexpr std::size_t kSharesPerPage = 2048;
inline constexpr std::uint16_t kSharesMax = 65535;
using SharePage = std::array<std::uint16_t, kSharesPerPage>;
static_assert(sizeof(SharePage) == kBlockSize);
constexpr std::uint64_t share_pages_of(std::uint64_t size_blocks) {
  return (size_blocks + kSharesPerPage - 1) / kSharesPerPage;
}

struct Superblock {
  std::uint64_t magic = kSuperblockMagic;
  std::uint32_t format_version = kFormatVersion;
  std::uint32_t block_size_bytes = kBlockSize;
  std::uint64_t size_blocks = 0;
  std::array<std::uint8_t, 16> volume{};
  std::array<char, 64> label{};  // UTF-8, padded with zeros
  std::int64_t created_seconds = 0;
  std::uint64_t name_hash_seed = 0;
  std::uint64_t journal_first = 0;   // address of the intent journal, inside the data area
  std::uint64_t journal_blocks = 0;  // 0: none
  std::array<std::uint8_t, kBlockSize - 136 - 8> reserved{};
  std::uint64_t checksum = 0;  // of the bytes before it
};
static_assert(sizeof(Superblock) == kBlockSize && offsetof(Superblock, journal_first) == 120 &&
              offsetof(Superblock, checksum) == kBlockSize - 8);

struct HistoryEntry {
  std::array<std::uint8_t, 16> epoch{};
  std::uint64_t last_cp = 0;
};
static_assert(sizeof(HistoryEntry) == 24);

// The commit: writing this one block makes a new state of the volume.
struct RootBlock {
  std::uint64_t magic = kRootMagic;
  std::uint32_t format_version = kFormatVersion;
  std::uint32_t history_count = 0;  // ended epochs in `history`, oldest first
  std::array<std::uint8_t, 16> volume{};
  std::array<std::uint8_t, 16> epoch{};
  std::uint64_t cp = 0;
  std::uint64_t previous_checksum = 0;  // `checksum` of the root block before this one; 0 in the first
  std::int64_t time_seconds = 0;        // when it was published
  std::uint32_t time_nanoseconds = 0;
  std::uint32_t reserved = 0;
  std::uint64_t size_blocks = 0;
  std::uint64_t used_blocks = 0;        // bits set in the free map
  std::uint64_t inode_count = 0;        // inodes in use, without reserved and attribute inodes
  std::uint64_t next_inode = 0;         // the smallest number never given out
  std::uint64_t allocation_cursor = 0;  // where the allocator goes on: a hint
  std::uint64_t journal_sequence = 1;   // of the first journal batch that may hold what this root has not
  std::uint64_t journal_block = 0;      // where that batch is or will be, in blocks from the start of the journal
  std::uint64_t journal_chain = 0;      // the checksum of the batch before it; 0 when there is none
  std::array<std::uint8_t, 96> reserved2{};
  std::uint64_t reserve_blocks = 0;    // kept for inodes: the sum of their reserves
  std::uint64_t protected_inodes = 0;  // inodes in use with a flag of kProtectingFlags
  InodeRecord inode_file;
  InodeRecord free_map;
  std::array<HistoryEntry, kHistoryMax> history{};
  std::array<std::uint8_t, kBlockSize - 768 - kHistoryMax * 24 - 8> reserved3{};
  std::uint64_t checksum = 0;  // of the bytes before it
};
static_assert(sizeof(RootBlock) == kBlockSize && offsetof(RootBlock, reserve_blocks) == 240);
static_assert(offsetof(RootBlock, protected_inodes) == 248);
static_assert(offsetof(RootBlock, inode_file) == 256);
static_assert(offsetof(RootBlock, checksum) == kBlockSize - 8);

// Geometry: block 0 the superblock, blocks 1..16 root slots; at the end 16 root slots and a copy of the superblock.
inline constexpr std::uint64_t kFirstDataBlock = 1 + kRootSlotsPerEnd;
// A volume grows by at least so much, so that the new end does not lie on the old one.
inline constexpr std::uint64_t kGrowthBlocksMin = kRootSlotsPerEnd + 1;
constexpr std::uint64_t end_of_data_blocks(std::uint64_t size_blocks) {
  return size_blocks - kRootSlotsPerEnd - 1;
}
// The slot of a cp's root: odd ones at the front, even ones at the end, so that neighbours are far apart.
constexpr Address root_slot_of(Cp cp, std::uint64_t size_blocks) {
  const std::uint64_t index = (cp.value >> 1) % kRootSlotsPerEnd;
  return Address{(cp.value & 1) != 0 ? 1 + index : end_of_data_blocks(size_blocks) + index};
}
constexpr bool is_data_address(Address address, std::uint64_t size_blocks) {
  return address.value >= kFirstDataBlock && address.value < end_of_data_blocks(size_blocks);
}

std::string_view label_of(const Superblock& superblock);
VolumeId volume_of(const Superblock& superblock);
StateName state_of(const RootBlock& root);

// Fills in the checksum.
void seal(Superblock& superblock);
void seal(RootBlock& root);

// Checks everything that can be checked without other blocks.
Result<Superblock> check_superblock(std::span<const std::byte, kBlockSize> block);
Result<RootBlock> check_root_block(std::span<const std::byte, kBlockSize> block);
// Checks a pointer's own fields: address inside the data area, known flags, birth not after `newest`. Holes are not
// looked at.
Status check_pointer(const BlockPointer& pointer, std::uint64_t size_blocks, Cp newest);

template <class T>
requires(sizeof(T) == kBlockSize) PageRef page_of(const T& block) {
  return PageRef::copy_of(std::as_bytes(std::span<const T, 1>(&block, 1)));
}

// Reads and checks the superblock at the front, or its copy when the front is damaged: at the end that what is left of
// the front names, or the newest root at the front, or else at the end of the image.
Result<Superblock> read_superblock(BlockDevice& device);
// Writes both copies; does not flush.
Status write_superblock(BlockDevice& device, const Superblock& superblock);
// Writes the copy again that is not `superblock`, which the other one is. So a crash meanwhile leaves that one. Does
// not flush: a growth does, before it writes to the front.
Status renew_superblock(BlockDevice& device, const Superblock& superblock);
// The newest valid root block of this volume in the ring. kCorrupt when there is none. It is larger than the superblock
// says where a growth was cut off: then the superblock is to be `grown` to its size, here and, by who writes, on disk.
Result<RootBlock> read_newest_root(BlockDevice& device, const Superblock& superblock);

// The root block of `cp`, as long as it stands in the ring: until that has gone round. kCorrupt when it does not.
Result<RootBlock> read_root(BlockDevice& device, const Superblock& superblock, Cp cp);

// Growth, in three steps (FORMAT.md). First the new end: the device gets the size of `larger`, empty root slots at its
// end and the copy of the superblock behind them, durably. The volume does not know of it yet.
Status prepare_grown_end(BlockDevice& device, const Superblock& larger);
// Then a root of the new size is published. Last the superblock at the front, durably: from here on the old end is
// nothing special. The old copy there is wiped, so that nobody takes it for one.
Status finish_growth(BlockDevice& device, const Superblock& larger, std::uint64_t old_size_blocks);
// The same superblock for another size.
Superblock grown(const Superblock& superblock, std::uint64_t size_blocks);
// Flushes, writes the root block to its slot and flushes again: the commit.
Status publish_root(BlockDevice& device, const RootBlock& root);
// Reads the block of `pointer` and verifies its checksum.
Result<PageRef> read_block(BlockDevice& device, const BlockPointer& pointer);

}  // namespace tarnfs
