// Many threads that want something durable, and one of them that makes it so for all.
//
// Purpose: whoever comes while a write is going on joins the group that forms meanwhile; when the write is done, one of
// that group writes for all of it. With one thread there is no other thread to wake.
//
// Invariants:
//   1. One write runs at a time, outside the lock.
//   2. commit() returns after a write that began after it was called.
//
// Thread safety: any thread.
#pragma once

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "common/mutex.h"
#include "common/result.h"

namespace tarnfs {

template <class Item>
class GroupCommit {
 public:
  // Adds `item` to the group that forms and waits for its write; `write(span of items)` makes them durable.
  template <class Write>
  Status commit(Item item, Write&& write) {
    mutex_.lock();
    if (forming_ == nullptr) forming_ = std::make_shared<Group>();
    const std::shared_ptr<Group> group = forming_;
    group->items.push_back(std::move(item));
    while (!group->done && writing_) changed_.wait(mutex_);
    if (!group->done) {
      forming_ = nullptr;
      writing_ = true;
      mutex_.unlock();
      const Status status = write(std::span<const Item>(group->items));
      mutex_.lock();
      writing_ = false;
      group->status = status;
      group->done = true;
      changed_.notify_all();
    }
    mutex_.unlock();
    return group->status;
  }

  // No write is going on: what was handed to earlier ones is durable.
  bool idle() {
    MutexLock lock(mutex_);
    return !writing_;
  }

 private:
  struct Group {
    std::vector<Item> items;
    bool done = false;  // and then `status` stays
    Status status;
  };

  Mutex mutex_;
  Condition changed_;
  bool writing_ TARNFS_GUARDED_BY(mutex_) = false;
  std::shared_ptr<Group> forming_ TARNFS_GUARDED_BY(mutex_);
};

}  // namespace tarnfs
