#include "fs/engine/block_writer.h"

#include <utility>

namespace tarnfs {
namespace {

constexpr std::size_t kPagesPerRequestMax = 256;
constexpr std::size_t kRequestsQueuedMax = 64;
constexpr std::size_t kThreads = 2;

}  // namespace

BlockWriter::BlockWriter(BlockDevice& device, BlockCache& cache, ChangeFeed* feed, std::function<void()> on_progress)
    : device_(device), cache_(cache), feed_(feed), on_progress_(std::move(on_progress)) {
  for (std::size_t i = 0; i < kThreads; ++i) threads_.emplace_back([this] { run_thread(); });
}

BlockWriter::~BlockWriter() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  for (std::thread& thread : threads_) thread.join();
}

void BlockWriter::begin(Cp cp) {
  cp_ = cp;
  caching_data_.reset();
  run_ = Request();
  announced_.clear();
  forget_written();
  written_pages_ = 0;
  MutexLock lock(mutex_);
  TARNFS_ASSERT(queue_.empty() && in_progress_ == 0);
  failure_.reset();
}

void BlockWriter::write(const BlockPointer& pointer, PageRef page, unsigned level) {
  const std::optional<BlockCache::Use> use = level > 0 ? BlockCache::Use::kNotYet : caching_data_;
  if (use) {
    {
      MutexLock lock(written_mutex_);
      written_[pointer.address] = {pointer, page};
    }
    cache_.insert(pointer, page, *use);
  }
  const bool continues = !run_.pages.empty() && run_.first.value + run_.pages.size() == pointer.address &&
                         run_.pages.size() < kPagesPerRequestMax;
  if (!continues) {
    submit_run();
    run_.first = Address{pointer.address};
  }
  tell_feed(pointer, page);
  if (level == 0) ++run_.level_0_count;
  run_.pages.push_back(std::move(page));
}

void BlockWriter::announce(const BlockPointer& pointer, PageRef page) {
  tell_feed(pointer, std::move(page));
  written_pages_.fetch_add(1);
}

void BlockWriter::tell_feed(const BlockPointer& pointer, PageRef page) {
  if (feed_ == nullptr) return;
  announced_.push_back({Address{pointer.address}, pointer.checksum, std::move(page)});
  if (announced_.size() >= kPagesPerRequestMax) flush_announced();
}

Result<PageRef> BlockWriter::get(const BlockPointer& pointer) {
  {
    MutexLock lock(written_mutex_);
    const auto found = written_.find(pointer.address);
    if (found != written_.end() && found->second.first == pointer) return found->second.second;
  }
  return cache_.load(pointer);
}

void BlockWriter::flush_announced() {
  if (feed_ != nullptr && !announced_.empty()) feed_->on_blocks(cp_, announced_);
  announced_.clear();
}

void BlockWriter::submit_run() {
  if (run_.pages.empty()) return;
  Request request = std::exchange(run_, Request());
  MutexLock lock(mutex_);
  while (queue_.size() >= kRequestsQueuedMax && !failure_) changed_.wait(mutex_);
  queue_.push_back(std::move(request));
  changed_.notify_all();
}

Status BlockWriter::finish() {
  flush_announced();
  submit_run();
  MutexLock lock(mutex_);
  while (!queue_.empty() || in_progress_ > 0) changed_.wait(mutex_);
  if (failure_) return *failure_;
  return {};
}

void BlockWriter::run_thread() {
  mutex_.lock();
  while (true) {
    while (queue_.empty() && !stopping_) changed_.wait(mutex_);
    if (queue_.empty()) break;
    Request request = std::move(queue_.front());
    queue_.pop_front();
    // After a failure nothing more is written: no root will be published.
    const bool skip = failure_.has_value();
    ++in_progress_;
    mutex_.unlock();
    const Status status = skip ? Status() : device_.write(request.first, request.pages);
    written_pages_.fetch_add(request.level_0_count);
    request = Request();
    on_progress_();
    mutex_.lock();
    --in_progress_;
    if (!status.ok() && !failure_) failure_ = status.error();
    changed_.notify_all();
  }
  mutex_.unlock();
}

}  // namespace tarnfs
