// What the checker found: problems in words and kinds, and counters.
//
// Purpose: CheckReport is the result that users, scripts and tests see; ProblemLog collects it.
//
// Invariants:
//   1. The list of problems is bounded by CheckOptions::problems_max; error_count and warning_count count all.
//   2. A warning is damage of something that has a good copy, or something unusual that loses nothing: a volume with
//      warnings alone is clean.
//
// Thread safety: none, one thread checks.
// Ownership: values.
// Errors: none.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/format.h"
#include "common/types.h"

namespace tarnfs {

enum class ProblemKind {
  kSuperblock,     // a copy of the superblock is damaged, or both differ
  kRootRing,       // a root slot is damaged, in the wrong place or does not follow from the one before
  kRoot,           // a field of the newest root is impossible
  kUnreadable,     // the device could not read a block
  kChecksum,       // a block is not what its pointer says
  kPointer,        // a pointer's address, flags or cp are impossible
  kBirth,          // a pointer is younger than the block it stands in
  kUsedTwice,      // two pointers to one block that nobody may share, or of which the share map knows nothing
  kShareMap,       // the share map and the references to a block do not agree, or the map itself cannot be
  kTreeShape,      // empty nodes, blocks beyond the end, and the like
  kBlockCount,     // InodeRecord::block_count
  kReserve,        // an inode's reserve, or RootBlock::reserve_blocks
  kInodeNumber,    // an inode does not name itself, or stands where none may be
  kInode,          // a field of an inode is impossible
  kNextInode,      // an inode at or beyond RootBlock::next_inode
  kInodeCount,     // RootBlock::inode_count or protected_inodes
  kDirectory,      // the tree of a directory: pages, order, hashes
  kEntryName,      // a name that cannot be
  kEntryTarget,    // an entry that names no inode, or one that must not be named
  kEntryType,      // the entry's type is not the inode's
  kEntryCount,     // InodeRecord::entry_count
  kLinkCount,      // InodeRecord::link_count
  kParent,         // InodeRecord::parent, or a directory with two names
  kDirectoryLoop,  // a directory is its own ancestor
  kUnreachable,    // an inode with links but without a name
  kOrphan,         // the orphan file and the inodes without links do not agree
  kAttributes,     // attribute inodes and their owners do not agree
  kMarkedFree,     // a block in use is free in the free map
  kLeaked,         // a block that nothing refers to is used in the free map
  kFreeMap,        // the free map marks a block outside the data area
  kUsedBlocks,     // RootBlock::used_blocks
  kJournal,        // the journal is damaged
};

enum class Severity { kWarning, kError };

// Stable names, as in the JSON output: "used_twice".
std::string_view name_of(ProblemKind kind);

struct Problem {
  ProblemKind kind = ProblemKind::kRoot;
  Severity severity = Severity::kError;
  std::optional<InodeNumber> inode;
  std::optional<Address> address;
  std::string text;
};

struct CheckCounters {
  std::uint64_t inodes = 0;  // in use, all kinds
  std::uint64_t regular_files = 0;
  std::uint64_t directories = 0;
  std::uint64_t symlinks = 0;
  std::uint64_t special_files = 0;
  std::uint64_t attribute_inodes = 0;
  std::uint64_t orphans = 0;
  std::uint64_t entries = 0;      // names in directories
  std::uint64_t data_blocks = 0;  // of all trees
  std::uint64_t node_blocks = 0;
  std::uint64_t reachable_blocks = 0;
  std::uint64_t journal_batches = 0;  // that follow the newest root
  std::uint64_t journal_records = 0;  // of them, that the next mount does again
};

struct CheckReport {
  Superblock superblock;
  RootBlock root;
  CheckCounters counters;
  std::vector<Problem> problems;  // in the order in which they were found
  std::uint64_t error_count = 0;
  std::uint64_t warning_count = 0;
  bool clean() const { return error_count == 0; }
};

// Collects problems up to a limit, and counts all.
class ProblemLog {
 public:
  ProblemLog(CheckReport& report, std::uint64_t problems_max) : report_(report), problems_max_(problems_max) {}
  void error(ProblemKind kind, std::optional<InodeNumber> inode, std::optional<Address> address, std::string text) {
    add({kind, Severity::kError, inode, address, std::move(text)});
  }
  void warning(ProblemKind kind, std::optional<InodeNumber> inode, std::optional<Address> address, std::string text) {
    add({kind, Severity::kWarning, inode, address, std::move(text)});
  }

 private:
  void add(Problem problem);

  CheckReport& report_;
  const std::uint64_t problems_max_;
};

}  // namespace tarnfs
