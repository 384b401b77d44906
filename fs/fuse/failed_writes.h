// Writes that the kernel had answered from its cache, and that failed when it handed them on, or would have but for
// what is kept for such.
//
// Purpose: write(2) does not wait for the daemon, so whoever writes to a full volume would hear of it only from fsync
// or close, and who does neither would go on for ever. But before a write the kernel asks for the attributes of the
// file when it was told that they have changed, with the open file, and write(2) fails as that GETATTR does. So a
// failed write is noted here, the kernel is told to ask, and the answer is the error.
//
// Invariants:
//   1. Each failed write makes at most one later request fail. A read at the end of the same file, or a seek to it,
//      asks in the same way and may be the one.
//   2. What is noted here is an addition: fsync and close give the error of a write that failed in any case.
//
// Thread safety: any thread; one leaf lock inside, not taken while nothing is noted.
#pragma once

#include <atomic>
#include <map>
#include <optional>

#include "common/mutex.h"
#include "common/result.h"
#include "common/types.h"

namespace tarnfs {

class FailedWrites {
 public:
  void note(InodeNumber inode, ErrorCode error) TARNFS_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (errors_.size() >= kNotedMax && !errors_.contains(inode.value)) return;
    errors_[inode.value] = error;
    any_.store(true, std::memory_order_release);
  }

  std::optional<ErrorCode> take(InodeNumber inode) TARNFS_EXCLUDES(mutex_) {
    if (!any_.load(std::memory_order_acquire)) return std::nullopt;
    MutexLock lock(mutex_);
    const auto found = errors_.find(inode.value);
    if (found == errors_.end()) return std::nullopt;
    const ErrorCode error = found->second;
    errors_.erase(found);
    any_.store(!errors_.empty(), std::memory_order_release);
    return error;
  }

 private:
  static constexpr std::size_t kNotedMax = 4096;

  Mutex mutex_;
  std::map<std::uint64_t, ErrorCode> errors_ TARNFS_GUARDED_BY(mutex_);
  std::atomic<bool> any_{false};
};

}  // namespace tarnfs
