// Renames: one atomic change of up to two directories, the inode that moves and the one that is replaced.
#include <linux/fs.h>
#include <sys/stat.h>

#include "fs/engine/engine.h"
#include "fs/engine/inode_directory_pages.h"
#include "fs/engine/inode_locks.h"
#include "fs/tree/directory.h"

namespace tarnfs {

// Finds who takes part, without locks: that they still have these names is seen when the names are changed.
Result<Engine::RenameParties> Engine::find_parties(Operation& op, InodeNumber from, std::string_view from_name,
                                                   InodeNumber to, std::string_view to_name) {
  RenameParties parties;
  parties.from_name = from_name;
  parties.to_name = to_name;
  TARNFS_ASSIGN(parties.from, get_directory(op, from));
  TARNFS_ASSIGN(parties.to, get_directory(op, to));
  TARNFS_ASSIGN(NamedInode source, find_named(op, parties.from, from_name));
  parties.source = std::move(source.inode);
  auto target = find_named(op, parties.to, to_name);
  if (target.ok()) {
    parties.target = std::move(target->inode);
  } else if (target.error().code() != ErrorCode::kNotFound) {
    return target.error();
  }
  return parties;
}

// Is `ancestor` `directory` itself or above it?
Result<bool> Engine::is_ancestor(Operation& op, InodeNumber ancestor, InodeNumber directory) {
  constexpr unsigned kDepthMax = 1U << 20;  // a damaged parent could make a loop
  for (unsigned depth = 0; depth < kDepthMax; ++depth) {
    if (directory == ancestor) return true;
    if (directory == kRootDirectory) return false;
    TARNFS_ASSIGN(const InodePtr inode, get_inode(op, directory));
    ReadLock lock(inode->mutex);
    directory = InodeNumber{inode->record.parent};
  }
  return Error(ErrorCode::kCorrupt, device_.name() + ": the parents of a directory form a loop; run fsck.tarnfs");
}

// Whether they may.
Status Engine::check_rename(const RenameParties& parties, RenameMode mode) TARNFS_NO_THREAD_SAFETY_ANALYSIS {
  if (parties.source->deleted) return Error(ErrorCode::kNotFound);
  const InodeRecord& source = parties.source->record;
  const std::uint32_t frozen_flags =
      source.flags | parties.from->record.flags | (parties.target != nullptr ? parties.target->record.flags : 0);
  // An append-only directory takes new names, and keeps those that it has.
  const std::uint32_t refusing = FS_IMMUTABLE_FL | (parties.target != nullptr ? FS_APPEND_FL : 0);
  if ((frozen_flags & (FS_IMMUTABLE_FL | FS_APPEND_FL)) != 0 || (parties.to->record.flags & refusing) != 0) {
    return Error(ErrorCode::kNotPermitted);
  }
  if (parties.to->record.link_count == 0) return Error(ErrorCode::kNotFound);
  if (mode == RenameMode::kExchange) return parties.target != nullptr ? Status() : Error(ErrorCode::kNotFound);
  if (parties.target == nullptr) return {};
  if (mode == RenameMode::kNoReplace) return Error(ErrorCode::kExists);
  if (S_ISDIR(source.mode) && !S_ISDIR(parties.target->record.mode)) return Error(ErrorCode::kNotDirectory);
  return check_removable(*parties.to, *parties.target, S_ISDIR(source.mode));
}

// A directory changes its parent: ".." and the link counts follow.
void Engine::move_directory(Inode& directory, Inode& from, Inode& to) TARNFS_NO_THREAD_SAFETY_ANALYSIS {
  if (!S_ISDIR(directory.record.mode) || &from == &to) return;
  directory.record.parent = to.number.value;
  from.record.link_count -= 1;
  to.record.link_count += 1;
}

Status Engine::replace_locked(Operation& op, const RenameParties& parties,
                              const LeftNode* left) TARNFS_NO_THREAD_SAFETY_ANALYSIS {
  Inode& from = *parties.from;
  Inode& to = *parties.to;
  Inode& source = *parties.source;
  const std::uint64_t seed = superblock_.name_hash_seed;
  const std::uint32_t type = source.record.mode & S_IFMT;
  InodeDirectoryPages from_pages(*this, op, from);
  InodeDirectoryPages other_pages(*this, op, to);
  InodeDirectoryPages& to_pages = &from == &to ? from_pages : other_pages;
  const auto old_name =
      left == nullptr ? remove_entry(from_pages, seed, parties.from_name)
                      : replace_entry(from_pages, seed, parties.from_name, left->number, left->node.mode & S_IFMT);
  TARNFS_TRY(named_as_found(old_name, source));
  if (parties.target != nullptr) {
    TARNFS_TRY(named_as_found(replace_entry(to_pages, seed, parties.to_name, source.number, type), *parties.target));
  } else {
    const auto inserted = insert_entry(to_pages, seed, parties.to_name, source.number, type);
    if (!inserted.ok()) {
      return inserted.error().code() == ErrorCode::kExists ? Error(ErrorCode::kNotFound) : inserted.error();
    }
  }
  for (Inode* inode : {&from, &to, &source}) begin_change(op, *inode);
  from_pages.commit(from);
  if (&from != &to) to_pages.commit(to);
  from.record.entry_count -= left == nullptr ? 1 : 0;
  to.record.entry_count += parties.target == nullptr ? 1 : 0;
  if (parties.target != nullptr) {
    if (S_ISDIR(parties.target->record.mode)) to.record.link_count -= 1;
    drop_link(op, *parties.target);
  }
  move_directory(source, from, to);
  touch_changed(op, source, false);
  touch_changed(op, from, true);
  touch_changed(op, to, true);
  const InodeNumber target = parties.target != nullptr ? parties.target->number : InodeNumber{};
  const bool replaces_file = parties.target != nullptr && S_ISREG(source.record.mode);
  const InodeNumber replacing = replaces_file ? source.number : InodeNumber{};
  const JournalRename renamed{from.number, parties.from_name, to.number, parties.to_name, source.number, target, false};
  if (left == nullptr) {
    log_name(op, renamed, replacing);
    return {};
  }
  const InodePtr made = make_drafted(op, left->draft, left->node, left->number);
  WriteLock lock(made->mutex);
  log_make(op, from.number, parties.from_name, left->node, left->draft, *made, &renamed, replacing);
  return {};
}

Status Engine::replace_leaving(Operation& op, const RenameParties& parties,
                               const NewNode& node) TARNFS_NO_THREAD_SAFETY_ANALYSIS {
  TARNFS_ASSIGN(NodeDraft draft, draft_node(op, *parties.from, node));
  TARNFS_ASSIGN(const InodeNumber number, take_numbers(op, draft));
  const LeftNode left{node, std::move(draft), number};
  return replace_locked(op, parties, &left);
}

Status Engine::exchange_locked(Operation& op, const RenameParties& parties) TARNFS_NO_THREAD_SAFETY_ANALYSIS {
  Inode& from = *parties.from;
  Inode& to = *parties.to;
  Inode& source = *parties.source;
  Inode& target = *parties.target;
  const std::uint64_t seed = superblock_.name_hash_seed;
  InodeDirectoryPages from_pages(*this, op, from);
  InodeDirectoryPages other_pages(*this, op, to);
  InodeDirectoryPages& to_pages = &from == &to ? from_pages : other_pages;
  const auto replace = [&](InodeDirectoryPages& pages, std::string_view name, const Inode& before,
                           const Inode& after) TARNFS_NO_THREAD_SAFETY_ANALYSIS {
    return named_as_found(replace_entry(pages, seed, name, after.number, after.record.mode & S_IFMT), before);
  };
  TARNFS_TRY(replace(from_pages, parties.from_name, source, target));
  TARNFS_TRY(replace(to_pages, parties.to_name, target, source));
  for (Inode* inode : {&from, &to, &source, &target}) begin_change(op, *inode);
  from_pages.commit(from);
  if (&from != &to) to_pages.commit(to);
  move_directory(source, from, to);
  move_directory(target, to, from);
  touch_changed(op, source, false);
  touch_changed(op, target, false);
  touch_changed(op, from, true);
  touch_changed(op, to, true);
  log_name(op, JournalRename{from.number, parties.from_name, to.number, parties.to_name, source.number, target.number,
                             true});
  return {};
}

Status Engine::rename(InodeNumber from, std::string_view from_name, InodeNumber to, std::string_view to_name,
                      RenameMode mode) {
  return rename_or_leave(from, from_name, to, to_name, mode, nullptr);
}

Status Engine::rename_leaving(InodeNumber from, std::string_view from_name, InodeNumber to, std::string_view to_name,
                              RenameMode mode, const NewNode& left) {
  if (mode == RenameMode::kExchange || S_ISDIR(left.mode)) return Error(ErrorCode::kInvalid);
  return rename_or_leave(from, from_name, to, to_name, mode, &left);
}

Status Engine::rename_or_leave(InodeNumber from, std::string_view from_name, InodeNumber to, std::string_view to_name,
                               RenameMode mode, const NewNode* left) {
  for (const std::string_view name : {from_name, to_name}) {
    if (name.size() > kNameMaxBytes) return Error(ErrorCode::kNameTooLong);
    if (name.empty() || name == "." || name == ".." || name.find('/') != std::string_view::npos) {
      return Error(ErrorCode::kInvalid);
    }
  }
  InodeNumber unheld;
  const std::uint64_t blocks = 2 * blocks_for_directory_change() + 4 * blocks_for_inode() +
                               (left != nullptr ? 2 * blocks_for_inode() + kBlocksForInheritedAcl : 0);
  auto status = run(left != nullptr ? Intent::kChange : Intent::kRename, blocks, [&](Operation& op) -> Status {
    TARNFS_ASSIGN(const RenameParties parties, find_parties(op, from, from_name, to, to_name));
    if (mode == RenameMode::kNoReplace && parties.target != nullptr) return Error(ErrorCode::kExists);
    if (parties.source == parties.target) return {};  // two names of one inode: nothing to do
    // A directory cannot move below itself. The kernel holds its rename lock, so the answer stays true.
    TARNFS_ASSIGN(const bool below_source, is_ancestor(op, parties.source->number, to));
    if (below_source) return Error(ErrorCode::kInvalid);
    if (parties.target != nullptr) {
      TARNFS_ASSIGN(const bool below_target, is_ancestor(op, parties.target->number, from));
      if (below_target) return Error(mode == RenameMode::kExchange ? ErrorCode::kInvalid : ErrorCode::kNotEmpty);
    }
    const InodeLocks locks({parties.from, parties.to, parties.source, parties.target});
    TARNFS_TRY(check_rename(parties, mode));
    if (mode == RenameMode::kExchange) return exchange_locked(op, parties);
    TARNFS_TRY(left == nullptr ? replace_locked(op, parties) : replace_leaving(op, parties, *left));
    if (parties.target != nullptr && is_orphan(parties.target->number) && lookups_.is_zero(parties.target->number)) {
      unheld = parties.target->number;
    }
    return {};
  });
  if (status.ok() && unheld != InodeNumber{}) reclaim_unheld(unheld);
  return status;
}

}  // namespace tarnfs
