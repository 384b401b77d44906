#include "mirror/wire/history.h"

#include <algorithm>
#include <span>

namespace tarnfs {
namespace {

std::span<const HistoryEntry> ended_epochs(const RootBlock& root) {
  return std::span(root.history).first(std::min<std::size_t>(root.history_count, kHistoryMax));
}

Relation relation_in_epoch(const StateName& theirs, const RootBlock& ours) {
  if (theirs.cp.value == ours.cp) {
    return theirs.root_checksum == ours.checksum ? Relation::kEqual : Relation::kDiverged;
  }
  if (theirs.cp.value > ours.cp) return Relation::kDiverged;
  if (theirs.cp.value + 1 < ours.cp) return Relation::kUnproven;
  return theirs.root_checksum == ours.previous_checksum ? Relation::kBehind : Relation::kDiverged;
}

}  // namespace

Relation relation_of(const StateName& theirs, const RootBlock& ours) {
  if (theirs.epoch.bytes == ours.epoch) return relation_in_epoch(theirs, ours);
  const auto ended = ended_epochs(ours);
  const auto found = std::find_if(ended.begin(), ended.end(),
                                  [&](const HistoryEntry& entry) { return entry.epoch == theirs.epoch.bytes; });
  if (found == ended.end()) {
    const bool may_be_dropped = ended.size() == kHistoryMax && theirs.cp.value <= ended.front().last_cp;
    return may_be_dropped ? Relation::kUnproven : Relation::kDiverged;
  }
  if (theirs.cp.value > found->last_cp) return Relation::kDiverged;
  // The first epoch of a volume is that of mkfs, with one cp, or comes from a release that knew no other epochs.
  return found == ended.begin() && found->last_cp > 1 ? Relation::kUnproven : Relation::kBehind;
}

bool follows_epoch(const RootBlock& root, const Epoch& before) {
  const auto ended = ended_epochs(root);
  return !ended.empty() && ended.back().epoch == before.bytes;
}

bool knows_end_of(const RootBlock& ours, const Epoch& epoch) {
  const auto ended = ended_epochs(ours);
  return std::any_of(ended.begin(), ended.end(), [&](const HistoryEntry& entry) { return entry.epoch == epoch.bytes; });
}

}  // namespace tarnfs
