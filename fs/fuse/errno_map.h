// The errno of each error code: what a system call on the mount returns.
//
// Invariants:
//   1. ENOSYS is never among them: the kernel would stop asking for good.
//
// Thread safety: plain functions.
#pragma once

#include "common/result.h"

namespace tarnfs {

int errno_of(ErrorCode code);

}  // namespace tarnfs
