// What the kernel does by itself for its own file systems: mount -o remount, and a second mount of the same volume.
//
// Thread safety: plain functions.
// Errors: kInvalid where no tarnfs volume is mounted, kReadOnly and kBusy for a remount to read-write of what cannot be
// written, kUnsupported for what stays as it is until the volume is unmounted, kIo and kNotPermitted with what mount(2)
// said.
#pragma once

#include <optional>
#include <string>

#include "common/result.h"
#include "fs/control/mount_table.h"

namespace tarnfs {

// Whether the list of mount options has `option`.
bool has_mount_option(const std::string& options, std::string_view option);
// The flags of mount(2) that a list of mount options stands for; of two that contradict each other the later one.
unsigned long mount_flags_of(const std::string& options);
// Those of a remount with `options` of what is mounted with `mounted`: sync and dirsync stay, for the daemon makes
// changes durable as it was told when it began. kUnsupported when `options` want one of them otherwise.
Result<unsigned long> remount_flags_of(const std::string& options, const std::string& mounted);

// The mount of this image that can be shown at another place too: one of all that is in it, which nothing hides.
std::optional<MountEntry> shareable_mount_of(const std::string& image);
// Shows what is mounted there at `directory` too. `ro` and the like hold for the new place alone.
Status mount_again(const MountEntry& mounted, const std::string& directory, const std::string& options);
// Changes the flags of what is mounted at `directory`. When it is read-only then, the image has all of it.
Status remount(const std::string& directory, const std::string& options);

}  // namespace tarnfs
