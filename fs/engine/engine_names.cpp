// Operations on names: what makes, finds and removes directory entries. Renames are in engine_rename.cpp.
#include <linux/fs.h>
#include <sys/stat.h>

#include <array>
#include <cstring>

#include "fs/engine/engine.h"
#include "fs/engine/inode_directory_pages.h"
#include "fs/engine/inode_locks.h"
#include "fs/tree/directory.h"

namespace tarnfs {
namespace {

constexpr std::uint32_t kLinkCountMax = 0x7fffffff;
Status check_name(std::string_view name) {
  if (name.size() > kNameMaxBytes) return Error(ErrorCode::kNameTooLong);
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string_view::npos) {
    return Error(ErrorCode::kInvalid);
  }
  return {};
}

}  // namespace

std::uint64_t Engine::blocks_for_directory_change() const {
  // Each page may be in a group of its own. 2^20 pages are some 70 million names.
  constexpr std::uint64_t kPagesMax = std::uint64_t{1} << 20;
  return directory_pages_written_max(kPagesMax) * (height_for(kPagesMax) + 2U) + kTreeHeightMax + blocks_for_inode();
}

// Looks a name up in a directory whose lock the caller holds or does not need (the kernel holds the directory).
Result<Engine::NamedInode> Engine::find_named(Operation& op, const InodePtr& parent, std::string_view name) {
  std::optional<DirectoryRecord> record;
  {
    ReadLock lock(parent->mutex);
    if (parent->deleted) return Error(ErrorCode::kStale);
    InodeDirectoryPages pages(*this, op, *parent);
    TARNFS_ASSIGN(record, find_entry(pages, superblock_.name_hash_seed, name));
  }
  if (!record) return Error(ErrorCode::kNotFound);
  TARNFS_ASSIGN(InodePtr inode, get_inode(op, record->inode));
  return NamedInode{std::move(inode), record->type};
}

Result<Attributes> Engine::lookup(InodeNumber parent, std::string_view name) {
  if (name.size() > kNameMaxBytes) return Error(ErrorCode::kNameTooLong);
  return run(Intent::kRead, 0, [&](Operation& op) -> Result<Attributes> {
    TARNFS_ASSIGN(const InodePtr directory, get_directory(op, parent));
    InodePtr inode = directory;
    if (name == "..") {
      InodeNumber above;
      {
        ReadLock lock(directory->mutex);
        above = InodeNumber{directory->record.parent};
      }
      TARNFS_ASSIGN(inode, get_inode(op, above));
    } else if (name != ".") {
      TARNFS_ASSIGN(NamedInode named, find_named(op, directory, name));
      inode = std::move(named.inode);
    }
    ReadLock lock(inode->mutex);
    if (inode->deleted || inode->record.link_count == 0) return Error(ErrorCode::kNotFound);
    if (!may_be_named(*inode)) {
      return Error(ErrorCode::kCorrupt, device_.name() + ": directory " + std::to_string(parent.value) +
                                            " names inode " + std::to_string(inode->number.value) +
                                            ", which can have no name; run fsck.tarnfs");
    }
    lookups_.add(inode->number);
    return attributes_of(*inode);
  });
}

// What a node made in `parent` starts with: owner, mode, times and ACL. Reads only.
Result<Engine::NodeDraft> Engine::draft_node(Operation& op, const Inode& parent, const NewNode& node) {
  const InodeRecord& above = parent.record;
  NodeDraft draft;
  InodeRecord& record = draft.record;
  record.mode = node.mode;
  TARNFS_TRY(inherit_acl(op, parent, node, record.mode, draft.xattrs));
  record.link_count = S_ISDIR(node.mode) ? 2 : 1;
  record.uid = node.caller.uid;
  record.gid = node.caller.gid;
  if ((above.mode & S_ISGID) != 0) {
    record.gid = above.gid;
    if (S_ISDIR(node.mode)) record.mode |= S_ISGID;
  }
  record.device = node.device_major << 20 | (node.device_minor & 0xfffff);
  record.parent = S_ISDIR(node.mode) ? parent.number.value : 0;
  const Timestamp now = op.now();
  record.atime_seconds = record.mtime_seconds = record.ctime_seconds = record.btime_seconds = now.seconds;
  record.atime_nanoseconds = record.mtime_nanoseconds = now.nanoseconds;
  record.ctime_nanoseconds = record.btime_nanoseconds = now.nanoseconds;
  if (S_ISLNK(node.mode)) record.mode = S_IFLNK | 0777;
  draft.set_symlink_target(node.symlink_target);
  return draft;
}

// Short targets stand in the inode.
void Engine::NodeDraft::set_symlink_target(std::string_view target) {
  if (!S_ISLNK(record.mode)) return;
  record.size_bytes = target.size();
  if (target.size() > kInlineSymlinkMaxBytes) return;
  record.layout = kInodeInlineTarget;
  std::memcpy(static_cast<void*>(record.pointers.data()), target.data(), target.size());
}

// Of the new node, and of what holds its attributes.
Result<InodeNumber> Engine::take_numbers(Operation& op, NodeDraft& draft) {
  TARNFS_ASSIGN(const InodeNumber number, take_inode_number(op));
  if (!draft.xattrs.empty()) {
    TARNFS_ASSIGN(draft.attribute_inode, take_inode_number(op));
  }
  return number;
}

// The inode of a draft, in memory and dirty. Cannot need a block.
InodePtr Engine::make_drafted(Operation& op, const NodeDraft& draft, const NewNode& node, InodeNumber number) {
  InodeRecord record = draft.record;
  record.number = number.value;
  InodePtr inode = inodes_.insert_new(std::make_shared<Inode>(record));
  WriteLock lock(inode->mutex);
  begin_change(op, *inode);
  if (S_ISLNK(record.mode) && record.layout != kInodeInlineTarget) {
    put_page(op, *inode, 0, PageRef::copy_of(std::as_bytes(std::span(node.symlink_target))));
  }
  if (!draft.xattrs.empty()) {
    const Status stored = store_xattrs(op, *inode, draft.xattrs, draft.attribute_inode);
    TARNFS_ASSERT(stored.ok());  // a new inode has no attributes that would have to be read, and they have a number
  }
  inode_count_.fetch_add(1);
  count_protected(0, record.flags);
  return inode;
}

// The new inode's first record says all of it. It gets into the same batch as that of the rename which left it.
void Engine::log_make(Operation& op, InodeNumber parent, std::string_view name, const NewNode& node,
                      const NodeDraft& draft, Inode& inode, const JournalRename* with, InodeNumber replacing) {
  if (journal_ == nullptr) return;
  std::vector<std::byte> xattrs;
  if (!draft.xattrs.empty()) xattrs = draft.xattrs.serialise();
  JournalMake make;
  make.parent = parent;
  make.name = name;
  make.inode = inode.number;
  make.attribute_inode = InodeNumber{inode.record.xattr_inode};
  make.attributes = journal_attributes_of(inode.record);
  make.symlink_target = node.symlink_target;
  make.xattrs = xattrs;
  const JournalRecord made{Cp{op.generation}, op.now(), make};
  if (with == nullptr) {
    name_log_.append(std::span(&made, 1));
  } else {
    name_log_.append(std::array{JournalRecord{made.cp, made.time, *with}, made}, replacing);
  }
  inode.unlogged = UnloggedChanges();
}

// Gives a new inode its first name.
Result<InodePtr> Engine::make_locked(Operation& op, Inode& directory, std::string_view name, const NewNode& node,
                                     const NodeDraft& draft, InodeNumber number) {
  InodeDirectoryPages pages(*this, op, directory);
  TARNFS_TRY(insert_entry(pages, superblock_.name_hash_seed, name, number, node.mode & S_IFMT));
  begin_change(op, directory);
  pages.commit(directory);
  directory.record.entry_count += 1;
  if (S_ISDIR(node.mode)) directory.record.link_count += 1;
  touch_changed(op, directory, true);
  InodePtr inode = make_drafted(op, draft, node, number);
  WriteLock lock(inode->mutex);
  log_make(op, directory.number, name, node, draft, *inode);
  return inode;
}

Result<Attributes> Engine::make_node(InodeNumber parent, std::string_view name, const NewNode& node) {
  TARNFS_TRY(check_name(name));
  if (node.symlink_target.size() > kSymlinkTargetMaxBytes) return Error(ErrorCode::kNameTooLong);
  const std::uint64_t blocks = blocks_for_directory_change() + 2 * blocks_for_inode() + kBlocksForInheritedAcl;
  return run(Intent::kChange, blocks, [&](Operation& op) -> Result<Attributes> {
    TARNFS_ASSIGN(const InodePtr directory, get_directory(op, parent));
    WriteLock lock(directory->mutex);
    if (directory->record.link_count == 0) return Error(ErrorCode::kNotFound);
    if ((directory->record.flags & FS_IMMUTABLE_FL) != 0) return Error(ErrorCode::kNotPermitted);
    if (S_ISDIR(node.mode) && directory->record.link_count >= kLinkCountMax) return Error(ErrorCode::kTooManyLinks);
    TARNFS_ASSIGN(NodeDraft draft, draft_node(op, *directory, node));
    TARNFS_ASSIGN(const InodeNumber number, take_numbers(op, draft));
    TARNFS_ASSIGN(const InodePtr inode, make_locked(op, *directory, name, node, draft, number));
    ReadLock inode_lock(inode->mutex);
    lookups_.add(number);
    return attributes_of(*inode);
  });
}

Result<Attributes> Engine::make_unnamed(InodeNumber parent, const NewNode& node) {
  const std::uint64_t blocks = 2 * blocks_for_inode() + kBlocksForInheritedAcl;
  return run(Intent::kChange, blocks, [&](Operation& op) -> Result<Attributes> {
    TARNFS_ASSIGN(const InodePtr directory, get_directory(op, parent));
    ReadLock lock(directory->mutex);
    if ((directory->record.flags & FS_IMMUTABLE_FL) != 0) return Error(ErrorCode::kNotPermitted);
    TARNFS_ASSIGN(NodeDraft draft, draft_node(op, *directory, node));
    draft.record.link_count = 0;
    TARNFS_ASSIGN(const InodeNumber number, take_numbers(op, draft));
    const InodePtr inode = make_drafted(op, draft, node, number);
    lookups_.add(inode->number);
    add_orphan(inode->number);
    WriteLock inode_lock(inode->mutex);
    log_make(op, directory->number, {}, node, draft, *inode);
    return attributes_of(*inode);
  });
}

Result<Attributes> Engine::link(InodeNumber number, InodeNumber parent, std::string_view name) {
  TARNFS_TRY(check_name(name));
  const std::uint64_t blocks = blocks_for_directory_change() + blocks_for_inode();
  return run(Intent::kChange, blocks, [&](Operation& op) TARNFS_NO_THREAD_SAFETY_ANALYSIS -> Result<Attributes> {
    TARNFS_ASSIGN(const InodePtr directory, get_directory(op, parent));
    TARNFS_ASSIGN(const InodePtr inode, get_inode(op, number));
    const InodeLocks locks({directory, inode});
    if (inode->deleted || directory->record.link_count == 0) return Error(ErrorCode::kNotFound);
    if (S_ISDIR(inode->record.mode)) return Error(ErrorCode::kNotPermitted);
    if (((inode->record.flags & (FS_IMMUTABLE_FL | FS_APPEND_FL)) | (directory->record.flags & FS_IMMUTABLE_FL)) != 0) {
      return Error(ErrorCode::kNotPermitted);
    }
    if (inode->record.link_count >= kLinkCountMax) return Error(ErrorCode::kTooManyLinks);
    TARNFS_TRY(link_locked(op, *directory, *inode, name));
    lookups_.add(number);
    return attributes_of(*inode);
  });
}

Status Engine::link_locked(Operation& op, Inode& directory, Inode& inode, std::string_view name) {
  InodeDirectoryPages pages(*this, op, directory);
  TARNFS_TRY(insert_entry(pages, superblock_.name_hash_seed, name, inode.number, inode.record.mode & S_IFMT));
  begin_change(op, directory);
  begin_change(op, inode);
  pages.commit(directory);
  directory.record.entry_count += 1;
  touch_changed(op, directory, true);
  touch_changed(op, inode, false);
  if (inode.record.link_count == 0) {  // an unnamed file gets its first name
    MutexLock lock(orphans_mutex_);
    orphans_changed_ = orphans_.erase(inode.number.value) > 0 || orphans_changed_;
  }
  inode.record.link_count += 1;
  log_name(op, JournalLink{directory.number, name, inode.number});
  return {};
}

// Takes one link away. Without links the inode lives on as an orphan until nobody holds it.
void Engine::drop_link(Operation& op, Inode& inode) {
  begin_change(op, inode);
  inode.record.link_count -= S_ISDIR(inode.record.mode) ? inode.record.link_count : 1;
  touch_changed(op, inode, false);
  if (inode.record.link_count == 0) add_orphan(inode.number);
}

Status Engine::check_removable(const Inode& parent, const Inode& inode, bool directory) {
  if (inode.deleted) return Error(ErrorCode::kNotFound);
  const bool is_directory = S_ISDIR(inode.record.mode);
  if (directory && !is_directory) return Error(ErrorCode::kNotDirectory);
  if (!directory && is_directory) return Error(ErrorCode::kIsDirectory);
  if (((inode.record.flags | parent.record.flags) & (FS_IMMUTABLE_FL | FS_APPEND_FL)) != 0) {
    return Error(ErrorCode::kNotPermitted);
  }
  if (is_directory && inode.record.entry_count != 0) return Error(ErrorCode::kNotEmpty);
  return {};
}

// The inode is known when its name has been found, and its number is nearly always above that of the directory: then it
// is locked behind it. If not, both are locked anew in their order.
Status Engine::remove_name(InodeNumber parent, std::string_view name, bool directory) {
  if (name == ".") return Error(ErrorCode::kInvalid);
  if (name == "..") return Error(ErrorCode::kNotEmpty);
  InodeNumber unheld;
  const std::uint64_t blocks = blocks_for_directory_change() + 2 * blocks_for_inode();
  auto status = run(Intent::kDeletion, blocks, [&](Operation& op) TARNFS_NO_THREAD_SAFETY_ANALYSIS -> Status {
    TARNFS_ASSIGN(const InodePtr above, get_directory(op, parent));
    InodePtr inode;
    while (true) {
      const InodePtr locked = inode;  // until it is unlocked, whatever the name is now
      InodeLocks locks({above, locked});
      if (above->deleted) return Error(ErrorCode::kStale);
      InodeDirectoryPages pages(*this, op, *above);
      TARNFS_ASSIGN(const DirectoryRecord removed, remove_entry(pages, superblock_.name_hash_seed, name));
      if (inode == nullptr || inode->number != removed.inode) {
        TARNFS_ASSIGN(inode, get_inode(op, removed.inode));
        if (!locks.add(inode)) continue;
      }
      TARNFS_TRY(check_removable(*above, *inode, directory));
      commit_removal(op, *above, *inode, pages, name);
      if (inode->record.link_count == 0 && lookups_.is_zero(inode->number)) unheld = inode->number;
      return {};
    }
  });
  if (status.ok() && unheld != InodeNumber{}) reclaim_unheld(unheld);
  return status;
}

// kNotFound when the name is another inode's by now.
Status Engine::remove_locked(Operation& op, Inode& directory, Inode& inode, std::string_view name) {
  InodeDirectoryPages pages(*this, op, directory);
  TARNFS_TRY(named_as_found(remove_entry(pages, superblock_.name_hash_seed, name), inode));
  commit_removal(op, directory, inode, pages, name);
  return {};
}

// `pages` have the directory without the name.
void Engine::commit_removal(Operation& op, Inode& directory, Inode& inode, InodeDirectoryPages& pages,
                            std::string_view name) {
  begin_change(op, directory);
  pages.commit(directory);
  directory.record.entry_count -= 1;
  if (S_ISDIR(inode.record.mode)) directory.record.link_count -= 1;
  touch_changed(op, directory, true);
  drop_link(op, inode);
  log_name(op, JournalRemove{directory.number, name, inode.number});
}

Status Engine::unlink(InodeNumber parent, std::string_view name) {
  return remove_name(parent, name, false);
}

Status Engine::remove_directory(InodeNumber parent, std::string_view name) {
  return remove_name(parent, name, true);
}

Result<std::string> Engine::symlink_target(InodeNumber number) {
  bool accessed = false;
  auto target = run(Intent::kRead, 0, [&](Operation& op) -> Result<std::string> {
    TARNFS_ASSIGN(const InodePtr inode, get_inode(op, number));
    ReadLock lock(inode->mutex);
    if (!S_ISLNK(inode->record.mode)) return Error(ErrorCode::kInvalid);
    accessed = notes_access(inode->record, op.now());
    if (inode->record.layout != kInodeInlineTarget) return content_of(op, *inode);
    if (inode->record.size_bytes > kInlineSymlinkMaxBytes) {
      return Error(ErrorCode::kCorrupt, device_.name() + ": a symlink's target is too long for its inode");
    }
    return std::string(reinterpret_cast<const char*>(inode->record.pointers.data()), inode->record.size_bytes);
  });
  if (target.ok() && accessed) touch_accessed(number);
  return target;
}

}  // namespace tarnfs
