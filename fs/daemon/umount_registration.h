// Makes umount(8) call our helper.
//
// Purpose: for speed umount(8) asks statfs(2) for the type, which says "fuse" and nothing of the subtype; only when
// /run/mount/utab has an entry for the mountpoint does it read the mount table and then call umount.fuse.tarnfs
// or umount.fuseblk.tarnfs.
//
// Thread safety: plain functions. They wait for a short child process.
// Errors: kUnsupported when mount(8) cannot be run or refuses; the mount works all the same.
#pragma once

#include <string>

#include "common/result.h"

namespace tarnfs {

// For root, after the mount; `type` as the mount table shows it. umount(8) removes the entry.
Status register_for_umount(const std::string& image, const std::string& mountpoint, const std::string& type);
// Unmounts and removes the entry, without calling our helper, which would wait for this process. False when that did
// not work; then nothing has changed.
bool unmount_registered(const std::string& mountpoint);

}  // namespace tarnfs
