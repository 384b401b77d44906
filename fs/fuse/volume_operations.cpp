// The operations on a volume as a whole: STATFS, SYNCFS.
#include <sys/statvfs.h>

#include "common/format.h"
#include "fs/fuse/front_end.h"
#include "fs/fuse/put_off.h"

namespace tarnfs {
namespace {

// How much content so many blocks can be: the others are nodes, one for every 128 and for every 128 of these.
std::uint64_t content_blocks_of(std::uint64_t blocks) {
  return blocks - blocks / kPointersPerNode;
}

void answer_statfs(fuse_req_t request, fuse_ino_t /*inode*/) {
  // A volume that has stopped shows what it last had.
  if (const Status settled = file_system_of(request).settle_usage();
      !settled.ok() && settled.error().code() == ErrorCode::kWouldWait) {
    reply_error(request, settled.error());
    return;
  }
  const FileSystemUsage usage = file_system_of(request).usage();
  struct statvfs result {};
  result.f_bsize = kBlockSize;
  result.f_frsize = kBlockSize;
  result.f_blocks = usage.size_blocks;
  result.f_bfree = usage.free_blocks;
  result.f_bavail = content_blocks_of(usage.available_blocks);  // what fallocate can have
  // Inodes are made as they are needed: as many more as there are free blocks is a promise that can be kept.
  result.f_files = usage.inode_count + usage.free_blocks;
  result.f_ffree = usage.free_blocks;
  result.f_favail = usage.available_blocks;
  result.f_namemax = kNameMaxBytes;
  fuse_reply_statfs(request, &result);
}

// Everything written before it is in the file system by now.
[[maybe_unused]] void answer_syncfs(fuse_req_t request, fuse_ino_t /*inode*/) {
  FileSystem& file_system = file_system_of(request);
  if (!file_system.takes_changes()) {
    reply_status(request, {});
    return;
  }
  const auto cp = file_system.consistency_point();
  reply_status(request, cp.ok() ? Status() : Status(cp.error()));
}

// Only a libfuse with patch 0005 or a newer one passes it on.
template <class Operations>
void add_syncfs(Operations& operations) {
  if constexpr (requires { operations.syncfs; }) operations.syncfs = answered_elsewhere<answer_syncfs>();
}

}  // namespace

void add_volume_operations(fuse_lowlevel_ops& operations) {
  operations.statfs = answered_here<answer_statfs>();
  add_syncfs(operations);
}

}  // namespace tarnfs
