// A reply that takes several calls of the file system, and is of one view all the same.
//
// Purpose: listings. A file system that changes by itself (a mirror) may move to its next view between two calls.
//
// Thread safety: a function on values.
#pragma once

#include <concepts>
#include <cstdint>

#include "common/result.h"

namespace tarnfs {

// Gathers the reply anew until the view stayed the same meanwhile. `gather` begins with an empty reply each time. What
// was gathered before an error may be a reply too, so this holds for errors as well. What was read stays in memory, so
// the next round is faster.
template <class Viewed, std::invocable Gather>
Status in_one_view(const Viewed& viewed, const Gather& gather) {
  for (;;) {
    const std::uint64_t view = viewed.view();
    Status status = gather();
    if (viewed.view() == view) return status;
  }
}

}  // namespace tarnfs
