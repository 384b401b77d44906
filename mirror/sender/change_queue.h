// The bounded queue of announced consistency points: what is to be streamed as it happens.
//
// Purpose: keeps the blocks of announced cps by reference until they are sent, and decides whether the stream can go
// on from a given state or must catch up by walking.
//
// Invariants:
//   1. A cp is streamed only when the queue has all its blocks from the first one on: otherwise it is incomplete, keeps
//      no blocks, and the way past it is a catch-up.
//   2. The blocks that are kept are never more than the limit. The queue never waits.
//   3. Entries are in the order of their cps.
//
// Thread safety: none; guarded by its owner.
// Ownership: shares pages; a block is let go when it is taken.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "common/replication.h"

namespace tarnfs {

class ChangeQueue {
 public:
  explicit ChangeQueue(std::uint64_t limit_bytes) : limit_bytes_(limit_bytes) {}

  // While it is closed (no mirror is connected) nothing is kept.
  void open();
  void close();

  void add_blocks(Cp cp, std::span<const BlockWrite> blocks);
  void add_root(const RootBlock& root);
  // A root that was published before the queue was told of anything.
  void note_newest(Cp newest);

  // What comes next for a stream that stands at `base`.
  struct Step {
    enum class Kind { kWait, kBlocks, kRoot, kCatchUp };
    Kind kind = Kind::kWait;
    Cp cp;
    std::vector<BlockWrite> blocks;  // kBlocks: up to `blocks_max`
    std::optional<RootBlock> root;   // kRoot
  };
  // Takes it out of the queue; what is not after `base` is dropped.
  Step next(Cp base, std::size_t blocks_max);

  std::uint64_t queued_bytes() const { return queued_bytes_; }
  Cp newest() const { return newest_; }
  std::uint64_t overflow_count() const { return overflow_count_; }

 private:
  struct Entry {
    Cp cp;
    bool incomplete = false;
    std::deque<BlockWrite> blocks;
    std::optional<RootBlock> root;
  };

  Entry& entry_of(Cp cp);
  void let_go(Entry& entry);
  void drop_through(Cp cp);

  const std::uint64_t limit_bytes_;
  bool open_ = false;
  std::deque<Entry> entries_;
  Cp missed_;  // the last cp of which something came while the queue was closed
  Cp newest_;  // published
  std::uint64_t queued_bytes_ = 0;
  std::uint64_t overflow_count_ = 0;
};

}  // namespace tarnfs
