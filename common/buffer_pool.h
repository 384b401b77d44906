// Large buffers that are used again and again, so that the kernel need not find and clear memory for each one.
//
// Invariants:
//   1. A buffer is nobody else's until the last reference to it is gone; then it is free again, or given back when
//      kept_max are free already.
//
// Thread safety: one thread takes buffers, any thread may let go of one.
// Ownership: a buffer may outlive the pool.
// Errors: none but the end of memory.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "common/mutex.h"

namespace tarnfs {

class BufferPool {
 public:
  BufferPool(std::size_t buffer_bytes, std::size_t kept_max)
      : buffer_bytes_(buffer_bytes), free_(std::make_shared<FreeList>(kept_max)) {}

  // `buffer_bytes` bytes whose content is undefined.
  std::shared_ptr<std::byte[]> take() {
    std::unique_ptr<std::byte[]> buffer = free_->take();
    if (buffer == nullptr) buffer = std::make_unique_for_overwrite<std::byte[]>(buffer_bytes_);
    return {buffer.release(),
            [free = free_](std::byte* bytes) { free->give_back(std::unique_ptr<std::byte[]>(bytes)); }};
  }

 private:
  class FreeList {
   public:
    explicit FreeList(std::size_t kept_max) : kept_max_(kept_max) {}

    std::unique_ptr<std::byte[]> take() {
      MutexLock lock(mutex_);
      if (buffers_.empty()) return nullptr;
      std::unique_ptr<std::byte[]> buffer = std::move(buffers_.back());
      buffers_.pop_back();
      return buffer;
    }
    void give_back(std::unique_ptr<std::byte[]> buffer) {
      MutexLock lock(mutex_);
      if (buffers_.size() < kept_max_) buffers_.push_back(std::move(buffer));
    }

   private:
    const std::size_t kept_max_;
    Mutex mutex_;
    std::vector<std::unique_ptr<std::byte[]>> buffers_ TARNFS_GUARDED_BY(mutex_);
  };

  const std::size_t buffer_bytes_;
  const std::shared_ptr<FreeList> free_;
};

}  // namespace tarnfs
