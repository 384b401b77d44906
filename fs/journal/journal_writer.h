// The writing end of the journal's ring.
//
// Purpose: gives each batch its place, writes it and makes it durable; knows how full the ring is.
//
// Invariants:
//   1. A batch is written when the one before it is durable: one write() at a time.
//   2. Blocks from the release()d position on are not overwritten before they are released.
//   3. A batch has the epoch of the newest durable root. While a root that begins an epoch is on its way, from
//      end_epoch() to begin_epoch(), no batch is placed: recovery would look for it in one epoch or the other.
//
// Thread safety: place(), head(), release() and the counters: any thread. write(): one thread at a time, with the batch
// that was placed last.
// Errors: those of the device. After a failed write() nothing may be written any more.
#pragma once

#include <optional>

#include "common/block_device.h"
#include "common/mutex.h"
#include "fs/journal/journal_batch.h"

namespace tarnfs {

// The blocks of a volume's journal, whose it is, and the epoch of what is in it beyond a root.
struct JournalGeometry {
  Address first;
  std::uint64_t size_blocks = 0;  // 0: the volume has no journal
  VolumeId volume;
  Epoch epoch;
};

JournalGeometry journal_geometry_of(const Superblock& superblock, const RootBlock& root);

class JournalWriter {
 public:
  // `tail`: what the newest root needs from on; `head`: where the next batch goes.
  JournalWriter(BlockDevice& device, const JournalGeometry& geometry, const JournalPosition& tail,
                const JournalPosition& head)
      : device_(device), geometry_(geometry), tail_(tail), head_(head), epoch_(geometry.epoch) {}

  // Takes room for the batch and seals it. False when there is not enough, or the epoch has ended.
  bool place(JournalBatch& batch);
  Status write(const JournalBatch& batch);

  // Where the next batch goes: what comes from now on is behind it.
  JournalPosition head();
  // The next root begins an epoch.
  void end_epoch();
  // It is durable, and this is its epoch.
  void begin_epoch(const Epoch& epoch);
  // A root that needs nothing before `tail` is durable.
  void release(const JournalPosition& tail);

  std::uint64_t size_blocks() const { return geometry_.size_blocks; }
  std::uint64_t used_blocks();
  bool half_full() { return used_blocks() * 2 >= size_blocks(); }

 private:
  std::uint64_t used_locked() const TARNFS_REQUIRES(mutex_);

  BlockDevice& device_;
  const JournalGeometry geometry_;
  Mutex mutex_;
  JournalPosition tail_ TARNFS_GUARDED_BY(mutex_);
  JournalPosition head_ TARNFS_GUARDED_BY(mutex_);
  std::optional<Epoch> epoch_ TARNFS_GUARDED_BY(mutex_);  // of the batches; none: no batch may be placed
  std::uint64_t placed_block_ = 0;                        // of the batch placed last; the writing thread's
};

}  // namespace tarnfs
