#include "common/page.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "common/mutex.h"

namespace tarnfs {
namespace {

constexpr std::size_t kPagesPerSlab = 256;

// Free pages of the process. Slabs are kept for good: the peak of page memory is bounded by the limits on dirty data
// and caches.
class PagePool {
 public:
  PageHeader* take() TARNFS_EXCLUDES(mutex_) {
    used_.fetch_add(1, std::memory_order_relaxed);
    MutexLock lock(mutex_);
    if (free_ == nullptr) add_slab();
    PageHeader* header = free_;
    free_ = header->next_free;
    return header;
  }

  void put(PageHeader* header) TARNFS_EXCLUDES(mutex_) {
    used_.fetch_sub(1, std::memory_order_relaxed);
    MutexLock lock(mutex_);
    header->next_free = free_;
    free_ = header;
  }

  std::uint64_t used() const { return used_.load(std::memory_order_relaxed); }

 private:
  void add_slab() TARNFS_REQUIRES(mutex_) {
    void* memory =
        ::mmap(nullptr, kPagesPerSlab * kBlockSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    auto* headers = new PageHeader[kPagesPerSlab];
    for (std::size_t i = 0; i < kPagesPerSlab; ++i) {
      headers[i].data = static_cast<std::byte*>(memory) + i * kBlockSize;
      headers[i].next_free = i + 1 < kPagesPerSlab ? &headers[i + 1] : free_;
    }
    free_ = &headers[0];
  }

  Mutex mutex_;
  PageHeader* free_ TARNFS_GUARDED_BY(mutex_) = nullptr;
  std::atomic<std::uint64_t> used_{0};
};

PagePool& pool() {
  static auto* const instance = new PagePool;  // never destroyed: pages may outlive static destruction
  return *instance;
}

}  // namespace

PageRef PageRef::uninitialised() {
  PageHeader* header = pool().take();
  header->references.store(1, std::memory_order_relaxed);
  return PageRef(header);
}

PageRef PageRef::zeroed() {
  PageRef page = uninitialised();
  std::memset(page.header_->data, 0, kBlockSize);
  return page;
}

PageRef PageRef::copy_of(std::span<const std::byte> bytes) {
  TARNFS_ASSERT(bytes.size() <= kBlockSize);
  PageRef page = uninitialised();
  std::memcpy(page.header_->data, bytes.data(), bytes.size());
  std::memset(page.header_->data + bytes.size(), 0, kBlockSize - bytes.size());
  return page;
}

void PageRef::make_unique() {
  if (unique()) return;
  *this = copy_of(bytes());
}

void PageRef::give_back(PageHeader* header) {
  pool().put(header);
}

std::uint64_t page_memory_used_bytes() {
  return pool().used() * kBlockSize;
}

bool is_all_zero(std::span<const std::byte> bytes) {
  if (bytes.empty()) return true;
  return bytes.front() == std::byte{0} && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

}  // namespace tarnfs
