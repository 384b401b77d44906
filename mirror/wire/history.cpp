#include "mirror/wire/history.h"

#include <algorithm>
#include <span>

namespace tarnfs {

Relation relation_of(const StateName& theirs, const RootBlock& ours) {
  if (theirs.epoch.bytes == ours.epoch) {
    if (theirs.cp.value < ours.cp) {
      const bool is_one_before = theirs.cp.value + 1 == ours.cp;
      return is_one_before && theirs.root_checksum != ours.previous_checksum ? Relation::kDiverged : Relation::kBehind;
    }
    const bool equal = theirs.cp.value == ours.cp && theirs.root_checksum == ours.checksum;
    return equal ? Relation::kEqual : Relation::kDiverged;
  }
  const auto ended = std::span(ours.history).first(std::min<std::size_t>(ours.history_count, kHistoryMax));
  for (const HistoryEntry& entry : ended) {
    if (entry.epoch == theirs.epoch.bytes) {
      return theirs.cp.value <= entry.last_cp ? Relation::kBehind : Relation::kDiverged;
    }
  }
  return Relation::kDiverged;
}

}  // namespace tarnfs
