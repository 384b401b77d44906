// A 4 KiB page of memory, aligned for O_DIRECT, shared by reference.
//
// Purpose: file data, directory blocks, tree nodes and free map blocks all travel as pages: from the engine to the
// local image and to the mirror without a copy.
//
// Invariants:
//   1. A page that more than one PageRef refers to never changes. A writer calls make_unique(), which copies it if it
//      is shared, before it takes mutable_bytes().
//   2. The memory is 4096 bytes long and 4096-aligned.
//
// Thread safety: the reference count is atomic, so PageRefs to one page may live in many threads; one PageRef object
// must not be used by two threads at once.
// Ownership: the last PageRef gives the memory back to a process-wide pool.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "common/result.h"
#include "common/types.h"

namespace tarnfs {

struct PageHeader {
  std::atomic<std::uint32_t> references{0};
  std::byte* data = nullptr;
  PageHeader* next_free = nullptr;
};

class PageRef {
 public:
  PageRef() = default;
  PageRef(const PageRef& other) : header_(other.header_) {
    if (header_ != nullptr) header_->references.fetch_add(1, std::memory_order_relaxed);
  }
  PageRef(PageRef&& other) noexcept : header_(std::exchange(other.header_, nullptr)) {}
  PageRef& operator=(PageRef other) noexcept {
    std::swap(header_, other.header_);
    return *this;
  }
  ~PageRef() {
    if (header_ != nullptr && header_->references.fetch_sub(1, std::memory_order_acq_rel) == 1) give_back(header_);
  }

  // A page of its own whose bytes are undefined.
  static PageRef uninitialised();
  // A page of its own, all zero.
  static PageRef zeroed();
  // A page of its own with a copy of `bytes` (at most 4096), the rest zero.
  static PageRef copy_of(std::span<const std::byte> bytes);

  explicit operator bool() const { return header_ != nullptr; }
  std::span<const std::byte, kBlockSize> bytes() const {
    return std::span<const std::byte, kBlockSize>(header_->data, kBlockSize);
  }
  const std::byte* data() const { return header_->data; }
  // True when nobody else refers to the page.
  bool unique() const { return header_->references.load(std::memory_order_acquire) == 1; }
  // Makes this the only reference to its page, copying the page if it is shared.
  void make_unique();
  // The bytes to write to. Asserts that the page is unique.
  std::span<std::byte, kBlockSize> mutable_bytes() {
    TARNFS_ASSERT(header_ != nullptr && unique());
    return std::span<std::byte, kBlockSize>(header_->data, kBlockSize);
  }

 private:
  explicit PageRef(PageHeader* header) : header_(header) {}
  static void give_back(PageHeader* header);

  PageHeader* header_ = nullptr;
};

// Bytes of page memory that are in use in this process now.
std::uint64_t page_memory_used_bytes();

// True when all bytes are zero.
bool is_all_zero(std::span<const std::byte> bytes);

}  // namespace tarnfs
