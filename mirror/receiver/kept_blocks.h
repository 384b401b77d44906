// What a mirror keeps of states that it has left, while they are sent on to mirrors of its own.
//
// Purpose: the primary keeps what this mirror shows, and knows nothing of a state that is still being sent on. So what
// it sends next may land on that state's blocks. Their content is copied here first.
//
// Invariants:
//   1. A block that a pinned root refers to has its content in its place, in front of that in the staging file, or
//      here, unless the pin was lost.
//   2. What is kept has a limit. What goes beyond it loses the oldest pin: nobody waits for who reads a pinned root.
//   3. A failure here loses pins and does nothing else.
//   4. Nothing of it outlives the process: who was sent a part of a root begins again with the newest one.
//
// How it is known that a copy is of use: a root is pinned while it is the published one, and no block of that is
// overwritten. So for each address it is the first change after the root was left that has to be kept: a copy made
// before a block of cp c came is for pins of cps below c.
//
// Thread safety: all functions may be called from any thread, but keep() only from the receiver's worker. No lock is
// held while the disk works.
// Errors: read() says kNotFound, or what its disk says.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "common/clock.h"
#include "common/flat_map.h"
#include "common/mutex.h"
#include "common/replication.h"
#include "mirror/receiver/mirror_storage.h"

namespace tarnfs {

struct KeptOptions {
  // At most what the volume has. None: a quarter of it, at most kKeptDefaultMaxBytes.
  std::optional<std::uint64_t> limit_bytes;
  ChangeFeed* feed = nullptr;  // is told of lost pins; may be null
  Clock* clock = &system_clock();
};
// The list of so many blocks takes 256 MiB of memory at worst.
inline constexpr std::uint64_t kKeptDefaultMaxBytes = std::uint64_t{8} << 30;

class KeptBlocks {
 public:
  KeptBlocks(MirrorStorage& storage, const KeptOptions& options) : storage_(storage), options_(options) {}

  // Pins the root that `newest` names, which must be the published one; it is asked under the lock, so that keep() for
  // the next one either knows the pin or has ended before.
  PinnedRoot pin(const std::function<RootBlock()>& newest) TARNFS_EXCLUDES(mutex_);
  // An id for what is not kept: a root of the past.
  PinId pin_nothing() TARNFS_EXCLUDES(mutex_);
  void unpin(PinId pin) TARNFS_EXCLUDES(mutex_);
  // Some pin of this root was not lost.
  bool is_pinned(Cp cp) const TARNFS_EXCLUDES(mutex_);
  std::uint64_t held_bytes(PinId pin) const TARNFS_EXCLUDES(mutex_);
  // The root of this cp, which is not published yet, may be of another line of the volume than those before it.
  void begin_line(Cp cp) TARNFS_EXCLUDES(mutex_);
  // No line began after `before`, up to `root`.
  bool is_one_line(Cp before, Cp root) const TARNFS_EXCLUDES(mutex_);
  // Of all pins.
  std::uint64_t kept_bytes() const TARNFS_EXCLUDES(mutex_);
  // The copies of a block, newest first.
  Status read(Address address, std::size_t number, std::span<std::byte, kBlockSize> out) TARNFS_EXCLUDES(mutex_);

  // Blocks of the root of `cp` are about to be written to these addresses of `image`, none of which the published root
  // refers to, or, of a published root that was staged, none of which has been written before.
  void keep(BlockDevice& image, MirrorTarget& target, Cp cp, std::vector<Address> addresses) TARNFS_EXCLUDES(mutex_);

 private:
  struct Pin {
    RootBlock root;
    bool lost = false;
    std::uint64_t kept_blocks = 0;
    std::uint64_t kept_since_ns = 0;
  };
  struct Copy {
    Address address;          // {0}: the place is free, or is being written
    Cp before;                // it was made before a block of this cp came
    std::uint32_t older = 0;  // its place + 1; 0: none
  };
  // A block that is to be copied, for these pins.
  struct Wanted {
    Address address;
    std::vector<PinId> pins;
    std::uint32_t place = 0;
  };

  struct Candidate {
    PinId id = 0;
    RootBlock root;
  };

  std::vector<Candidate> pinned_before(Cp cp) const TARNFS_EXCLUDES(mutex_);
  Status keep_some(BlockDevice& image, MirrorTarget& target, Cp cp, std::span<const Address> addresses)
      TARNFS_EXCLUDES(mutex_);
  Result<std::vector<Wanted>> find_wanted(MirrorTarget& target, Cp cp, std::span<const Address> addresses)
      TARNFS_EXCLUDES(mutex_);
  Status make_device() TARNFS_EXCLUDES(mutex_);
  std::shared_ptr<BlockDevice> take_places(std::vector<Wanted>& wanted, Cp cp) TARNFS_EXCLUDES(mutex_);
  void leave_out_unneeded(std::vector<Wanted>& wanted) TARNFS_REQUIRES(mutex_);
  void note_copies(const std::vector<Wanted>& wanted, Cp cp, const std::shared_ptr<BlockDevice>& device, bool written)
      TARNFS_EXCLUDES(mutex_);
  bool has_copy(Address address, Cp pinned) TARNFS_REQUIRES(mutex_);
  std::uint64_t used_places() const TARNFS_REQUIRES(mutex_) { return copies_.size() - free_.size(); }
  void lose(PinId id, PinLoss why, std::vector<LostPin>& lost) TARNFS_REQUIRES(mutex_);
  void lose_all(const Error& reason) TARNFS_EXCLUDES(mutex_);
  void tell(const std::vector<LostPin>& lost) const TARNFS_EXCLUDES(mutex_);
  std::shared_ptr<BlockDevice> drop_unneeded() TARNFS_REQUIRES(mutex_);
  void drop(std::uint32_t place) TARNFS_REQUIRES(mutex_);

  MirrorStorage& storage_;
  const KeptOptions options_;

  mutable Mutex mutex_;
  PinId last_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::map<PinId, Pin> pins_ TARNFS_GUARDED_BY(mutex_);  // oldest first
  std::vector<Cp> line_starts_ TARNFS_GUARDED_BY(mutex_);
  std::shared_ptr<BlockDevice> device_ TARNFS_GUARDED_BY(mutex_);  // null: nothing was kept since nothing is pinned
  std::vector<Copy> copies_ TARNFS_GUARDED_BY(mutex_);             // by their places on the device
  std::vector<std::uint32_t> free_ TARNFS_GUARDED_BY(mutex_);      // places
  FlatMap<std::uint32_t> newest_ TARNFS_GUARDED_BY(mutex_);        // by address: the place of the newest copy + 1
};

}  // namespace tarnfs
