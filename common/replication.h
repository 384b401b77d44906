// The seam between the engine and replication: neither knows the other's headers.
//
// Purpose: the primary's engine tells a ChangeFeed what each consistency point writes, and answers a sender through
// ReplicationSource; at the mirror the receiver tells a MirrorTarget which root is published. A mirror that has
// mirrors of its own tells their senders with on_adopted(), and is a ReplicationSource for them too.
//
// Invariants:
//   1. on_blocks() for a cp comes before on_published() of that cp, and cps come in order, one at a time.
//   2. on_published() is called only after the root block is durable in the local image.
//   3. A block's birth cp is at most that of every node above it: a subtree born at or before cp c is whole in root c.
//
// Thread safety: each function says it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "common/format.h"
#include "common/page.h"
#include "common/result.h"
#include "common/types.h"

namespace tarnfs {

// One block-level write command: what a consistency point queues for the local image and for every mirror.
struct BlockWrite {
  Address address;
  std::uint64_t checksum = 0;  // XXH3 of the page
  PageRef page;                // never changes
};

using PinId = std::uint64_t;

// Why the blocks of a pinned root are kept no longer.
enum class PinLoss {
  kSize,   // more of them than the limit allows
  kAge,    // the root was left longer ago than the limit allows
  kSpace,  // the volume is full
};

struct LostPin {
  PinId pin = 0;
  Cp cp;
  PinLoss why = PinLoss::kSize;
  std::uint64_t held_bytes = 0;  // what was kept for it
  std::uint64_t age_ns = 0;      // since the root was left, as far back as is known
};

class ChangeFeed {
 public:
  virtual ~ChangeFeed() = default;
  // The blocks are being written locally now. Called by the consistency point's thread; must not wait for a network.
  // Every cp's blocks are announced, in one or more calls, each block once.
  virtual void on_blocks(Cp cp, std::span<const BlockWrite> blocks) = 0;
  // The root is durable here: send it. Called by the same thread; must not wait.
  virtual void on_published(const RootBlock& root) = 0;
  // Instead of both where blocks come from elsewhere, which is at a mirror: it has published this root, for which it
  // was sent so many bytes of blocks. They were not announced, and roots in between may have been left out. Called by
  // the receiver's thread; must not wait.
  virtual void on_adopted(const RootBlock& root, std::uint64_t received_bytes) = 0;
  // The blocks of a pinned root may be used again from now on. Any thread, under no lock; must not wait.
  virtual void on_pin_lost(const LostPin& lost) = 0;
};

struct PinnedRoot {
  RootBlock root;
  PinId pin = 0;
};

class ReplicationSource {
 public:
  virtual ~ReplicationSource() = default;
  virtual Superblock superblock() const = 0;
  // The newest root that is durable here. Any thread.
  virtual RootBlock newest_root() const = 0;
  // The checksum of the root block of `cp`, as far as the newest root still leads to it: that of the last kRootSlots
  // cps. Any thread; waits for the disk.
  virtual std::optional<std::uint64_t> root_checksum(Cp cp) = 0;
  // Whether a mirror that has the root of `before` can get to `root`, one that was pinned here, by what was born since.
  // False where the source is a mirror itself and turned out to have followed another line of the volume in between:
  // then all blocks are compared. Any thread.
  virtual bool is_one_line(Cp /*before*/, Cp /*root*/) const { return true; }
  // Keeps every block that the newest root refers to from reuse, until unpin(). Any thread.
  virtual PinnedRoot pin_newest_root() = 0;
  // Keeps the blocks of a root of the past (a mirror's published one), as far as they were not reused before. Any
  // thread. Both kinds may be lost (ChangeFeed::on_pin_lost), this one to the limit by age too.
  virtual PinId pin_root(Cp cp) = 0;
  // Moves a pin forward to the root of `cp`, which is kept also when the pin was lost. Any thread.
  virtual void move_pin(PinId pin, Cp cp) = 0;
  virtual void unpin(PinId pin) = 0;
  // What the newest root does not refer to and is kept all the same because of this pin; others may keep it too. Any
  // thread.
  virtual std::uint64_t held_bytes(PinId pin) = 0;
  // Gives `visit` every block that `root`, which must be pinned, refers to and that was born after `since` ({0}: all of
  // them), each once. Stops at the first error, which it returns. Waits for the disk; call it without locks.
  virtual Status walk_changed(const RootBlock& root, Cp since,
                              const std::function<Status(const BlockWrite&)>& visit) = 0;
  // The same blocks in the same order, by their pointers; what is not needed to find them is not read.
  virtual Status list_changed(const RootBlock& root, Cp since,
                              const std::function<Status(const BlockPointer&)>& visit) = 0;
  // Reads a block that list_changed() named for this root, which must still be pinned. Waits for the disk.
  virtual Result<BlockWrite> read_listed(const RootBlock& root, const BlockPointer& block) = 0;
};

// What the mirror's receiver asks of the read-only file system that shows the published state.
class MirrorTarget {
 public:
  virtual ~MirrorTarget() = default;
  // All blocks of `root` can be read from the device now: show that state. Called from the receiver's thread.
  virtual Status adopt(const RootBlock& root) = 0;
  // Does the adopted root refer to this address? False while there is none. Waits for the disk.
  virtual Result<bool> in_use(Address address) = 0;
  // The same of another root, whose blocks can be read from the device.
  virtual Result<bool> in_use_by(const RootBlock& root, Address address) = 0;
};

}  // namespace tarnfs
