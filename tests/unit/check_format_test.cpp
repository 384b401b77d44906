// The offsets that FORMAT.md states are those of the structs.
#include <doctest/doctest.h>

#include <cstring>
#include <string>

#include "common/format.h"
#include "fs/tree/directory_format.h"

using namespace tarnfs;

static_assert(offsetof(Superblock, format_version) == 8 && offsetof(Superblock, size_blocks) == 16);
static_assert(offsetof(Superblock, volume) == 24 && offsetof(Superblock, label) == 40);
static_assert(offsetof(Superblock, created_seconds) == 104 && offsetof(Superblock, name_hash_seed) == 112);
static_assert(offsetof(Superblock, journal_first) == 120 && offsetof(Superblock, journal_blocks) == 128);
static_assert(offsetof(Superblock, reserved) == 136);

static_assert(offsetof(RootBlock, history_count) == 12 && offsetof(RootBlock, volume) == 16);
static_assert(offsetof(RootBlock, epoch) == 32 && offsetof(RootBlock, cp) == 48);
static_assert(offsetof(RootBlock, previous_checksum) == 56 && offsetof(RootBlock, time_seconds) == 64);
static_assert(offsetof(RootBlock, time_nanoseconds) == 72 && offsetof(RootBlock, size_blocks) == 80);
static_assert(offsetof(RootBlock, used_blocks) == 88 && offsetof(RootBlock, inode_count) == 96);
static_assert(offsetof(RootBlock, next_inode) == 104 && offsetof(RootBlock, allocation_cursor) == 112);
static_assert(offsetof(RootBlock, journal_sequence) == 120 && offsetof(RootBlock, journal_chain) == 136);
static_assert(offsetof(RootBlock, reserved2) == 144 && offsetof(RootBlock, protected_inodes) == 248);
static_assert(offsetof(RootBlock, free_map) == 512 && offsetof(RootBlock, history) == 768);
static_assert(offsetof(RootBlock, reserved3) == 2304);

static_assert(offsetof(BlockPointer, birth_cp) == 8 && offsetof(BlockPointer, checksum) == 16);
static_assert(offsetof(BlockPointer, flags) == 24);

static_assert(offsetof(InodeRecord, link_count) == 4 && offsetof(InodeRecord, uid) == 8);
static_assert(offsetof(InodeRecord, gid) == 12 && offsetof(InodeRecord, size_bytes) == 16);
static_assert(offsetof(InodeRecord, block_count) == 24 && offsetof(InodeRecord, atime_seconds) == 32);
static_assert(offsetof(InodeRecord, mtime_seconds) == 40 && offsetof(InodeRecord, ctime_seconds) == 48);
static_assert(offsetof(InodeRecord, btime_seconds) == 56 && offsetof(InodeRecord, atime_nanoseconds) == 64);
static_assert(offsetof(InodeRecord, btime_nanoseconds) == 76 && offsetof(InodeRecord, device) == 84);
static_assert(offsetof(InodeRecord, parent) == 96 && offsetof(InodeRecord, layout) == 105);
static_assert(offsetof(InodeRecord, entry_count) == 112 && offsetof(InodeRecord, number) == 120);

static_assert(offsetof(DirectoryPageHeader, heap_start) == 8 && offsetof(LeafSlot, name_bytes) == 10);
static_assert(offsetof(IndexSlot, child) == 8);

TEST_CASE("the magic numbers are readable in a dump") {
  const auto text_of = [](const auto& number) {
    return std::string(reinterpret_cast<const char*>(&number), sizeof number);
  };
  CHECK(text_of(kSuperblockMagic) == std::string("TARNFS1\0", 8));
  CHECK(text_of(kRootMagic) == "TARNROOT");
  CHECK(text_of(kDirectoryMagic) == "TDIR");
}

TEST_CASE("the geometry is that of the table") {
  constexpr std::uint64_t kSize = 5000;
  CHECK(kFirstDataBlock == 17);
  CHECK(end_of_data_blocks(kSize) == kSize - 17);
  CHECK(root_slot_of(Cp{1}, kSize).value == 1);
  CHECK(root_slot_of(Cp{2}, kSize).value == kSize - 17 + 1);
  CHECK(root_slot_of(Cp{31}, kSize).value == 16);
  CHECK(root_slot_of(Cp{32}, kSize).value == kSize - 17);
  CHECK(directory_height_max(1) == 1);
  CHECK(directory_height_max(254) == 2);
  CHECK(directory_height_max(255) == 3);
  CHECK(directory_height_max(8160) == 4);
}
