#include "fs/fuse/privileges.h"

#include <sys/stat.h>

#include <algorithm>
#include <vector>

namespace tarnfs {
namespace {

constexpr uid_t kRoot = 0;  // stands for CAP_FSETID, of which a request does not tell

bool is_in_group(fuse_req_t request, gid_t group) {
  const fuse_ctx* const caller = fuse_req_ctx(request);
  if (caller->uid == kRoot || caller->gid == group) return true;
  std::vector<gid_t> groups(64);
  int count = fuse_req_getgroups(request, static_cast<int>(groups.size()), groups.data());
  if (count > static_cast<int>(groups.size())) {
    groups.resize(static_cast<std::size_t>(count));
    count = fuse_req_getgroups(request, count, groups.data());
  }
  groups.resize(std::min(groups.size(), static_cast<std::size_t>(std::max(0, count))));
  return std::find(groups.begin(), groups.end(), group) != groups.end();
}

Status set_mode(fuse_req_t request, const Attributes& before, std::uint32_t mode) {
  if (mode == before.mode) return {};
  const FrontEnd& front_end = front_end_of(request);
  AttributeChanges changes;
  changes.mode = mode & 07777;
  const auto changed = front_end.file_system.change_attributes(before.inode, changes);
  if (!changed.ok()) return changed.error();
  front_end.forget_attributes(before.inode);
  return {};
}

}  // namespace

std::uint32_t mode_without_privileges(fuse_req_t request, const Attributes& attributes) {
  std::uint32_t mode = attributes.mode & ~static_cast<std::uint32_t>(S_ISUID);
  const bool group_goes = (mode & S_ISGID) != 0 && ((mode & S_IXGRP) != 0 || !is_in_group(request, attributes.gid));
  if (group_goes) mode &= ~static_cast<std::uint32_t>(S_ISGID);
  return mode;
}

Status drop_privileges(fuse_req_t request, InodeNumber inode) {
  TARNFS_ASSIGN(const Attributes before, file_system_of(request).attributes(inode));
  if ((before.mode & (S_ISUID | S_ISGID)) == 0) return {};
  return set_mode(request, before, mode_without_privileges(request, before));
}

Status drop_privileges_unless_root(fuse_req_t request, InodeNumber inode) {
  const bool keeps = !front_end_of(request).drops_privileges || fuse_req_ctx(request)->uid == kRoot;
  return keeps ? Status() : drop_privileges(request, inode);
}

Status drop_group_privilege(fuse_req_t request, InodeNumber inode) {
  if (fuse_req_ctx(request)->uid == kRoot) return {};
  TARNFS_ASSIGN(const Attributes before, file_system_of(request).attributes(inode));
  if ((before.mode & S_ISGID) == 0 || is_in_group(request, before.gid)) return {};
  return set_mode(request, before, before.mode & ~static_cast<std::uint32_t>(S_ISGID));
}

}  // namespace tarnfs
