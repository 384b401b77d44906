// Writes blocks to their addresses, neighbours in one call; a large batch by two threads.
//
// Purpose: most of what applying a batch takes is the kernel's copy of it, on one processor. Two of them get the mirror
// to a state that much sooner after the primary, which writes the same blocks with two threads.
//
// Invariants:
//   1. When write() returns, all blocks are written, or it returns an error and nothing is being written any more.
//   2. Of two contents for one address the later one stays.
//
// Thread safety: one thread calls write(); the second thread is inside.
// Errors: those of the device, of the first half before those of the second.
#pragma once

#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "common/block_device.h"
#include "common/mutex.h"
#include "common/replication.h"

namespace tarnfs {

// By the calling thread alone. The order of `blocks` is lost, as with PlaceWriter.
Status write_in_place(BlockDevice& device, std::vector<BlockWrite>& blocks);

class PlaceWriter {
 public:
  PlaceWriter() = default;
  ~PlaceWriter();
  PlaceWriter(const PlaceWriter&) = delete;
  PlaceWriter& operator=(const PlaceWriter&) = delete;

  Status write(BlockDevice& device, std::vector<BlockWrite>& blocks) TARNFS_EXCLUDES(mutex_);

 private:
  struct Task {
    BlockDevice* device = nullptr;
    std::span<const BlockWrite> blocks;
  };

  void hand_over(const Task& task) TARNFS_EXCLUDES(mutex_);
  Status wait_done() TARNFS_EXCLUDES(mutex_);
  void run() TARNFS_EXCLUDES(mutex_);

  std::thread thread_;  // from the first large batch on

  Mutex mutex_;
  Condition changed_;
  std::optional<Task> task_ TARNFS_GUARDED_BY(mutex_);  // not begun
  std::optional<Status> done_ TARNFS_GUARDED_BY(mutex_);
  bool stopping_ TARNFS_GUARDED_BY(mutex_) = false;
};

}  // namespace tarnfs
