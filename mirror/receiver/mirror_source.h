// What mirrors of a mirror are fed from: its published states, one after the other, each by a walk.
//
// Purpose: a ReplicationSource for senders. What stands in a root is the view's matter; pins are what KeptBlocks keeps.
//
// Invariants:
//   1. Only roots that this mirror has published are given away.
//   2. Blocks of a root of the past, a mirror's published one, are not kept: where blocks land is the primary's choice,
//      which knows nothing of that mirror. It judges by its own root what it stages.
//
// Thread safety: as ReplicationSource.
// Ownership: view and kept blocks must outlive it.
// Errors: kCanceled when blocks of a root are missing because its pin was lost; whoever reads begins again.
#pragma once

#include "common/replication.h"
#include "mirror/receiver/kept_blocks.h"

namespace tarnfs {

class MirrorSource final : public ReplicationSource {
 public:
  // `view` shows what the receiver publishes, on the receiver's device.
  MirrorSource(ReplicationSource& view, KeptBlocks& kept) : view_(view), kept_(kept) {}

  Superblock superblock() const override { return view_.superblock(); }
  RootBlock newest_root() const override { return view_.newest_root(); }
  std::optional<std::uint64_t> root_checksum(Cp cp) override { return view_.root_checksum(cp); }
  bool is_one_line(Cp before, Cp root) const override { return kept_.is_one_line(before, root); }
  PinnedRoot pin_newest_root() override;
  PinId pin_root(Cp cp) override;
  void move_pin(PinId pin, Cp cp) override;
  void unpin(PinId pin) override { kept_.unpin(pin); }
  std::uint64_t held_bytes(PinId pin) override { return kept_.held_bytes(pin); }
  Status walk_changed(const RootBlock& root, Cp since, const std::function<Status(const BlockWrite&)>& visit) override;
  Status list_changed(const RootBlock& root, Cp since,
                      const std::function<Status(const BlockPointer&)>& visit) override;
  Result<BlockWrite> read_listed(const RootBlock& root, const BlockPointer& block) override;

 private:
  Error reading_failed(const RootBlock& root, const Error& error) const;

  ReplicationSource& view_;
  KeptBlocks& kept_;
};

}  // namespace tarnfs
