// Files whose attributes the kernel is to ask for again, which it is told of from a thread of its own.
//
// Purpose: with the writeback cache the kernel knows the sizes and times of files by itself, and not their blocks. It
// believes the number that it was told, 0 for a new file, until somebody closes the file, and du believes the kernel.
// So files that were written and not asked for since are told of after an interval. And who writes to a file of which
// a write has failed is to hear of it (failed_writes.h): such a file is told of at once.
//
// Invariants:
//   1. The kernel is told under no lock, and on no thread that requests come on: where an inode is just going away it
//      waits for it, and that may wait for the answer to a write. Files without a name are not told of as grown.
//   2. At most kGrownMax files are told of as grown in one interval. Where more are written most are closed by then.
//
// Thread safety: all functions may be called from any thread; close() and the destructor not from a call.
// Ownership: owns its thread, which is gone when close() returns.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <set>
#include <thread>
#include <vector>

#include "common/mutex.h"
#include "common/types.h"

namespace tarnfs {

class AttributeNotices {
 public:
  struct Calls {
    std::function<void(InodeNumber)> forget;
    std::function<bool(InodeNumber)> has_name;
  };
  static constexpr std::size_t kGrownMax = 1024;

  AttributeNotices(Calls calls, std::chrono::milliseconds interval);
  ~AttributeNotices();
  AttributeNotices(const AttributeNotices&) = delete;
  AttributeNotices& operator=(const AttributeNotices&) = delete;

  // A write that the kernel had kept is done.
  void note_grown(InodeNumber inode) TARNFS_EXCLUDES(mutex_);
  // The kernel asks: called before what it is told is read.
  void note_asked(InodeNumber inode) TARNFS_EXCLUDES(mutex_);
  void note_failed(InodeNumber inode) TARNFS_EXCLUDES(mutex_);
  // Nothing is told after it.
  void close() TARNFS_EXCLUDES(mutex_);

 private:
  struct Notice {
    InodeNumber inode;
    bool has_failed = false;
  };

  void work();
  // Waits for what is to be told next; empty at the end.
  std::vector<Notice> next() TARNFS_EXCLUDES(mutex_);

  const Calls calls_;
  const std::chrono::milliseconds interval_;
  Mutex mutex_;
  Condition changed_;
  std::set<std::uint64_t> grown_ TARNFS_GUARDED_BY(mutex_);
  std::atomic<bool> any_grown_{false};
  std::set<std::uint64_t> failed_ TARNFS_GUARDED_BY(mutex_);
  bool idle_ TARNFS_GUARDED_BY(mutex_) = false;  // the thread waits for the first
  bool ending_ TARNFS_GUARDED_BY(mutex_) = false;
  Mutex closing_mutex_;
  std::thread thread_ TARNFS_GUARDED_BY(closing_mutex_);
};

}  // namespace tarnfs
