// Comparing the histories of two sides, like commits: equal, behind, or diverged.
//
// Thread safety: plain functions on values.
#pragma once

#include "common/format.h"
#include "common/types.h"

namespace tarnfs {

enum class Relation {
  kEqual,     // the same state
  kBehind,    // a past state of ours: it can be brought forward. Of cps before the last one nothing but the number is
              // compared: `ours` has no more of them
  kDiverged,  // it has something that we never had
};

// How the state `theirs` (of the same volume) stands to our state `ours`.
Relation relation_of(const StateName& theirs, const RootBlock& ours);

}  // namespace tarnfs
