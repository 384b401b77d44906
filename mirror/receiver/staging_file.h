// The staging file: blocks of the next state whose addresses the published state still uses.
//
// Purpose: such a block must not be written in place before the next root is decided. It waits here, and one write,
// the commit record, decides the new state: from then on the copy to its place can be redone at every start.
//
// The other blocks of the new state are in the image, so the two belong together. A mark in the image says so
// (PublishMark), written and flushed before the commit record, which says the same: a copy of the image that was made
// before has no such mark.
//
// Layout, in blocks of 4096 bytes: 0 the commit record; 1 the root block; 2.. the staged blocks in the order in which
// they came; then the index, 16 bytes (address, checksum) a block in the same order.
//
// Invariants:
//   1. Block 0 holds a valid commit record only when everything else is durable and belongs to it. It is durably
//      invalid before any other block of the file is changed.
//   2. An address that is staged twice has its newer content.
//   3. A file whose commit record is torn counts as uncommitted.
//
// Thread safety: none; one thread. A committed file may be read by any thread through its device.
// Errors: those of the device; kCorrupt when committed blocks are damaged; kIncompatible for another version, kRefused
// for another volume.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "common/format.h"
#include "common/replication.h"
#include "mirror/receiver/mirror_storage.h"

namespace tarnfs {

// Writes blocks to their addresses, neighbours in one call. The order of `blocks` is lost.
Status write_in_place(BlockDevice& device, std::vector<BlockWrite>& blocks);

// Where the staged content of an address is in the staging file.
using StagedBlocks = std::unordered_map<Address, Address>;

class StagingFile {
 public:
  explicit StagingFile(MirrorStorage& storage) : storage_(storage) {}

  // Opens what an earlier process left. True when it is committed; otherwise it was dropped.
  Result<bool> recover(const Superblock& superblock);
  // Adds blocks of a volume of `size_blocks`; makes the file when they are the first ones.
  Status add(std::uint64_t size_blocks, std::span<const BlockWrite> blocks);
  // Makes everything durable, then the commit record: `root` follows on `base`, which the image shows, and the mark of
  // that is durable in the image. Nothing need be staged. After an error the state is undecided until the next
  // recover().
  Status commit(const RootBlock& root, const StateName& base);
  // Reads every staged block, verifies it, and writes it to its address of `image`. Does not flush. With `image` null
  // it only verifies.
  Status copy_to(BlockDevice* image);
  // Makes the file uncommitted, durably, and removes it.
  Status drop();
  // The same with one that an earlier process left, whatever it has.
  Status drop_left();

  bool empty() const { return blocks_.empty(); }
  std::uint64_t staged_bytes() const { return index_.size() * kBlockSize; }
  // Of a committed file.
  const RootBlock& root() const { return root_; }
  // What the image that it belongs to shows. None: an earlier release wrote it, which did not say.
  const std::optional<StateName>& base() const { return base_; }
  const StagedBlocks& blocks() const { return blocks_; }
  std::shared_ptr<BlockDevice> device() const { return device_; }

 private:
  struct IndexEntry {
    Address address;
    std::uint64_t checksum = 0;
  };
  static_assert(sizeof(IndexEntry) == 16);

  Result<bool> load(const Superblock& superblock);
  Status create(std::uint64_t size_blocks);
  void clear();

  MirrorStorage& storage_;
  std::shared_ptr<BlockDevice> device_;
  std::vector<IndexEntry> index_;
  StagedBlocks blocks_;
  RootBlock root_;
  std::optional<StateName> base_;
};

}  // namespace tarnfs
