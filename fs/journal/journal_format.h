// The structures of the intent journal on disk. FORMAT.md says every bit.
//
// The journal is a ring of blocks that the superblock names. What one group commit writes is a batch: a header and the
// records behind it, filled up to whole blocks, then the pages that the records name. Batches follow each other without
// gaps, over the end of the ring to its start.
//
// Invariants:
//   1. A batch is written only when the batch before it was flushed. So a batch that cannot be read while the next one
//      can was damaged, not cut off by a crash.
//   2. The newest root says where the first batch is that may hold records of later consistency points; what is before
//      it may be overwritten.
//
// Thread safety: plain values.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "common/format.h"

namespace tarnfs {

inline constexpr std::uint64_t kJournalMagic = 0x4c4e524a'4e524154ULL;  // "TARNJRNL" in bytes
// A batch has at most this many blocks, and at most half the ring: what is larger is left to a consistency point.
inline constexpr std::uint64_t kJournalBatchBlocksMax = 1024;

constexpr std::uint64_t journal_batch_blocks_max(std::uint64_t ring_blocks) {
  return ring_blocks / 2 < kJournalBatchBlocksMax ? ring_blocks / 2 : kJournalBatchBlocksMax;
}

struct JournalBatchHeader {
  std::uint64_t magic = kJournalMagic;
  std::uint64_t checksum = 0;  // of the header (with 0 here) and the records
  std::uint64_t chain = 0;     // `checksum` of the batch before it; 0 for the first of a volume
  std::uint64_t sequence = 0;  // one more than that of the batch before it
  std::array<std::uint8_t, 16> volume{};
  std::array<std::uint8_t, 16> epoch{};
  std::uint32_t size_bytes = 0;  // header and records
  std::uint32_t record_count = 0;
  std::uint32_t page_count = 0;  // 4 KiB pages behind the records
  std::uint32_t reserved = 0;
};
static_assert(sizeof(JournalBatchHeader) == 80 && offsetof(JournalBatchHeader, volume) == 32);

enum class JournalRecordType : std::uint8_t { kMake = 1, kLink = 2, kRemove = 3, kRename = 4, kInodeState = 5 };

struct JournalRecordHeader {
  std::uint32_t size_bytes = 0;  // of the record with this header, a multiple of 8
  JournalRecordType type = JournalRecordType::kMake;
  std::uint8_t flags = 0;
  std::uint8_t name_bytes = 0;
  std::uint8_t other_name_bytes = 0;
  std::uint64_t cp = 0;  // the consistency point that has what the record says
  std::int64_t time_seconds = 0;
  std::uint32_t time_nanoseconds = 0;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(JournalRecordHeader) == 32 && offsetof(JournalRecordHeader, cp) == 8);

inline constexpr std::uint8_t kJournalRenameExchange = 1;  // rename: both names change places
inline constexpr std::uint8_t kJournalHasXattrs = 1;       // inode state: the extended attributes follow

// What is kept of an inode besides its content, names and extended attributes.
struct JournalAttributes {
  std::uint32_t mode = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t flags = 0;
  std::uint64_t size_bytes = 0;
  std::int64_t atime_seconds = 0;
  std::int64_t mtime_seconds = 0;
  std::int64_t ctime_seconds = 0;
  std::int64_t btime_seconds = 0;
  std::uint32_t atime_nanoseconds = 0;
  std::uint32_t mtime_nanoseconds = 0;
  std::uint32_t ctime_nanoseconds = 0;
  std::uint32_t btime_nanoseconds = 0;
  std::uint32_t device = 0;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(JournalAttributes) == 80 && offsetof(JournalAttributes, device) == 72);

// Pages [first_page, first_page + count) of a file. Their content is in the batch, or in blocks that follow each other.
// A checksum for each comes behind it.
struct JournalPageRun {
  std::uint64_t first_page = 0;
  std::uint64_t address = 0;  // of the first page's block; 0: the pages are in the batch
  std::uint32_t count = 0;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(JournalPageRun) == 24);

struct JournalPageRange {
  std::uint64_t first_page = 0;
  std::uint64_t end_page = 0;
};
static_assert(sizeof(JournalPageRange) == 16);

// A place between two batches.
struct JournalPosition {
  std::uint64_t sequence = 1;  // of the batch behind it
  std::uint64_t block = 0;     // in the ring
  std::uint64_t chain = 0;     // checksum of the batch before it
  bool operator==(const JournalPosition&) const = default;
};

JournalPosition journal_start_of(const RootBlock& root);
void set_journal_start(RootBlock& root, const JournalPosition& position);

JournalAttributes journal_attributes_of(const InodeRecord& record);
// Puts them into the record. A directory's size follows from its names and stays.
void apply_journal_attributes(const JournalAttributes& attributes, InodeRecord& record);

}  // namespace tarnfs
