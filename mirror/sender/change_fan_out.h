// One change feed for several: the engine knows one, a volume may have several mirrors.
//
// Thread safety: as ChangeFeed; add() before the first announcement.
#pragma once

#include <vector>

#include "common/replication.h"

namespace tarnfs {

class ChangeFanOut final : public ChangeFeed {
 public:
  // `feed` must outlive this.
  void add(ChangeFeed& feed) { feeds_.push_back(&feed); }

  void on_blocks(Cp cp, std::span<const BlockWrite> blocks) override {
    for (ChangeFeed* feed : feeds_) feed->on_blocks(cp, blocks);
  }
  void on_published(const RootBlock& root) override {
    for (ChangeFeed* feed : feeds_) feed->on_published(root);
  }
  void on_adopted(const RootBlock& root, std::uint64_t received_bytes) override {
    for (ChangeFeed* feed : feeds_) feed->on_adopted(root, received_bytes);
  }
  void on_pin_lost(const LostPin& lost) override {
    for (ChangeFeed* feed : feeds_) feed->on_pin_lost(lost);
  }

 private:
  std::vector<ChangeFeed*> feeds_;
};

}  // namespace tarnfs
