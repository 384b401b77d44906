// One consistency point: from the moment that its generation is closed to the published root.
//
// Purpose: turns the changes of one generation into blocks, from data up to the root block, and publishes it.
//
// | step | function | what holds after it |
// |---|---|---|
// | close the generation | close_generation | operations go on in the next one; nothing is written yet |
// | freeze | freeze_inodes | every changed inode's state of that moment is set apart |
// | count | count_shares | the share map has the references that copies added: from now on blocks may be released |
// | write | write_inodes, write_orphans, write_share_map, write_inode_file, write_free_map | all blocks are queued |
// | publish | publish | blocks durable, then the root durable: the volume is in the new state |
// | install | install | memory refers to the new trees; freed blocks may be reused; the feed has the root |
//
// Invariants:
//   1. Nothing that a kept root refers to is overwritten: all writes but the root go to addresses that were free.
//   2. An error in any step publishes nothing; the engine stops.
//
// Thread safety: lives on the engine's consistency point thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "fs/engine/engine.h"

namespace tarnfs {

class ConsistencyPoint {
 public:
  explicit ConsistencyPoint(Engine& engine) : engine_(engine), sharing_allocator_(*engine.shares_, *engine.free_map_) {}

  // Closes the open generation. Returns false when it has changed nothing and `force` is not set.
  bool close_generation(bool force);
  // The rest of the work.
  Status complete();

 private:
  void begin_epoch();
  void freeze_inodes();
  Status count_shares();
  Status write_inodes();
  Status write_orphans();
  std::vector<const FrozenInode*> written_slots() const;
  Status write_share_map();
  Result<InodeRecord> reserved_inode(InodeNumber number);
  void add_reserved_file(const InodeRecord& record, const TreeRoot& tree);
  Status write_inode_file();
  Result<PageRef> inode_page(const TreeRoot& tree, std::uint64_t index);
  Status write_free_map();
  Status publish();
  void install();
  TreeEnvironment environment();
  TreeEnvironment environment_of_files();

  Engine& engine_;
  SharingAllocator sharing_allocator_;
  std::uint64_t generation_ = 0;
  bool begins_epoch_ = false;  // the first one since the volume was opened
  bool grows_ = false;         // its root is of a larger volume than the one before
  RootBlock root_;             // under construction
  std::uint64_t reserve_before_blocks_ = 0;
  std::vector<InodePtr> inodes_;  // by number
  std::vector<std::shared_ptr<FrozenInode>> frozen_;
  std::vector<std::unique_ptr<FrozenInode>> reserved_files_;  // that are written anew
  bool orphans_changed_ = false;
  bool shares_changed_ = false;
  std::vector<std::uint64_t> orphans_;
};

}  // namespace tarnfs
