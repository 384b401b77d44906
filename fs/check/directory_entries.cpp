// The entries of a directory: their names, and the inodes that they name.
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "fs/check/directory_checker.h"

namespace tarnfs::check {
namespace {

// A name as it can be shown: what is no printable ASCII in hexadecimal.
std::string shown(std::string_view name) {
  std::string text;
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f && c != '\\' && c != '"') {
      text += c;
    } else {
      text += fmt::format("\\x{:02x}", byte);
    }
  }
  return text;
}

void add_one(std::uint32_t& count) {
  if (count < std::numeric_limits<std::uint32_t>::max()) ++count;
}

}  // namespace

void DirectoryChecker::entry_error(ProblemKind kind, const LeafEntry& entry, std::string_view what) {
  state_.log.error(kind, InodeNumber{entry.inode}, std::nullopt,
                   fmt::format("entry \"{}\" of directory {} {}", shown(entry.name), number_, what));
}

void DirectoryChecker::check_name(const LeafEntry& entry) {
  ++state_.report.counters.entries;
  const bool possible = entry.name != "." && entry.name != ".." && entry.name.find('/') == std::string_view::npos &&
                        entry.name.find('\0') == std::string_view::npos;
  if (!possible) entry_error(ProblemKind::kEntryName, entry, "has an impossible name");
  // Names of one hash stand next to each other, so that a name that is there twice is seen here.
  if (const std::uint64_t hash = entry.key >> kSequenceBits; hash != last_hash_ || same_hash_names_.empty()) {
    last_hash_ = hash;
    same_hash_names_.clear();
  }
  if (std::find(same_hash_names_.begin(), same_hash_names_.end(), entry.name) != same_hash_names_.end()) {
    entry_error(ProblemKind::kEntryName, entry, "is there twice");
  } else if (same_hash_names_.size() < kSequencesPerHash) {
    same_hash_names_.emplace_back(entry.name);
  }
}

void DirectoryChecker::check_target(const LeafEntry& entry) {
  const InodeSlot target = state_.inodes.find(entry.inode);
  if (!target) {
    if (state_.lost_inodes.contains(entry.inode)) return;
    return entry_error(ProblemKind::kEntryTarget, entry, fmt::format("names inode {}, which is free", entry.inode));
  }
  if (entry.inode < kFirstFreeInode.value || target.has(kIsAttributes)) {
    return entry_error(ProblemKind::kEntryTarget, entry,
                       fmt::format("names inode {}, which must have no name", entry.inode));
  }
  if (target.type() != entry.type && target.type() != kTypeUnknown) {
    entry_error(ProblemKind::kEntryType, entry,
                fmt::format("has type {}, but inode {} has type {}", entry.type, entry.inode, target.type()));
  }
  if (target.type() == kTypeDirectory) {
    count_subdirectory(entry, target);
  } else {
    add_one(target.found_count());
  }
}

void DirectoryChecker::count_subdirectory(const LeafEntry& entry, const InodeSlot& target) {
  if (target.has(kIsNamed)) {
    return entry_error(ProblemKind::kParent, entry,
                       fmt::format("is a second name of directory {}, which can have one only", entry.inode));
  }
  target.state() |= kIsNamed;
  if (const InodeSlot slot = state_.inodes.find(number_); slot) add_one(slot.found_count());
  const std::size_t position = state_.inodes.find_directory(entry.inode);
  if (position == state_.inodes.directories().size()) return;
  const std::uint64_t parent = state_.inodes.directories()[position].parent;
  if (parent == number_) return;
  state_.found_parents.emplace_back(entry.inode, number_);
  entry_error(ProblemKind::kParent, entry,
              fmt::format("is directory {}, which says that its parent is {}", entry.inode, parent));
}

}  // namespace tarnfs::check
