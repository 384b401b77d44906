// Makes umount(8) call our helper.
//
// Purpose: for speed umount(8) asks statfs(2) for the type, which says "fuse" and nothing of the subtype; only when
// /run/mount/utab has an entry for the mountpoint does it read the mount table and then call umount.fuse.tarnfs.
//
// Thread safety: plain function. Waits for a short child process.
// Errors: kUnsupported when mount(8) cannot be run or refuses; the mount works all the same.
#pragma once

#include <string>

#include "common/result.h"

namespace tarnfs {

// For root, after the mount. umount(8) removes the entry.
Status register_for_umount(const std::string& image, const std::string& mountpoint);

}  // namespace tarnfs
