// One run of an operation: inside the gate, with the space it was promised.
//
// Purpose: an operation answers from memory alone. When it needs a block that is not there it says which one in
// `missing` and fails with kNeedsBlock; the engine leaves the gate, loads the block and runs the operation again. So an
// operation reads all that it needs before it changes anything.
//
// Invariants:
//   1. It exists only between entering and leaving the gate: its generation stays the open one.
//   2. blocks_used does not exceed blocks_promised, but for changes of directories of over 2^20 pages, which take the
//      rest from the reserve.
//
// Thread safety: belongs to one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "common/clock.h"
#include "fs/engine/generation_gate.h"
#include "fs/storage/block_cache.h"
#include "fs/tree/block_tree.h"

namespace tarnfs {

// What was loaded for an operation: it stays until the operation is done, however small the cache is. Null: what could
// not be loaded, and the operation can do without.
using HeldBlocks = std::unordered_map<std::uint64_t, std::pair<BlockPointer, PageRef>>;

class Operation final : public BlockSource {
 public:
  Operation(GenerationGate& gate, BlockCache& cache, const HeldBlocks& held, const std::uint64_t& open_generation,
            Clock& clock)
      : gate_(gate),
        cache_(cache),
        held_(held),
        clock_(clock),
        entry_(gate.enter(clock)),
        generation(open_generation) {}
  ~Operation() override { gate_.leave(entry_.lane); }
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;

  // Memory only.
  Result<PageRef> get(const BlockPointer& pointer) override {
    if (PageRef page = cache_.find(pointer)) return page;
    if (const auto found = held_.find(pointer.address); found != held_.end() && found->second.first == pointer) {
      if (found->second.second) return found->second.second;
      return Error(ErrorCode::kCorrupt, "block " + std::to_string(pointer.address) + " cannot be read");
    }
    missing = pointer;
    return Error(ErrorCode::kNeedsBlock);
  }
  // For what the operation can do without: that such a block cannot be loaded it hears as kCorrupt, and goes on.
  class Dispensable final : public BlockSource {
   public:
    explicit Dispensable(Operation& op) : op_(op) {}
    Result<PageRef> get(const BlockPointer& pointer) override {
      auto page = op_.get(pointer);
      op_.missing_is_dispensable = !page.ok() && page.error().code() == ErrorCode::kNeedsBlock;
      return page;
    }

   private:
    Operation& op_;
  };
  // How long a consistency point kept it out.
  std::uint64_t waited_ns() const { return entry_.waited_ns; }
  void charge(std::uint64_t blocks) { blocks_used += blocks; }
  // The time of the operation: one for all that it changes.
  Timestamp now() {
    if (!now_) now_ = clock_.now();
    return *now_;
  }
  // An operation that is done again after a crash keeps its time.
  void set_now(Timestamp time) { now_ = time; }

 private:
  GenerationGate& gate_;
  BlockCache& cache_;
  const HeldBlocks& held_;
  Clock& clock_;
  std::optional<Timestamp> now_;
  const GenerationGate::Entry entry_;

 public:
  const std::uint64_t generation;
  BlockPointer missing;
  bool missing_is_dispensable = false;
  std::uint64_t blocks_promised = 0;
  std::uint64_t blocks_used = 0;
  std::int64_t dirty_bytes_added = 0;
};

}  // namespace tarnfs
