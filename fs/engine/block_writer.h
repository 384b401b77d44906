// The write commands of one consistency point: queued, and sent at the same time to the local image and to the feed.
//
// Purpose: gathers blocks with neighbouring addresses into large requests, writes them to the image on threads of its
// own, and hands the same pages to the mirror's feed, without copies.
//
// Invariants:
//   1. Every block that write() took is announced to the feed once and written once, before finish() returns ok.
//   2. get() finds the nodes and metadata of this consistency point before they are in the image.
//
// Thread safety: one consistency point's thread calls all functions, any thread get(); the writing threads are inside.
// Errors: the first failed write is returned by finish().
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "common/block_device.h"
#include "common/mutex.h"
#include "common/replication.h"
#include "fs/storage/block_cache.h"
#include "fs/tree/block_tree.h"

namespace tarnfs {

class BlockWriter final : public BlockSink, public BlockSource {
 public:
  // `on_progress` is called, from any thread under no lock, when pages have been written.
  BlockWriter(BlockDevice& device, BlockCache& cache, ChangeFeed* feed, std::function<void()> on_progress);
  ~BlockWriter() override;
  BlockWriter(const BlockWriter&) = delete;
  BlockWriter& operator=(const BlockWriter&) = delete;

  void begin(Cp cp);
  // How data blocks (level 0) of what is written from now on go into the cache: those that are metadata do, none else.
  void set_caching_data(std::optional<BlockCache::Use> use) { caching_data_ = use; }
  void write(const BlockPointer& pointer, PageRef page, unsigned level) override;
  void announce(const BlockPointer& pointer, PageRef page) override;
  Result<PageRef> get(const BlockPointer& pointer) override;
  // How many pages (level 0) of the consistency point that began last are written.
  std::uint64_t written_pages() const { return written_pages_.load(); }
  // Waits until all is written (not durable yet: flush the device).
  Status finish();
  // Forgets the nodes: the new root is published, the image has them.
  void forget_written() {
    MutexLock lock(written_mutex_);
    written_.clear();
  }

 private:
  struct Request {
    Address first;
    std::vector<PageRef> pages;
    std::uint64_t level_0_count = 0;
  };

  void submit_run();
  void tell_feed(const BlockPointer& pointer, PageRef page);
  void flush_announced();
  void run_thread();

  BlockDevice& device_;
  BlockCache& cache_;
  ChangeFeed* const feed_;
  const std::function<void()> on_progress_;
  std::atomic<std::uint64_t> written_pages_{0};
  Cp cp_;
  std::optional<BlockCache::Use> caching_data_;
  Request run_;                        // gathered, not submitted yet
  std::vector<BlockWrite> announced_;  // gathered for the feed

  Mutex written_mutex_;
  // Metadata of this cp that may not be in the image yet, by address.
  std::unordered_map<std::uint64_t, std::pair<BlockPointer, PageRef>> written_ TARNFS_GUARDED_BY(written_mutex_);

  Mutex mutex_;
  Condition changed_;
  std::deque<Request> queue_ TARNFS_GUARDED_BY(mutex_);
  std::size_t in_progress_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::optional<Error> failure_ TARNFS_GUARDED_BY(mutex_);
  bool stopping_ TARNFS_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace tarnfs
