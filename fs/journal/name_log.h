// The records of operations on names that no batch of the journal has yet.
//
// Purpose: every operation on names appends its record while it holds the locks of what it changes, so that the order
// of the records is one in which the operations can be done again. The next batch takes all of them: a name is never
// durable without the operations that it rests on.
//
// Invariants:
//   1. The records of one inode or directory are in the order in which the operations were done.
//   2. Records of a consistency point that is durable are dropped: its root has what they say.
//
// Thread safety: any thread; one leaf lock inside.
#pragma once

#include <atomic>
#include <deque>
#include <span>
#include <vector>

#include "common/mutex.h"
#include "fs/journal/journal_record.h"

namespace tarnfs {

class NameLog {
 public:
  struct Taken {
    std::vector<std::byte> records;  // encoded, in order
    std::uint32_t count = 0;
    std::vector<InodeNumber> replacing;  // files that were renamed over others: their content goes along
  };

  // Of one operation and one consistency point: a batch has all of them or none. `replacing`: a rename put this file in
  // the place of another.
  void append(std::span<const JournalRecord> records, InodeNumber replacing = {});
  Taken take();
  // What `published` has need not be logged any more.
  void drop_up_to(Cp published);
  std::uint64_t pending_bytes() const { return pending_bytes_.load(std::memory_order_relaxed); }

 private:
  // Records of one consistency point that follow each other.
  struct Part {
    Cp cp;
    std::vector<std::byte> records;
    std::uint32_t count = 0;
    std::vector<InodeNumber> replacing;
  };
  Part& part_for(Cp cp) TARNFS_REQUIRES(mutex_);

  Mutex mutex_;
  std::deque<Part> parts_ TARNFS_GUARDED_BY(mutex_);
  std::atomic<std::uint64_t> pending_bytes_{0};
};

}  // namespace tarnfs
