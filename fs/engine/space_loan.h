// Free blocks that a trim has set aside for a moment: whoever runs out of space calls them in.
//
// Purpose: a trim takes the blocks that it discards from the ledger, so that nobody writes them meanwhile. No operation
// may fail for want of these.
//
// Invariants:
//   1. While a Recall lives no loan is out.
//
// Thread safety: any thread; a thread that has a loan must not make a Recall.
#pragma once

#include "common/mutex.h"

namespace tarnfs {

class SpaceLoan {
 public:
  // A loan. Waits while somebody has called loans in.
  class Use {
   public:
    explicit Use(SpaceLoan& loan) : loan_(loan) {
      MutexLock lock(loan_.mutex_);
      while (loan_.recalls_ > 0) loan_.changed_.wait(loan_.mutex_);
      ++loan_.uses_;
    }
    ~Use() {
      MutexLock lock(loan_.mutex_);
      --loan_.uses_;
      loan_.changed_.notify_all();
    }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    SpaceLoan& loan_;
  };
  // Returns when no loan is out; there is none until the end of its life.
  class Recall {
   public:
    explicit Recall(SpaceLoan& loan) : loan_(loan) {
      MutexLock lock(loan_.mutex_);
      ++loan_.recalls_;
      while (loan_.uses_ > 0) loan_.changed_.wait(loan_.mutex_);
    }
    ~Recall() {
      MutexLock lock(loan_.mutex_);
      --loan_.recalls_;
      loan_.changed_.notify_all();
    }
    Recall(const Recall&) = delete;
    Recall& operator=(const Recall&) = delete;

   private:
    SpaceLoan& loan_;
  };

 private:
  Mutex mutex_;
  Condition changed_;
  unsigned uses_ TARNFS_GUARDED_BY(mutex_) = 0;
  unsigned recalls_ TARNFS_GUARDED_BY(mutex_) = 0;
};

}  // namespace tarnfs
