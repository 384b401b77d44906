#include "fs/fuse/waiting_pool.h"

#include <utility>

namespace tarnfs {

WaitingPool::WaitingPool(unsigned thread_count) {
  threads_.reserve(thread_count);
  for (unsigned i = 0; i < thread_count; ++i) threads_.emplace_back([this] { work(); });
}

WaitingPool::~WaitingPool() {
  close();
  {
    MutexLock lock(mutex_);
    ending_ = true;
    changed_.notify_all();
  }
  for (std::thread& thread : threads_) thread.join();
}

bool WaitingPool::run(std::function<void()> job) {
  MutexLock lock(mutex_);
  if (closed_) return false;
  jobs_.push_back(std::move(job));
  changed_.notify_one();
  return true;
}

void WaitingPool::close() {
  MutexLock lock(mutex_);
  closed_ = true;
  while (!jobs_.empty() || running_ > 0) drained_.wait(mutex_);
}

void WaitingPool::work() {
  for (;;) {
    std::function<void()> job;
    {
      MutexLock lock(mutex_);
      while (jobs_.empty() && !ending_) changed_.wait(mutex_);
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
      ++running_;
    }
    job();
    MutexLock lock(mutex_);
    --running_;
    if (jobs_.empty() && running_ == 0) drained_.notify_all();
  }
}

}  // namespace tarnfs
