#include "fs/check/report.h"

#include <utility>

namespace tarnfs {

std::string_view name_of(ProblemKind kind) {
  switch (kind) {
    case ProblemKind::kSuperblock:
      return "superblock";
    case ProblemKind::kRootRing:
      return "root_ring";
    case ProblemKind::kRoot:
      return "root";
    case ProblemKind::kUnreadable:
      return "unreadable";
    case ProblemKind::kChecksum:
      return "checksum";
    case ProblemKind::kPointer:
      return "pointer";
    case ProblemKind::kBirth:
      return "birth";
    case ProblemKind::kUsedTwice:
      return "used_twice";
    case ProblemKind::kShareMap:
      return "share_map";
    case ProblemKind::kTreeShape:
      return "tree_shape";
    case ProblemKind::kBlockCount:
      return "block_count";
    case ProblemKind::kReserve:
      return "reserve";
    case ProblemKind::kInodeNumber:
      return "inode_number";
    case ProblemKind::kInode:
      return "inode";
    case ProblemKind::kNextInode:
      return "next_inode";
    case ProblemKind::kInodeCount:
      return "inode_count";
    case ProblemKind::kDirectory:
      return "directory";
    case ProblemKind::kEntryName:
      return "entry_name";
    case ProblemKind::kEntryTarget:
      return "entry_target";
    case ProblemKind::kEntryType:
      return "entry_type";
    case ProblemKind::kEntryCount:
      return "entry_count";
    case ProblemKind::kLinkCount:
      return "link_count";
    case ProblemKind::kParent:
      return "parent";
    case ProblemKind::kDirectoryLoop:
      return "directory_loop";
    case ProblemKind::kUnreachable:
      return "unreachable";
    case ProblemKind::kOrphan:
      return "orphan";
    case ProblemKind::kAttributes:
      return "attributes";
    case ProblemKind::kMarkedFree:
      return "marked_free";
    case ProblemKind::kLeaked:
      return "leaked";
    case ProblemKind::kFreeMap:
      return "free_map";
    case ProblemKind::kUsedBlocks:
      return "used_blocks";
    case ProblemKind::kJournal:
      return "journal";
  }
  return "unknown";
}

void ProblemLog::add(Problem problem) {
  (problem.severity == Severity::kError ? report_.error_count : report_.warning_count) += 1;
  if (report_.problems.size() < problems_max_) report_.problems.push_back(std::move(problem));
}

}  // namespace tarnfs
