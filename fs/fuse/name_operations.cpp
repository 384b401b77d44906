#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <chrono>
#include <string_view>
#include <thread>

#include "fs/fuse/front_end.h"
#include "fs/fuse/put_off.h"

namespace tarnfs {
namespace {

// The kernel sends names of up to 1024 bytes.
bool refuse_long_name(fuse_req_t request, std::string_view name) {
  if (name.size() <= kNameMaxBytes) return false;
  fuse_reply_err(request, ENAMETOOLONG);
  return true;
}

// "." asks for an inode by its number alone, of whatever type: a file handle that the NFS server kept.
Result<Attributes> look_up_by_number(FileSystem& file_system, InodeNumber inode) {
  auto found = file_system.attributes_with_lookup(inode);
  if (!found.ok() && found.error().code() == ErrorCode::kNotFound) return Error(ErrorCode::kStale);
  return found;
}

void answer_lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  if (refuse_long_name(request, name)) return;
  FileSystem& file_system = file_system_of(request);
  const KernelCache::Answer answer = answer_to(request);
  if (std::string_view(name) == ".") {
    reply_entry(request, answer, look_up_by_number(file_system, inode_of(parent)));
    return;
  }
  const auto found = file_system.lookup(inode_of(parent), name);
  if (!found.ok() && found.error().code() == ErrorCode::kNotFound) {
    answer.note_missing(inode_of(parent));
    fuse_entry_param missing{};
    missing.entry_timeout = kept_seconds(answer);
    fuse_reply_entry(request, &missing);
    return;
  }
  reply_entry(request, answer, found);
}

// Over io_uring forgets still come by /dev/fuse, where waking a thread for each costs more than all else that the
// kernel does to drop an inode. Those that gather in a pause come in one message.
void let_forgets_gather(const FrontEnd& front_end) {
  constexpr std::chrono::milliseconds kPause{1};
  if (front_end.forgets_come_alone.load(std::memory_order_relaxed)) std::this_thread::sleep_for(kPause);
}

// The kernel has nobody left who has it open.
void forget(FrontEnd& front_end, InodeNumber inode, std::uint64_t count) {
  front_end.failed_writes.take(inode);
  front_end.file_system.forget(inode, count);
}

void answer_forget(fuse_req_t request, fuse_ino_t inode, std::uint64_t count) {
  FrontEnd& front_end = front_end_of(request);
  forget(front_end, inode_of(inode), count);
  fuse_reply_none(request);
  let_forgets_gather(front_end);
}

void answer_forget_multi(fuse_req_t request, std::size_t count, fuse_forget_data* forgets) {
  FrontEnd& front_end = front_end_of(request);
  for (std::size_t i = 0; i < count; ++i) forget(front_end, inode_of(forgets[i].ino), forgets[i].nlookup);
  fuse_reply_none(request);
  let_forgets_gather(front_end);
}

void answer_mknod(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, dev_t device) {
  if (refuse_long_name(request, name)) return;
  NewNode node{.mode = mode, .caller = caller_of(request)};
  if (S_ISCHR(mode) || S_ISBLK(mode)) {
    node.device_major = major(device);
    node.device_minor = minor(device);
  }
  const KernelCache::Answer answer = answer_to(request);
  reply_entry(request, answer, file_system_of(request).make_node(inode_of(parent), name, node));
}

void answer_mkdir(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {
  if (refuse_long_name(request, name)) return;
  const NewNode node{.mode = S_IFDIR | (mode & 07777U), .caller = caller_of(request)};
  const KernelCache::Answer answer = answer_to(request);
  reply_entry(request, answer, file_system_of(request).make_node(inode_of(parent), name, node));
}

void answer_symlink(fuse_req_t request, const char* target, fuse_ino_t parent, const char* name) {
  if (refuse_long_name(request, name)) return;
  if (std::string_view(target).size() > kSymlinkTargetMaxBytes) {
    fuse_reply_err(request, ENAMETOOLONG);
    return;
  }
  const NewNode node{.mode = S_IFLNK | 0777U, .symlink_target = target, .caller = caller_of(request)};
  const KernelCache::Answer answer = answer_to(request);
  reply_entry(request, answer, file_system_of(request).make_node(inode_of(parent), name, node));
}

void answer_unlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
  if (refuse_long_name(request, name)) return;
  reply_status(request, file_system_of(request).unlink(inode_of(parent), name));
}

void answer_rmdir(fuse_req_t request, fuse_ino_t parent, const char* name) {
  if (refuse_long_name(request, name)) return;
  reply_status(request, file_system_of(request).remove_directory(inode_of(parent), name));
}

void answer_rename(fuse_req_t request, fuse_ino_t from, const char* from_name, fuse_ino_t to, const char* to_name,
                   unsigned flags) {
  if (refuse_long_name(request, from_name) || refuse_long_name(request, to_name)) return;
  RenameMode mode = RenameMode::kReplace;
  if (flags == RENAME_EXCHANGE) {
    mode = RenameMode::kExchange;
  } else if ((flags & ~(RENAME_NOREPLACE | RENAME_WHITEOUT)) != 0) {
    fuse_reply_err(request, EINVAL);
    return;
  } else if ((flags & RENAME_NOREPLACE) != 0) {
    mode = RenameMode::kNoReplace;
  }
  FileSystem& file_system = file_system_of(request);
  if ((flags & RENAME_WHITEOUT) == 0) {
    reply_status(request, file_system.rename(inode_of(from), from_name, inode_of(to), to_name, mode));
    return;
  }
  // A whiteout, as the kernel's overlay file system knows it, is a character device 0:0 without permissions.
  const NewNode whiteout{.mode = S_IFCHR, .caller = caller_of(request)};
  reply_status(request, file_system.rename_leaving(inode_of(from), from_name, inode_of(to), to_name, mode, whiteout));
}

void answer_link(fuse_req_t request, fuse_ino_t inode, fuse_ino_t parent, const char* name) {
  if (refuse_long_name(request, name)) return;
  const KernelCache::Answer answer = answer_to(request);
  reply_entry(request, answer, file_system_of(request).link(inode_of(inode), inode_of(parent), name));
}

NewNode new_file(fuse_req_t request, mode_t mode) {
  return NewNode{.mode = S_IFREG | (mode & 07777U), .caller = caller_of(request)};
}

void reply_new_file(fuse_req_t request, const KernelCache::Answer& answer, const Result<Attributes>& made,
                    fuse_file_info* file) {
  if (!made.ok()) {
    reply_error(request, made.error());
    return;
  }
  const fuse_entry_param entry = entry_of(answer, *made);
  file->keep_cache = true;
  if (fuse_reply_create(request, &entry, file) != 0) file_system_of(request).forget(made->inode, 1);
}

void answer_tmpfile(fuse_req_t request, fuse_ino_t parent, mode_t mode, fuse_file_info* file) {
  const KernelCache::Answer answer = answer_to(request);
  reply_new_file(request, answer, file_system_of(request).make_unnamed(inode_of(parent), new_file(request, mode)),
                 file);
}

void answer_create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* file) {
  if (request_extras().unnamed) {
    answer_tmpfile(request, parent, mode, file);
    return;
  }
  if (front_end_of(request).open_is_silent) {
    // From now on the kernel sends MKNOD and opens by itself: a file that came by CREATE costs a RELEASE when it is
    // closed.
    fuse_reply_err(request, ENOSYS);
    return;
  }
  if (refuse_long_name(request, name)) return;
  const KernelCache::Answer answer = answer_to(request);
  reply_new_file(request, answer, file_system_of(request).make_node(inode_of(parent), name, new_file(request, mode)),
                 file);
}

template <class Operations>
void add_tmpfile(Operations& operations) {
  if constexpr (requires { operations.tmpfile; }) operations.tmpfile = answered_here<answer_tmpfile>();
}

}  // namespace

void add_name_operations(fuse_lowlevel_ops& operations) {
  operations.lookup = answered_here<answer_lookup>();
  operations.forget = answer_forget;
  operations.forget_multi = answer_forget_multi;
  operations.mknod = answered_here<answer_mknod>();
  operations.mkdir = answered_here<answer_mkdir>();
  operations.symlink = answered_here<answer_symlink>();
  operations.unlink = answered_here<answer_unlink>();
  operations.rmdir = answered_here<answer_rmdir>();
  operations.rename = answered_here<answer_rename>();
  operations.link = answered_here<answer_link>();
  operations.create = answered_here<answer_create>();
  add_tmpfile(operations);
}

}  // namespace tarnfs
