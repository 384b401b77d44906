#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#include <cerrno>
#include <string>

#include "common/clock.h"
#include "fs/engine/posix_acl.h"
#include "fs/engine/waiting.h"
#include "fs/fuse/caller.h"
#include "fs/fuse/errno_map.h"
#include "fs/fuse/front_end.h"
#include "fs/fuse/privileges.h"
#include "fs/fuse/put_off.h"

namespace tarnfs {
namespace {

constexpr std::string_view kTrustedPrefix = "trusted.";

Timestamp timestamp_of(const timespec& time) {
  return {time.tv_sec, static_cast<std::uint32_t>(time.tv_nsec)};
}

// Not of the kernel's own times: it does not look at what they are answered with.
void note_asked(fuse_req_t request, fuse_ino_t inode) {
  AttributeNotices* const notices = front_end_of(request).attribute_notices;
  if (notices != nullptr) notices->note_asked(inode_of(inode));
}

// With a file it is asked for by write(2), and by a read or seek that wants to know where the file ends.
void answer_getattr(fuse_req_t request, fuse_ino_t inode, fuse_file_info* file) {
  if (file != nullptr) {
    if (const auto failed = front_end_of(request).failed_writes.take(inode_of(inode))) {
      fuse_reply_err(request, errno_of(*failed));
      return;
    }
  }
  note_asked(request, inode);
  const KernelCache::Answer answer = answer_to(request);
  reply_attributes(request, answer, file_system_of(request).attributes(inode_of(inode)));
}

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
statx_timestamp statx_time_of(const Timestamp& time) {
  return {.tv_sec = time.seconds, .tv_nsec = time.nanoseconds};
}

// Asked for instead of GETATTR by who wants to know the time of birth.
void answer_statx(fuse_req_t request, fuse_ino_t inode, int /*flags*/, int /*mask*/, fuse_file_info* /*file*/) {
  note_asked(request, inode);
  const KernelCache::Answer answer = answer_to(request);
  const auto attributes = file_system_of(request).attributes(inode_of(inode));
  if (!attributes.ok()) {
    reply_error(request, attributes.error());
    return;
  }
  const struct stat basic = stat_of(*attributes);
  struct statx result {};
  result.stx_mask = STATX_BASIC_STATS | STATX_BTIME;
  result.stx_blksize = static_cast<std::uint32_t>(basic.st_blksize);
  result.stx_nlink = static_cast<std::uint32_t>(basic.st_nlink);
  result.stx_uid = basic.st_uid;
  result.stx_gid = basic.st_gid;
  result.stx_mode = static_cast<std::uint16_t>(basic.st_mode);
  result.stx_ino = basic.st_ino;
  result.stx_size = static_cast<std::uint64_t>(basic.st_size);
  result.stx_blocks = static_cast<std::uint64_t>(basic.st_blocks);
  result.stx_rdev_major = attributes->device_major;
  result.stx_rdev_minor = attributes->device_minor;
  result.stx_atime = statx_time_of(attributes->accessed);
  result.stx_mtime = statx_time_of(attributes->modified);
  result.stx_ctime = statx_time_of(attributes->changed);
  result.stx_btime = statx_time_of(attributes->born);
  fuse_reply_statx(request, 0, &result, kept_seconds(answer));
}
#endif

void set_times(AttributeChanges& changes, const struct stat& wanted, int to_set) {
  constexpr int kNow = FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW;
  const Timestamp now = (to_set & kNow) != 0 ? system_clock().now() : Timestamp{};
  if ((to_set & FUSE_SET_ATTR_ATIME_NOW) != 0) {
    changes.accessed = now;
  } else if ((to_set & FUSE_SET_ATTR_ATIME) != 0) {
    changes.accessed = timestamp_of(wanted.st_atim);
  }
  if ((to_set & FUSE_SET_ATTR_MTIME_NOW) != 0) {
    changes.modified = now;
  } else if ((to_set & FUSE_SET_ATTR_MTIME) != 0) {
    changes.modified = timestamp_of(wanted.st_mtim);
  }
  // utimes(2) with times: those of a change are "now", or come without an access time.
  changes.sets_times = (to_set & FUSE_SET_ATTR_ATIME) != 0 && (to_set & FUSE_SET_ATTR_ATIME_NOW) == 0;
  // Sent with the writeback cache: the kernel owns the ctime of regular files.
  if ((to_set & FUSE_SET_ATTR_CTIME) != 0) changes.changed = timestamp_of(wanted.st_ctim);
}

// Truncation by somebody without the right, which the kernel says, and every change of owner take privileges away; a
// directory's set-group-id is none of them. chown(path, -1, -1) is one too: all that comes of it is the time of change,
// where the kernel keeps that. There a request with nothing at all follows a write that has cost the file its
// capabilities, and root keeps the bits.
Status drop_privileges_with(AttributeChanges& changes, fuse_req_t request, InodeNumber inode, int to_set) {
  const FrontEnd& front_end = front_end_of(request);
  const bool owners_change = changes.uid || changes.gid || (to_set & ~FUSE_SET_ATTR_CTIME) == 0;
  const bool others_change = (to_set & FUSE_SET_ATTR_KILL_SUID) != 0 || owners_change;
  if (!front_end.drops_privileges || changes.mode || !others_change) return {};
  TARNFS_ASSIGN(const Attributes before, front_end.file_system.attributes(inode));
  const bool follows_write = to_set == 0 && front_end.kernel_writes_back && S_ISREG(before.mode);
  if (follows_write && asks_as_root(request)) return {};
  const std::uint32_t mode = mode_without_privileges(request, before);
  if (!S_ISDIR(before.mode) && mode != before.mode) changes.mode = mode & 07777;
  return {};
}

void answer_setattr(fuse_req_t request, fuse_ino_t inode, struct stat* wanted, int to_set, fuse_file_info* file) {
  AttributeChanges changes;
  if ((to_set & FUSE_SET_ATTR_MODE) != 0) changes.mode = wanted->st_mode & 07777U;
  if ((to_set & FUSE_SET_ATTR_UID) != 0) changes.uid = wanted->st_uid;
  if ((to_set & FUSE_SET_ATTR_GID) != 0) changes.gid = wanted->st_gid;
  if ((to_set & FUSE_SET_ATTR_SIZE) != 0) changes.size_bytes = static_cast<std::uint64_t>(wanted->st_size);
  set_times(changes, *wanted, to_set);
  // The kernel's own come with the file that it wrote for; utimes(2) comes without one.
  changes.writes_back = file != nullptr && to_set == (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_CTIME);
  if (const Status dropped = drop_privileges_with(changes, request, inode_of(inode), to_set); !dropped.ok()) {
    reply_error(request, dropped.error());
    return;
  }
  if (!changes.writes_back) note_asked(request, inode);
  const KernelCache::Answer answer = answer_to(request);
  reply_attributes(request, answer, file_system_of(request).change_attributes(inode_of(inode), changes));
}

void answer_readlink(fuse_req_t request, fuse_ino_t inode) {
  const auto target = file_system_of(request).symlink_target(inode_of(inode));
  if (!target.ok()) {
    reply_error(request, target.error());
    return;
  }
  fuse_reply_readlink(request, target->c_str());
}

// Size 0 asks for the length.
void reply_value(fuse_req_t request, const std::string& value, std::size_t size) {
  if (size == 0) {
    fuse_reply_xattr(request, value.size());
  } else if (value.size() > size) {
    fuse_reply_err(request, ERANGE);
  } else {
    fuse_reply_buf(request, value.data(), value.size());
  }
}

bool is_acl(std::string_view name) {
  return name == kAccessAclName || name == kDefaultAclName;
}

// The namespaces of xattr(7): what else there may be one day must not be taken for nothing now.
Status check_namespace(std::string_view name) {
  if (is_acl(name)) return {};
  for (const std::string_view prefix : {std::string_view("user."), kTrustedPrefix, std::string_view("security.")}) {
    if (name.starts_with(prefix)) return name.size() > prefix.size() ? Status() : Error(ErrorCode::kInvalid);
  }
  return Error(ErrorCode::kUnsupported);
}

void answer_getxattr(fuse_req_t request, fuse_ino_t inode, const char* name, std::size_t size) {
  if (const Status known = check_namespace(name); !known.ok()) {
    reply_error(request, known.error());
    return;
  }
  // The kernel keeps ACLs, and no other attributes.
  KernelCache* const cache = front_end_of(request).kernel_cache;
  if (cache != nullptr && is_acl(name) && !cache->before_acl(inode_of(inode))) {
    reply_error(request, Error(ErrorCode::kWouldWait));
    return;
  }
  const auto value = file_system_of(request).xattr(inode_of(inode), name);
  if (!value.ok()) {
    reply_error(request, value.error());
    return;
  }
  reply_value(request, *value, size);
}

void answer_listxattr(fuse_req_t request, fuse_ino_t inode, std::size_t size) {
  const auto names = file_system_of(request).xattr_names(inode_of(inode));
  if (!names.ok()) {
    reply_error(request, names.error());
    return;
  }
  std::string list;
  for (const std::string& name : *names) {
    // The kernel lets nobody else read them.
    if (name.starts_with(kTrustedPrefix) && !asks_as_root(request)) continue;
    list.append(name).push_back('\0');
  }
  reply_value(request, list, size);
}

void answer_setxattr(fuse_req_t request, fuse_ino_t inode, const char* name, const char* value, std::size_t size,
                     int flags) {
  XattrMode mode = XattrMode::kCreateOrReplace;
  if ((flags & XATTR_CREATE) != 0) mode = XattrMode::kCreate;
  if ((flags & XATTR_REPLACE) != 0) mode = XattrMode::kReplace;
  if (std::string_view(name).size() > kNameMaxBytes) {
    fuse_reply_err(request, ERANGE);
    return;
  }
  if (const Status known = check_namespace(name); !known.ok()) {
    reply_error(request, known.error());
    return;
  }
  const auto bytes = std::as_bytes(std::span<const char>(value, size));
  const Status set = file_system_of(request).set_xattr(inode_of(inode), name, bytes, mode);
  if (!set.ok() || name != kAccessAclName) {
    reply_status(request, set);
    return;
  }
  const WaitScope scope;  // the ACL is set already: this is not put off
  reply_status(request, drop_group_privilege(request, inode_of(inode)));
}

void answer_removexattr(fuse_req_t request, fuse_ino_t inode, const char* name) {
  const Status known = check_namespace(name);
  reply_status(request, known.ok() ? file_system_of(request).remove_xattr(inode_of(inode), name) : known);
}

}  // namespace

void add_inode_operations(fuse_lowlevel_ops& operations) {
  operations.getattr = answered_here<answer_getattr>();
  operations.setattr = answered_here<answer_setattr>();
  operations.readlink = answered_here<answer_readlink>();
  operations.getxattr = answered_here<answer_getxattr>();
  operations.listxattr = answered_here<answer_listxattr>();
  operations.setxattr = answered_here<answer_setxattr>();
  operations.removexattr = answered_here<answer_removexattr>();
  operations.ioctl = answered_here<answer_ioctl>();
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
  operations.statx = answered_here<answer_statx>();
#endif
}

}  // namespace tarnfs
