#include "fs/fuse/attribute_notices.h"

#include <utility>

namespace tarnfs {

AttributeNotices::AttributeNotices(Calls calls, std::chrono::milliseconds interval)
    : calls_(std::move(calls)), interval_(interval), thread_([this] { work(); }) {}

AttributeNotices::~AttributeNotices() {
  close();
}

void AttributeNotices::note_grown(InodeNumber inode) {
  MutexLock lock(mutex_);
  if (grown_.size() >= kGrownMax) return;
  grown_.insert(inode.value);
  any_grown_.store(true, std::memory_order_release);
  // Not while the interval runs: it is woken once in each at the most.
  if (idle_) changed_.notify_all();
}

void AttributeNotices::note_asked(InodeNumber inode) {
  if (!any_grown_.load(std::memory_order_acquire)) return;
  MutexLock lock(mutex_);
  grown_.erase(inode.value);
  any_grown_.store(!grown_.empty(), std::memory_order_release);
}

void AttributeNotices::note_failed(InodeNumber inode) {
  MutexLock lock(mutex_);
  failed_.insert(inode.value);
  changed_.notify_all();
}

void AttributeNotices::close() {
  {
    MutexLock lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  MutexLock lock(closing_mutex_);
  if (thread_.joinable()) thread_.join();
}

void AttributeNotices::work() {
  for (;;) {
    const std::vector<Notice> notices = next();
    if (notices.empty()) return;
    for (const Notice& notice : notices) {
      if (notice.has_failed || calls_.has_name(notice.inode)) calls_.forget(notice.inode);
    }
  }
}

std::vector<AttributeNotices::Notice> AttributeNotices::next() {
  MutexLock lock(mutex_);
  std::vector<Notice> notices;
  while (!ending_ && notices.empty()) {
    if (!failed_.empty()) {
      for (const std::uint64_t inode : std::exchange(failed_, {})) notices.push_back({InodeNumber{inode}, true});
    } else if (grown_.empty()) {
      idle_ = true;
      changed_.wait(mutex_);
      idle_ = false;
    } else if (!changed_.wait_for(mutex_, interval_)) {
      for (const std::uint64_t inode : std::exchange(grown_, {})) notices.push_back({InodeNumber{inode}, false});
      any_grown_.store(false, std::memory_order_release);
    }
  }
  return ending_ ? std::vector<Notice>() : notices;
}

}  // namespace tarnfs
