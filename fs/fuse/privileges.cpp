#include "fs/fuse/privileges.h"

#include <sys/stat.h>

#include "fs/fuse/caller.h"

namespace tarnfs {
namespace {

// Root stands for CAP_FSETID, of which a request does not tell.
bool may_keep_group_of(fuse_req_t request, gid_t group) {
  return asks_as_root(request) || asks_in_group(request, group);
}

Status set_mode(fuse_req_t request, const Attributes& before, std::uint32_t mode) {
  if (mode == before.mode) return {};
  const FrontEnd& front_end = front_end_of(request);
  AttributeChanges changes;
  changes.mode = mode & 07777;
  if (front_end.kernel_writes_back) changes.changed = before.changed;  // it notes the time of the write
  const auto changed = front_end.file_system.change_attributes(before.inode, changes);
  if (!changed.ok()) return changed.error();
  front_end.forget_attributes(before.inode);
  return {};
}

}  // namespace

std::uint32_t mode_without_privileges(fuse_req_t request, const Attributes& attributes) {
  std::uint32_t mode = attributes.mode & ~static_cast<std::uint32_t>(S_ISUID);
  const bool group_goes =
      (mode & S_ISGID) != 0 && ((mode & S_IXGRP) != 0 || !may_keep_group_of(request, attributes.gid));
  if (group_goes) mode &= ~static_cast<std::uint32_t>(S_ISGID);
  return mode;
}

Status drop_privileges(fuse_req_t request, InodeNumber inode) {
  TARNFS_ASSIGN(const Attributes before, file_system_of(request).attributes(inode));
  if ((before.mode & (S_ISUID | S_ISGID)) == 0) return {};
  return set_mode(request, before, mode_without_privileges(request, before));
}

Status drop_privileges_unless_root(fuse_req_t request, InodeNumber inode) {
  if (!front_end_of(request).drops_privileges) return {};
  TARNFS_ASSIGN(const Attributes before, file_system_of(request).attributes(inode));
  if ((before.mode & (S_ISUID | S_ISGID)) == 0 || asks_as_root(request)) return {};
  return set_mode(request, before, mode_without_privileges(request, before));
}

Status drop_group_privilege(fuse_req_t request, InodeNumber inode) {
  TARNFS_ASSIGN(const Attributes before, file_system_of(request).attributes(inode));
  if ((before.mode & S_ISGID) == 0 || may_keep_group_of(request, before.gid)) return {};
  return set_mode(request, before, before.mode & ~static_cast<std::uint32_t>(S_ISGID));
}

}  // namespace tarnfs
