// The records of the intent journal: what an operation did to names, and what an fsync found in an inode.
//
// Purpose: encode and decode them. Records of names are logical and follow each other in the order of the operations;
// an inode's state is what it had when the batch was put together.
//
// Thread safety: plain functions on values.
// Ownership: a decoded record's names, spans and pages' checksums are views into the batch, which must outlive it.
// Errors: kCorrupt when bytes are not a record.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "common/result.h"
#include "common/types.h"
#include "fs/journal/journal_format.h"

namespace tarnfs {

// A new inode, and its first name unless `name` is empty (O_TMPFILE).
struct JournalMake {
  InodeNumber parent;
  std::string_view name;
  InodeNumber inode;
  InodeNumber attribute_inode;  // 0: no extended attributes
  JournalAttributes attributes;
  std::string_view symlink_target;
  std::span<const std::byte> xattrs;  // XattrSet::serialise()
};

struct JournalLink {
  InodeNumber parent;
  std::string_view name;
  InodeNumber inode;
};

struct JournalRemove {
  InodeNumber parent;
  std::string_view name;
  InodeNumber inode;
};

struct JournalRename {
  InodeNumber from;
  std::string_view from_name;
  InodeNumber to;
  std::string_view to_name;
  InodeNumber source;
  InodeNumber target;  // what had the new name before; 0: nothing
  bool exchange = false;
};

// Pages of a file in one place after the other; see JournalPageRun.
struct JournalPages {
  std::uint64_t first_page = 0;
  Address address;  // where the first page is, and the others behind it; 0: in the batch
  std::vector<std::uint64_t> checksums;
  bool in_batch() const { return address.value == 0; }
};

struct JournalInodeState {
  InodeNumber inode;
  InodeNumber attribute_inode;
  JournalAttributes attributes;
  std::optional<std::vector<std::byte>> xattrs;  // absent: as they were; empty: none
  std::vector<JournalPageRange> cut;             // taken out first
  std::vector<JournalPageRange> reserved;        // space is kept for their holes then
  std::vector<JournalPages> pages;               // put in at last, ascending
};

struct JournalRecord {
  Cp cp;
  Timestamp time;
  using Body = std::variant<JournalMake, JournalLink, JournalRemove, JournalRename, JournalInodeState>;
  Body body;
};

// Appends the record to `out`.
void encode(const JournalRecord& record, std::vector<std::byte>& out);
// Takes one record off the front of `bytes`.
Result<JournalRecord> decode_record(std::span<const std::byte>& bytes);

}  // namespace tarnfs
