// What an image or block device holds already, so that mkfs does not destroy it by mistake. libblkid is behind the
// .cpp.
//
// Thread safety: plain functions.
// Errors: kBusy when another process has it open as a volume; kIo.
#pragma once

#include <optional>
#include <string>

#include "common/result.h"

namespace tarnfs {

// "a tarnfs volume", "an ext4 file system", "a dos partition table"; nothing when it is unknown or does not exist.
Result<std::optional<std::string>> known_content_of(const std::string& path);
// Removes the marks by which others know what was there.
Status forget_known_content(const std::string& path);

}  // namespace tarnfs
