// The mirror's copy of a volume: applies what a primary sends to the image, so that the published state stays whole.
//
// Purpose: everything of the receiver but threads and network.
//
// Invariants:
//   1. No block that the published root refers to is overwritten before the next root is decided: by its own slot in
//      the image, or, when blocks are staged, by the commit record of the staging file.
//   2. The same of a root that is pinned for a mirror of this mirror, unless kept() has a copy of the block.
//   3. Nothing of the peer is written before its address and checksum were verified.
//   4. A root is published only on top of exactly the blocks that the primary counted.
//   5. After a failed write or flush of the image nothing more is written until the process starts again.
//
// The steps of a publish with staged blocks: mark in the image, flush; staging file durable; commit record (decided);
// staged blocks shown to readers; adopt; staged blocks copied in place; flush, root slot, flush; staging hidden and
// dropped. Without staged blocks: flush, root slot (decided), flush; adopt; unless the slot is the published root's.
//
// A volume that grows: the Hello tells the size, and the image gets its new end then (prepare_grown_end), where nothing
// is in use. The first root of that size makes the image larger: the superblock at the front follows it, or, when
// blocks are staged, comes before them. Until then blocks for the old end are staged like those that are in use.
//
// Thread safety: one thread, but for device() and kept(), whose functions any thread may call.
// Ownership: owns image and staging file. The target must live until the last call.
// Errors: kCorrupt when the peer's bytes are at fault, and then nothing was published; kRefused and kBusy as Hello is
// answered; any other code is our own failure.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "common/channel.h"
#include "common/format.h"
#include "common/replication.h"
#include "common/staging_place.h"
#include "mirror/receiver/kept_blocks.h"
#include "mirror/receiver/mirror_storage.h"
#include "mirror/receiver/staged_device.h"
#include "mirror/receiver/staging_file.h"
#include "mirror/wire/messages.h"

namespace tarnfs {

class MirrorImage {
 public:
  // Opens the image if there is one, and finishes a publish that was decided.
  static Result<std::unique_ptr<MirrorImage>> open(MirrorStorage& storage, const KeptOptions& kept = {});

  // What the mirror's read-only volume works on.
  StagedDevice& device() { return device_; }
  // What is kept for mirrors of this mirror. Any thread.
  KeptBlocks& kept() { return kept_; }
  // Makes `target` show the newest root, if there is one. Before the functions below.
  Status attach(MirrorTarget& target);

  // Begins a session, or says why not.
  Result<wire::Welcome> begin_session(const wire::Hello& hello);
  Result<wire::Credit> apply(const wire::Blocks& blocks, std::span<const Frame> payload);
  Result<wire::Published> apply(const wire::Root& root);
  // Which of the offered blocks are not in the image. The others count as received.
  Result<wire::Want> compare(const wire::Offer& offer, std::span<const Frame> payload);
  // What was received since the last root is forgotten; blocks that are in their places may be offered later.
  void end_session();

  const std::optional<Superblock>& superblock() const { return superblock_; }
  const std::optional<RootBlock>& root() const { return root_; }
  std::uint64_t staged_bytes() const { return staging_.staged_bytes(); }
  // Why nothing more is written, if so.
  const std::optional<Error>& stopped() const { return stopped_; }

 private:
  MirrorImage(MirrorStorage& storage, const KeptOptions& kept)
      : storage_(storage), kept_(storage, kept), device_(storage.name(), kept_), staging_(storage) {}

  Status load_image();
  Status finish_publish();
  Status check_image_is_marked() const;
  Status create(const Superblock& superblock);
  Status prepare_growth(const Superblock& superblock);
  Status grow(const RootBlock& root);
  // Does the session's volume have another size than the published state?
  bool session_grows() const { return session_size_blocks_ != superblock_->size_blocks; }
  bool is_old_end(Address address) const;
  Result<RootBlock> check(const wire::Root& message) const;
  bool may_be_another_line(const RootBlock& root) const;
  Result<wire::Credit> take(const wire::Blocks& blocks, std::span<const Frame> payload);
  Result<wire::Published> take(const wire::Root& message);
  Result<wire::Want> take(const wire::Offer& offer, std::span<const Frame> payload);
  std::vector<bool> find_in_place(std::span<const wire::BlockEntry> entries);
  Status write_blocks(const wire::Blocks& blocks, const std::vector<PageRef>& pages);
  void keep_under(Cp cp, std::span<const BlockWrite> blocks);
  void keep_under_staged(Cp cp);
  Status publish(const RootBlock& root);
  Status publish_staged(const RootBlock& root);
  Status put_mark(PublishMark::Kind kind, const RootBlock& root, const StateName& base);
  Status check_address(Address address) const;
  void stop(const Error& reason);
  Cp published_cp() const { return Cp{root_ ? root_->cp : 0}; }

  MirrorStorage& storage_;
  KeptBlocks kept_;
  StagedDevice device_;
  StagingFile staging_;
  std::shared_ptr<BlockDevice> image_;
  std::optional<Superblock> superblock_;
  std::optional<RootBlock> root_;
  MirrorTarget* target_ = nullptr;
  std::optional<Error> stopped_;
  bool has_parts_ = false;  // blocks may have been written in place since the last publish
  bool compares_ = false;   // blocks were offered since then

  // Of the session. It is over after the first error.
  bool session_open_ = false;
  Epoch epoch_;                            // of the primary's newest root that was told here
  std::uint64_t session_size_blocks_ = 0;  // of the primary's volume
  std::uint64_t sequence_ = 0;
  std::uint64_t applied_bytes_ = 0;
  wire::RunningChecksum since_root_;
};

}  // namespace tarnfs
