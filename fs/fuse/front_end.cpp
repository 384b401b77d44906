#include "fs/fuse/front_end.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <atomic>
#include <optional>

#include "common/aligned_buffer.h"
#include "common/clock.h"
#include "common/log.h"
#include "fs/engine/waiting.h"
#include "fs/fuse/errno_map.h"

namespace tarnfs {
namespace {

timespec timespec_of(const Timestamp& time) {
  timespec result{};
  result.tv_sec = time.seconds;
  result.tv_nsec = static_cast<long>(time.nanoseconds);
  return result;
}

// In sectors. While the kernel has content of a file that it has not handed on, the file has more than is known of
// here, and tar takes one with a size and no sector at all for nothing but a hole, and leaves its content out. So a
// regular file has one, for its inode, and the same everywhere, at a mirror too.
blkcnt_t sectors_of(const Attributes& attributes) {
  const auto sectors = static_cast<blkcnt_t>(attributes.block_count * (kBlockSize / 512));
  return S_ISREG(attributes.mode) ? std::max<blkcnt_t>(sectors, 1) : sectors;
}

// A broken disk can fail thousands of requests a second: one line a second is enough.
void log_failure(const Error& error) {
  static std::atomic<std::uint64_t> last_second{0};
  const std::uint64_t second = system_clock().monotonic_ns() / 1'000'000'000;
  std::uint64_t seen = last_second.load(std::memory_order_relaxed);
  if (seen == second || !last_second.compare_exchange_strong(seen, second)) return;
  log_error(error.describe());
}

}  // namespace

FrontEnd& front_end_of(fuse_req_t request) {
  return *static_cast<FrontEnd*>(fuse_req_userdata(request));
}

FileSystem& file_system_of(fuse_req_t request) {
  return front_end_of(request).file_system;
}

Caller caller_of(fuse_req_t request) {
  const fuse_ctx* context = fuse_req_ctx(request);
  return Caller{.uid = context->uid, .gid = context->gid, .umask = context->umask};
}

struct stat stat_of(const Attributes& attributes) {
  struct stat result {};
  result.st_ino = attributes.inode.value;
  result.st_mode = attributes.mode;
  result.st_nlink = attributes.link_count;
  result.st_uid = attributes.uid;
  result.st_gid = attributes.gid;
  result.st_rdev = makedev(attributes.device_major, attributes.device_minor);
  result.st_size = static_cast<off_t>(attributes.size_bytes);
  result.st_blksize = kBlockSize;
  result.st_blocks = sectors_of(attributes);
  result.st_atim = timespec_of(attributes.accessed);
  result.st_mtim = timespec_of(attributes.modified);
  result.st_ctim = timespec_of(attributes.changed);
  return result;
}

KernelCache::Answer answer_to(fuse_req_t request) {
  return KernelCache::Answer(front_end_of(request).kernel_cache);
}

double kept_seconds(const KernelCache::Answer& answer) {
  return answer.may_be_kept() ? kKeptSeconds : 0;
}

fuse_entry_param entry_of(const KernelCache::Answer& answer, const Attributes& attributes) {
  answer.note_handed_out(attributes.inode);
  fuse_entry_param entry{};
  entry.ino = attributes.inode.value;
  entry.generation = 1;  // inode numbers are never reused
  entry.attr = stat_of(attributes);
  entry.attr_timeout = kept_seconds(answer);
  entry.entry_timeout = entry.attr_timeout;
  return entry;
}

void reply_error(fuse_req_t request, const Error& error) {
  if (error.code() == ErrorCode::kWouldWait) {
    NoWaitScope::put_off();
    return;
  }
  if (error.code() == ErrorCode::kIo || error.code() == ErrorCode::kCorrupt) log_failure(error);
  fuse_reply_err(request, errno_of(error.code()));
}

void reply_status(fuse_req_t request, const Status& status) {
  if (!status.ok()) {
    reply_error(request, status.error());
    return;
  }
  fuse_reply_err(request, 0);
}

void reply_attributes(fuse_req_t request, const KernelCache::Answer& answer, const Result<Attributes>& attributes) {
  if (!attributes.ok()) {
    reply_error(request, attributes.error());
    return;
  }
  const struct stat converted = stat_of(*attributes);
  fuse_reply_attr(request, &converted, kept_seconds(answer));
}

void reply_entry(fuse_req_t request, const KernelCache::Answer& answer, const Result<Attributes>& attributes) {
  if (!attributes.ok()) {
    reply_error(request, attributes.error());
    return;
  }
  FileSystem& file_system = file_system_of(request);
  const fuse_entry_param entry = entry_of(answer, *attributes);
  if (fuse_reply_entry(request, &entry) != 0) file_system.forget(attributes->inode, 1);
}

std::span<std::byte> thread_buffer(std::size_t size) {
  static thread_local std::optional<AlignedBuffer> buffer;
  const std::size_t blocks = std::max<std::size_t>(1, (size + kBlockSize - 1) / kBlockSize);
  if (!buffer || buffer->size_blocks() < blocks) buffer.emplace(blocks);
  return buffer->first(blocks).first(size);
}

}  // namespace tarnfs
