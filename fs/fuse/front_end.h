// What the files of this folder share: the state behind a session and how replies are made.
//
// Purpose: only .cpp files of fs/fuse include this header, for it includes libfuse.
//
// Thread safety: FrontEnd is set up before the first request (init_session() runs as the first one) and constant then,
// but for the estimates and what has failed.
#pragma once

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

#include <atomic>
#include <functional>
#include <span>

#include "common/result.h"
#include "common/wait_estimate.h"
#include "fs/engine/file_system.h"
#include "fs/fuse/attribute_notices.h"
#include "fs/fuse/device_requests.h"
#include "fs/fuse/failed_writes.h"
#include "fs/fuse/kernel_cache.h"

namespace tarnfs {

class WaitingPool;

// How long the kernel may believe names, missing names and attributes.
inline constexpr double kKeptSeconds = 24 * 3600;

inline constexpr unsigned kTransferMaxBytes = 1U << 20;  // of one READ or WRITE

struct FrontEnd {
  explicit FrontEnd(FileSystem& served) : file_system(served) {}

  FileSystem& file_system;
  KernelCache* kernel_cache = nullptr;  // of a file system that changes by itself
  // Opens are asked for, because files may be immutable or append-only.
  bool checks_opens = false;
  // The kernel opens by itself once an open was answered with ENOSYS.
  bool open_is_silent = false;
  std::atomic<bool> told_of_silent_opens{false};
  bool open_directory_is_silent = false;
  bool kernel_writes_back = false;  // it keeps what is written for a while
  // Set-user-id bits are ours to drop; else the kernel sends SETATTR for it.
  bool drops_privileges = false;
  // Has the kernel ask for them again, before this returns.
  std::function<void(InodeNumber)> forget_attributes;
  AttributeNotices* attribute_notices = nullptr;  // null where the kernel writes nothing back
  // Nothing else that anybody waits for comes on the threads that forgets come on.
  std::atomic<bool> forgets_come_alone{false};
  DeviceConnection connection;
  FailedWrites failed_writes;
  WaitEstimate large_reads;
  WaitEstimate large_writes;
  WaitEstimate fsyncs;
  WaitingPool* waiting_pool = nullptr;  // null: requests may wait on the threads that they come on
};

FrontEnd& front_end_of(fuse_req_t request);
FileSystem& file_system_of(fuse_req_t request);
Caller caller_of(fuse_req_t request);
inline InodeNumber inode_of(fuse_ino_t number) {
  return InodeNumber{number};
}

struct stat stat_of(const Attributes& attributes);
// What is asked for on behalf of a request is answered inside its scope.
KernelCache::Answer answer_to(fuse_req_t request);
double kept_seconds(const KernelCache::Answer& answer);
fuse_entry_param entry_of(const KernelCache::Answer& answer, const Attributes& attributes);

// Each answers the request, unless the error is kWouldWait: then it is put off (put_off.h).
void reply_error(fuse_req_t request, const Error& error);
void reply_status(fuse_req_t request, const Status& status);
void reply_attributes(fuse_req_t request, const KernelCache::Answer& answer, const Result<Attributes>& attributes);
// Gives the lookup back when the kernel did not take the reply.
void reply_entry(fuse_req_t request, const KernelCache::Answer& answer, const Result<Attributes>& attributes);

// A buffer of at least `size` bytes, 4096-aligned, that belongs to this thread until the next call.
std::span<std::byte> thread_buffer(std::size_t size);

// The operations, by file.
void add_name_operations(fuse_lowlevel_ops& operations);
void add_inode_operations(fuse_lowlevel_ops& operations);
void add_data_operations(fuse_lowlevel_ops& operations);
void add_directory_operations(fuse_lowlevel_ops& operations);
void add_volume_operations(fuse_lowlevel_ops& operations);
// The FUSE_IOCTL operation: flags of inodes, and the end of a volume.
void answer_ioctl(fuse_req_t request, fuse_ino_t inode, unsigned command, void* argument, fuse_file_info* file,
                  unsigned flags, const void* in, std::size_t in_bytes, std::size_t out_bytes);

}  // namespace tarnfs
