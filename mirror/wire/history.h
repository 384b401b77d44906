// Comparing the histories of two sides, like commits: equal, behind, or diverged.
//
// A volume gets a new epoch with each mount (FORMAT.md), so that an ended epoch and a cp of it name one state, whatever
// copies of the image were made and mounted. Two things are not that sure: a state of the epoch that goes on (its
// process knows more, unless it was set back with the image), and one from before the oldest epoch that is kept.
//
// Thread safety: plain functions on values.
#pragma once

#include "common/format.h"
#include "common/types.h"

namespace tarnfs {

enum class Relation {
  kEqual,     // the same state
  kBehind,    // a past state of ours: it can be brought forward by what is new since
  kUnproven,  // a past state of ours, unless our volume was set back to an older copy of itself since
  kDiverged,  // it has something that we never had
};

// How the state `theirs` (of the same volume) stands to our state `ours`.
Relation relation_of(const StateName& theirs, const RootBlock& ours);

// The first root of a mount begins an epoch, and the one before it ends there: is that `before`?
bool follows_epoch(const RootBlock& root, const Epoch& before);
// Does our history say where this epoch ended? If not, a cp of it that we have not reached may come to us yet.
bool knows_end_of(const RootBlock& ours, const Epoch& epoch);

}  // namespace tarnfs
