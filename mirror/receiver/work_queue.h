// What goes between the receiver's two threads: work to the worker, answers to the network.
//
// Invariants:
//   1. Work of a session that ended is not done, but for its end, which the worker always sees.
//
// Thread safety: all functions may be called from any thread.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/channel.h"
#include "common/mutex.h"
#include "mirror/wire/messages.h"

namespace tarnfs {

struct Work {
  enum class Kind { kMessage, kEnd, kStop };
  Kind kind = Kind::kMessage;
  std::uint64_t session = 0;
  wire::AnyMessage message;
  std::vector<Frame> payload;
  std::uint64_t size_bytes = 0;
};

struct Answer {
  std::uint64_t session = 0;
  wire::AnyMessage message;
  std::string end_reason;  // not empty: the session ends after this message
};

class WorkQueue {
 public:
  void push(Work work) {
    MutexLock lock(mutex_);
    waiting_bytes_ += work.size_bytes;
    work_.push_back(std::move(work));
    changed_.notify_one();
  }

  // Takes back what is not begun of a session, and tells the worker its end.
  void end_session(std::uint64_t session) {
    MutexLock lock(mutex_);
    work_.clear();
    waiting_bytes_ = 0;
    Work end;
    end.kind = Work::Kind::kEnd;
    end.session = session;
    work_.push_back(std::move(end));
    changed_.notify_one();
  }

  Work pop() {
    MutexLock lock(mutex_);
    while (work_.empty()) changed_.wait(mutex_);
    Work work = std::move(work_.front());
    work_.pop_front();
    waiting_bytes_ -= work.size_bytes;
    return work;
  }

  bool idle() const {
    MutexLock lock(mutex_);
    return work_.empty();
  }

  std::uint64_t waiting_bytes() const {
    MutexLock lock(mutex_);
    return waiting_bytes_;
  }

  void push_answer(Answer answer) {
    MutexLock lock(mutex_);
    answers_.push_back(std::move(answer));
  }

  std::optional<Answer> pop_answer() {
    MutexLock lock(mutex_);
    if (answers_.empty()) return std::nullopt;
    Answer answer = std::move(answers_.front());
    answers_.pop_front();
    return answer;
  }

 private:
  mutable Mutex mutex_;
  Condition changed_;
  std::deque<Work> work_ TARNFS_GUARDED_BY(mutex_);
  std::deque<Answer> answers_ TARNFS_GUARDED_BY(mutex_);
  std::uint64_t waiting_bytes_ TARNFS_GUARDED_BY(mutex_) = 0;
};

}  // namespace tarnfs
