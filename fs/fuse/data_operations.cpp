#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "fs/fuse/front_end.h"
#include "fs/fuse/privileges.h"
#include "fs/fuse/put_off.h"
#include "fs/fuse/transport.h"

namespace tarnfs {
namespace {

// The reply has 32 bits for what was copied.
constexpr std::size_t kCopyMaxBytes = 0xfffff000;

// Of reads and writes: those above take longer, whether they wait or not.
constexpr std::size_t kSmallMaxBytes = std::size_t{64} << 10;

// As the kernel checks it where it knows these flags: nobody writes to an immutable file, or anywhere but at the end of
// one that is append-only. O_TRUNC comes as SETATTR.
Status check_open(fuse_req_t request, InodeNumber inode, int flags) {
  if ((flags & O_ACCMODE) == O_RDONLY || !front_end_of(request).checks_opens) return {};
  TARNFS_ASSIGN(const Attributes attributes, file_system_of(request).attributes(inode));
  const std::uint32_t refusing = (flags & O_APPEND) != 0 ? FS_IMMUTABLE_FL : kProtectingFlags;
  return (attributes.flags & refusing) != 0 ? Status(Error(ErrorCode::kNotPermitted)) : Status();
}

void answer_open(fuse_req_t request, fuse_ino_t inode, fuse_file_info* file) {
  const FrontEnd& front_end = front_end_of(request);
  if (front_end.open_is_silent) {
    fuse_reply_err(request, ENOSYS);
    return;
  }
  if (const Status allowed = check_open(request, inode_of(inode), file->flags); !allowed.ok()) {
    reply_error(request, allowed.error());
    return;
  }
  file->keep_cache = true;
  fuse_reply_open(request, file);
}

void answer_release(fuse_req_t request, fuse_ino_t /*inode*/, fuse_file_info* /*file*/) {
  fuse_reply_err(request, 0);
}

// Nothing hangs on a close: the kernel need not tell.
void answer_flush(fuse_req_t request, fuse_ino_t /*inode*/, fuse_file_info* /*file*/) {
  fuse_reply_err(request, ENOSYS);
}

void read_and_answer(fuse_req_t request, fuse_ino_t inode, std::size_t size, off_t offset, ReadOptions options) {
  const std::span<std::byte> buffer = reply_buffer(request, size);
  const auto bytes = file_system_of(request).read(inode_of(inode), static_cast<std::uint64_t>(offset), buffer, options);
  if (!bytes.ok()) {
    reply_error(request, bytes.error());
    return;
  }
  fuse_reply_buf(request, reinterpret_cast<const char*>(buffer.data()), *bytes);
}

// Waits until the read may fill pages; over io_uring it is false instead.
template <class BeforeRead>
bool may_fill_here(fuse_req_t request, const BeforeRead& before_read) {
  if (!is_over_io_uring(request)) return before_read();
  const NoWaitScope scope;
  return before_read();
}

void answer_read(fuse_req_t request, fuse_ino_t inode, std::size_t size, off_t offset, fuse_file_info* file) {
  const ReadOptions options{.notes_access = (file->flags & O_NOATIME) == 0};
  const auto answer = [=] { read_and_answer(request, inode, size, offset, options); };
  if (KernelCache* const cache = front_end_of(request).kernel_cache; cache != nullptr) {
    const auto before_read = [=] {
      return cache->before_read(inode_of(inode), static_cast<std::uint64_t>(offset), size);
    };
    if (!may_fill_here(request, before_read)) {
      // Not here: this thread may be the one that another read needs, which has the page locked that is waited for.
      const auto wait_and_answer = [=] {
        (void)before_read();
        answer();
      };
      if (!run_elsewhere(request, wait_and_answer)) wait_and_answer();
      return;
    }
  }
  if (size <= kSmallMaxBytes) {
    answer_here_or_elsewhere(request, answer);
  } else {
    may_wait(request, front_end_of(request).large_reads, answer);
  }
}

// The data as memory: where it already is, or copied out of a pipe.
Result<std::span<const std::byte>> data_of(fuse_bufvec& data) {
  const std::size_t size = fuse_buf_size(&data);
  const fuse_buf& first = data.buf[data.idx];
  if (data.count - data.idx == 1 && (first.flags & FUSE_BUF_IS_FD) == 0) {
    return std::as_bytes(std::span<const char>(static_cast<const char*>(first.mem) + data.off, size - data.off));
  }
  const std::span<std::byte> buffer = thread_buffer(size);
  fuse_bufvec copy{};
  copy.count = 1;
  copy.buf[0].size = size;
  copy.buf[0].mem = buffer.data();
  const ssize_t copied = fuse_buf_copy(&copy, &data, FUSE_BUF_NO_SPLICE);
  if (copied < 0) return Error(ErrorCode::kIo, "receive the data of a write");
  return std::span<const std::byte>(buffer.first(static_cast<std::size_t>(copied)));
}

struct WriteKind {
  bool from_page_cache;
  bool drops_privileges;
};

// The next write(2) to the file is to hear of it, as fsync(2) and close(2) will.
void note_failed_write(FrontEnd& front_end, InodeNumber inode, ErrorCode error) {
  front_end.failed_writes.note(inode, error);
  if (front_end.attribute_notices != nullptr) front_end.attribute_notices->note_failed(inode);
}

// Writes what the kernel's cache had accepted. On a full volume whoever writes on is told so, and this still has what
// is kept for it.
Status write_accepted(FrontEnd& front_end, FileSystem& file_system, InodeNumber inode, std::uint64_t offset,
                      std::span<const std::byte> bytes) {
  WriteOptions options{.from_page_cache = true};
  Status status = file_system.write(inode, offset, bytes, options);
  if (status.ok() && front_end.attribute_notices != nullptr) front_end.attribute_notices->note_grown(inode);
  if (status.ok() || status.error().code() == ErrorCode::kWouldWait) return status;
  note_failed_write(front_end, inode, status.error().code());
  if (status.error().code() != ErrorCode::kNoSpace) return status;
  options.already_accepted = true;
  return file_system.write(inode, offset, bytes, options);
}

void write_and_answer(fuse_req_t request, fuse_ino_t inode, off_t offset, std::span<const std::byte> bytes,
                      WriteKind kind) {
  Status status = kind.drops_privileges ? drop_privileges(request, inode_of(inode)) : Status();
  if (status.ok()) {
    FileSystem& file_system = file_system_of(request);
    const auto offset_bytes = static_cast<std::uint64_t>(offset);
    status = kind.from_page_cache
                 ? write_accepted(front_end_of(request), file_system, inode_of(inode), offset_bytes, bytes)
                 : file_system.write(inode_of(inode), offset_bytes, bytes, {});
  }
  if (!status.ok()) {
    reply_error(request, status.error());
    return;
  }
  fuse_reply_write(request, bytes.size());
}

void answer_write(fuse_req_t request, fuse_ino_t inode, fuse_bufvec* data, off_t offset, fuse_file_info* file) {
  const auto bytes = data_of(*data);
  if (!bytes.ok()) {
    reply_error(request, bytes.error());
    return;
  }
  const WriteKind kind{.from_page_cache = file->writepage != 0, .drops_privileges = drops_privileges(*file)};
  // Over io_uring the data stay where they are until the reply.
  const auto answer = [=, data_bytes = *bytes] { write_and_answer(request, inode, offset, data_bytes, kind); };
  if (bytes->size() <= kSmallMaxBytes) {
    answer_here_or_elsewhere(request, answer);
  } else {
    may_wait(request, front_end_of(request).large_writes, answer);
  }
}

void answer_fsync(fuse_req_t request, fuse_ino_t inode, int data_only, fuse_file_info* /*file*/) {
  may_wait(request, front_end_of(request).fsyncs,
           [=] { reply_status(request, file_system_of(request).fsync(inode_of(inode), data_only != 0)); });
}

void answer_fallocate(fuse_req_t request, fuse_ino_t inode, int mode, off_t offset, off_t length,
                      fuse_file_info* /*file*/) {
  constexpr int kKnown = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
  if ((mode & ~kKnown) != 0) {
    fuse_reply_err(request, EOPNOTSUPP);
    return;
  }
  const FallocateOptions options{.keep_size = (mode & FALLOC_FL_KEEP_SIZE) != 0,
                                 .punch_hole = (mode & FALLOC_FL_PUNCH_HOLE) != 0,
                                 .zero_range = (mode & FALLOC_FL_ZERO_RANGE) != 0};
  Status status = drop_privileges_unless_root(request, inode_of(inode));
  if (status.ok()) {
    status = file_system_of(request).fallocate(inode_of(inode), static_cast<std::uint64_t>(offset),
                                               static_cast<std::uint64_t>(length), options);
  }
  reply_status(request, status);
}

void answer_lseek(fuse_req_t request, fuse_ino_t inode, off_t offset, int whence, fuse_file_info* /*file*/) {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) {
    fuse_reply_err(request, EINVAL);
    return;
  }
  // The kernel does not write what it holds in its cache before it asks, so a hole here may be data there. It knows the
  // end of the file, and takes everything up to it for data once this was answered.
  if (front_end_of(request).kernel_writes_back && file_system_of(request).takes_changes()) {
    fuse_reply_err(request, ENOSYS);
    return;
  }
  const SeekKind kind = whence == SEEK_DATA ? SeekKind::kData : SeekKind::kHole;
  const auto found = file_system_of(request).seek(inode_of(inode), static_cast<std::uint64_t>(offset), kind);
  if (!found.ok()) {
    reply_error(request, found.error());
    return;
  }
  fuse_reply_lseek(request, static_cast<off_t>(*found));
}

void answer_copy_file_range(fuse_req_t request, fuse_ino_t from, off_t from_offset, fuse_file_info* /*from_file*/,
                            fuse_ino_t to, off_t to_offset, fuse_file_info* /*to_file*/, std::size_t length,
                            int flags) {
  if (flags != 0) {
    fuse_reply_err(request, EINVAL);
    return;
  }
  if (const Status dropped = drop_privileges_unless_root(request, inode_of(to)); !dropped.ok()) {
    reply_error(request, dropped.error());
    return;
  }
  const auto copied =
      file_system_of(request).copy_range(inode_of(from), static_cast<std::uint64_t>(from_offset), inode_of(to),
                                         static_cast<std::uint64_t>(to_offset), std::min(length, kCopyMaxBytes));
  if (!copied.ok()) {
    reply_error(request, copied.error());
    return;
  }
  fuse_reply_write(request, *copied);
}

// A small file is copied before another thread would be awake.
void place_copy(fuse_req_t request, fuse_ino_t from, off_t from_offset, fuse_file_info* from_file, fuse_ino_t to,
                off_t to_offset, fuse_file_info* to_file, std::size_t length, int flags) {
  bool small = false;
  if (is_over_io_uring(request)) {
    const NoWaitScope scope;
    const auto source = file_system_of(request).attributes(inode_of(from));
    small = source.ok() && source->size_bytes <= kSmallMaxBytes;
  }
  const auto answer = small ? answered_here<answer_copy_file_range>() : answered_elsewhere<answer_copy_file_range>();
  answer(request, from, from_offset, from_file, to, to_offset, to_file, length, flags);
}

}  // namespace

void add_data_operations(fuse_lowlevel_ops& operations) {
  operations.open = answered_here<answer_open>();
  operations.release = answer_release;
  operations.flush = answer_flush;
  operations.read = answer_read;
  operations.write_buf = answer_write;
  operations.fsync = answer_fsync;
  operations.fallocate = answered_elsewhere<answer_fallocate>();
  operations.lseek = answered_here<answer_lseek>();
  operations.copy_file_range = place_copy;
}

}  // namespace tarnfs
