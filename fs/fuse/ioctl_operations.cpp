// chattr(1) and lsattr(1): the kernel checks who may and sends FS_IOC_* requests with fixed sizes.
//
// FS_IOC_SHUTDOWN comes from any file or directory that can be opened, and the kernel checks nothing. It is declared as
// one that reads, so its flags stay with the caller: all of them mean the same here. FITRIM, fstrim(8), is not checked
// by the kernel either.
#include <linux/fs.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "common/log.h"
#include "fs/fuse/caller.h"
#include "fs/fuse/front_end.h"

namespace tarnfs {
namespace {

constexpr unsigned kShutdownCommand = _IOR('X', 125, std::uint32_t);  // FS_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN

struct FlagPair {
  std::uint32_t flag;   // FS_*_FL
  std::uint32_t xflag;  // FS_XFLAG_*
};

// What an inode can keep.
constexpr std::array<FlagPair, 4> kFlags = {{
    {FS_IMMUTABLE_FL, FS_XFLAG_IMMUTABLE},
    {FS_APPEND_FL, FS_XFLAG_APPEND},
    {FS_NODUMP_FL, FS_XFLAG_NODUMP},
    {FS_NOATIME_FL, FS_XFLAG_NOATIME},
}};

constexpr std::uint32_t known_flags() {
  std::uint32_t all = 0;
  for (const FlagPair& pair : kFlags) all |= pair.flag;
  return all;
}

constexpr std::uint32_t xflags_of(std::uint32_t flags) {
  std::uint32_t result = 0;
  for (const FlagPair& pair : kFlags) {
    if ((flags & pair.flag) != 0) result |= pair.xflag;
  }
  return result;
}

Result<std::uint32_t> flags_of(std::uint32_t xflags) {
  std::uint32_t result = 0;
  for (const FlagPair& pair : kFlags) {
    if ((xflags & pair.xflag) != 0) result |= pair.flag;
    xflags &= ~pair.xflag;
  }
  if (xflags != 0) return Error(ErrorCode::kUnsupported);
  return result;
}

// The kernel cannot be made to ask again for opens once it was told that it need not.
void tell_of_silent_opens(FrontEnd& front_end) {
  if (!front_end.open_is_silent || front_end.told_of_silent_opens.exchange(true)) return;
  log_warning(
      "a file became immutable or append-only: from the next mount on it cannot be opened for writing; with the option "
      "chattr=strict that holds at once");
}

Status set_flags(FrontEnd& front_end, InodeNumber inode, std::uint32_t flags) {
  if ((flags & ~known_flags()) != 0) return Error(ErrorCode::kUnsupported);
  AttributeChanges changes;
  changes.flags = flags;
  auto changed = front_end.file_system.change_attributes(inode, changes);
  if (!changed.ok()) return changed.error();
  if ((flags & kProtectingFlags) != 0 && S_ISREG(changed->mode)) tell_of_silent_opens(front_end);
  return {};
}

void reply_flags(fuse_req_t request, std::uint32_t flags, std::size_t out_bytes) {
  // The command's number says long, everybody means int: the kernel asks for 4 bytes, others for 8.
  const std::uint64_t wide = flags;
  fuse_reply_ioctl(request, 0, &wide, std::min(out_bytes, sizeof wide));
}

void reply_fsxattr(fuse_req_t request, std::uint32_t flags) {
  fsxattr reply{};
  reply.fsx_xflags = xflags_of(flags);
  fuse_reply_ioctl(request, 0, &reply, sizeof reply);
}

void finish_set(fuse_req_t request, const Status& status) {
  if (!status.ok()) {
    reply_error(request, status.error());
    return;
  }
  fuse_reply_ioctl(request, 0, nullptr, 0);
}

void set_fsxattr(fuse_req_t request, InodeNumber inode, const void* in) {
  fsxattr wanted{};
  std::memcpy(&wanted, in, sizeof wanted);
  if (wanted.fsx_extsize != 0 || wanted.fsx_projid != 0 || wanted.fsx_cowextsize != 0) {
    finish_set(request, Error(ErrorCode::kUnsupported));
    return;
  }
  const auto flags = flags_of(wanted.fsx_xflags);
  finish_set(request, flags.ok() ? set_flags(front_end_of(request), inode, *flags) : Status(flags.error()));
}

void get_flags(fuse_req_t request, InodeNumber inode, bool extended, std::size_t out_bytes) {
  const auto attributes = file_system_of(request).attributes(inode);
  if (!attributes.ok()) {
    reply_error(request, attributes.error());
  } else if (extended) {
    reply_fsxattr(request, attributes->flags & known_flags());
  } else {
    reply_flags(request, attributes->flags & known_flags(), out_bytes);
  }
}

// As elsewhere it asks for CAP_SYS_ADMIN, of which FUSE tells no more than the caller's number.
void shut_down(fuse_req_t request) {
  if (!asks_as_root(request)) {
    finish_set(request, Error(ErrorCode::kNotPermitted));
    return;
  }
  finish_set(request, file_system_of(request).shut_down());
}

void trim(fuse_req_t request, const void* in) {
  if (!asks_as_root(request)) {
    finish_set(request, Error(ErrorCode::kNotPermitted));
    return;
  }
  fstrim_range range{};
  std::memcpy(&range, in, sizeof range);
  const auto trimmed_bytes = file_system_of(request).trim({range.start, range.len, range.minlen});
  if (!trimmed_bytes.ok()) {
    reply_error(request, trimmed_bytes.error());
    return;
  }
  range.len = *trimmed_bytes;
  fuse_reply_ioctl(request, 0, &range, sizeof range);
}

}  // namespace

void answer_ioctl(fuse_req_t request, fuse_ino_t inode, unsigned command, void* /*argument*/, fuse_file_info* /*file*/,
                  unsigned flags, const void* in, std::size_t in_bytes, std::size_t out_bytes) {
  if ((flags & FUSE_IOCTL_COMPAT) != 0) {
    fuse_reply_err(request, ENOTTY);
    return;
  }
  if (command == kShutdownCommand) {
    shut_down(request);
  } else if (command == FS_IOC_GETFLAGS && out_bytes >= sizeof(std::uint32_t)) {
    get_flags(request, inode_of(inode), false, out_bytes);
  } else if (command == FS_IOC_FSGETXATTR && out_bytes >= sizeof(fsxattr)) {
    get_flags(request, inode_of(inode), true, out_bytes);
  } else if (command == FS_IOC_SETFLAGS && in_bytes >= sizeof(std::uint32_t)) {
    std::uint32_t wanted = 0;
    std::memcpy(&wanted, in, sizeof wanted);
    finish_set(request, set_flags(front_end_of(request), inode_of(inode), wanted));
  } else if (command == FS_IOC_FSSETXATTR && in_bytes >= sizeof(fsxattr)) {
    set_fsxattr(request, inode_of(inode), in);
  } else if (command == FITRIM && in_bytes >= sizeof(fstrim_range) && out_bytes >= sizeof(fstrim_range)) {
    trim(request, in);
  } else {
    fuse_reply_err(request, ENOTTY);
  }
}

}  // namespace tarnfs
