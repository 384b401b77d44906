// Locks several inodes at once, in the order of their numbers, each once.
//
// Thread safety: clang's analysis cannot follow a list of locks: functions that use it say so.
#pragma once

#include <algorithm>
#include <array>
#include <initializer_list>

#include "fs/engine/inode.h"

namespace tarnfs {

class InodeLocks {
 public:
  // Null pointers are left out.
  explicit InodeLocks(std::initializer_list<InodePtr> inodes) TARNFS_NO_THREAD_SAFETY_ANALYSIS {
    for (const InodePtr& inode : inodes) {
      if (inode != nullptr) inodes_.at(static_cast<std::size_t>(count_++)) = inode.get();
    }
    const auto end = inodes_.begin() + count_;
    std::sort(inodes_.begin(), end, [](const Inode* a, const Inode* b) { return a->number < b->number; });
    count_ = std::unique(inodes_.begin(), end) - inodes_.begin();
    for (std::ptrdiff_t i = 0; i < count_; ++i) inodes_.at(static_cast<std::size_t>(i))->mutex.lock();
  }
  // Locks one more if it comes behind all others in the order. False: it does not, and is not locked.
  bool add(const InodePtr& inode) TARNFS_NO_THREAD_SAFETY_ANALYSIS {
    if (count_ > 0 && inode->number <= inodes_.at(static_cast<std::size_t>(count_ - 1))->number) return false;
    inodes_.at(static_cast<std::size_t>(count_++)) = inode.get();
    inode->mutex.lock();
    return true;
  }
  ~InodeLocks() TARNFS_NO_THREAD_SAFETY_ANALYSIS {
    for (std::ptrdiff_t i = count_; i-- > 0;) inodes_.at(static_cast<std::size_t>(i))->mutex.unlock();
  }
  InodeLocks(const InodeLocks&) = delete;
  InodeLocks& operator=(const InodeLocks&) = delete;

 private:
  std::array<Inode*, 4> inodes_{};
  std::ptrdiff_t count_ = 0;
};

}  // namespace tarnfs
