// When consistency points are taken, and who waits for them.
#include <algorithm>
#include <chrono>

#include "common/log.h"
#include "fs/engine/consistency_point.h"
#include "fs/engine/engine.h"

namespace tarnfs {

void Engine::run_cp_thread() {
  reclaim_all_orphans();
  const auto interval =
      std::chrono::milliseconds(options_.cp_interval_ms == 0 ? std::uint64_t{1000} * 3600 : options_.cp_interval_ms);
  auto next_timer = std::chrono::steady_clock::now() + interval;
  cp_mutex_.lock();
  while (true) {
    while (cp_requested_ == cp_served_ && !cp_wanted_soon_ && !closing_) {
      const auto now = std::chrono::steady_clock::now();
      if (now >= next_timer) break;
      cp_changed_.wait_for(cp_mutex_, next_timer - now);
    }
    if (closing_) break;
    const std::uint64_t ticket = cp_requested_;
    const bool force = std::exchange(cp_forced_, false);
    cp_wanted_soon_ = false;
    cp_running_ = true;
    cp_mutex_.unlock();
    const bool more_to_cut = shrink_orphans();
    const Status status = stopped_ ? Status() : take_cp(force);
    if (!status.ok()) stop(status.error());
    limit_pins();  // the age grows without consistency points too
    next_timer = std::chrono::steady_clock::now() + interval;
    cp_mutex_.lock();
    cp_running_ = false;
    cp_served_ = ticket;
    cp_wanted_soon_ = cp_wanted_soon_ || (more_to_cut && !stopped_);
    cp_changed_.notify_all();
    cp_mutex_.unlock();
    inodes_.shrink();  // when nobody waits for it
    cp_mutex_.lock();
  }
  cp_changed_.notify_all();
  cp_mutex_.unlock();
}

Status Engine::take_cp(bool force) {
  ConsistencyPoint point(*this);
  if (!point.close_generation(force)) return {};
  return point.complete();
}

// Waits for a consistency point that began after the call.
Status Engine::request_cp(bool force) {
  MutexLock lock(cp_mutex_);
  const std::uint64_t ticket = ++cp_requested_;
  cp_forced_ = cp_forced_ || force;
  cp_changed_.notify_all();
  while (cp_served_ < ticket && !closing_) cp_changed_.wait(cp_mutex_);
  if (stopped_) return Error(ErrorCode::kIo, "the volume stopped: " + stop_reason_);
  if (cp_served_ < ticket) return Error(ErrorCode::kCanceled, "the volume is being closed");
  return {};
}

// After a failed write nothing is known about what is on the disk: no root is published and nothing is changed any
// more.
void Engine::stop(const Error& reason) {
  {
    MutexLock lock(cp_mutex_);
    if (stopped_) return;  // what came first is the reason, and this one of its consequences
    stop_reason_ = reason.describe();
    stopped_ = true;
    cp_changed_.notify_all();
  }
  ++error_count_;
  log_error(device_.name() + ": the volume is read-only from now on: " + reason.describe() +
            "; it stays in its last consistent state, unmount it and see to the image");
}

Error Engine::stopped_error(ErrorCode code) const {
  if (shut_down_) return Error(ErrorCode::kIo);
  return Error(code, "the volume stopped after a failed write");
}

Status Engine::shut_down() {
  if (NoWaitScope::is_active()) return Error(ErrorCode::kWouldWait);
  // With the gate closed, so that every operation is either done by now or sees it.
  gate_.close();
  const bool first = !shut_down_.exchange(true);
  gate_.open();
  {
    MutexLock lock(cp_mutex_);
    if (!stopped_) stop_reason_ = "shut down by FS_IOC_SHUTDOWN";
    stopped_ = true;
    cp_changed_.notify_all();
    // The one that runs publishes its root whole or not at all; no other one follows.
    while (cp_running_) cp_changed_.wait(cp_mutex_);
  }
  // An fsync that began before may still write to the journal or to blocks of its own.
  while (const std::uint32_t running = fsyncs_running_.load()) fsyncs_running_.wait(running);
  if (first) log_warning(device_.name() + ": the volume was shut down; unmount it, what fsync promised is there again");
  return {};
}

void Engine::want_cp_soon() {
  if (cp_wanted_soon_) return;
  MutexLock lock(cp_mutex_);
  cp_wanted_soon_ = true;
  cp_changed_.notify_all();
}

Result<Cp> Engine::consistency_point() {
  if (mode_ != VolumeMode::kReadWrite) return Error(ErrorCode::kReadOnly);
  TARNFS_TRY(request_cp(false));
  return Cp{newest_root().cp};
}

}  // namespace tarnfs
