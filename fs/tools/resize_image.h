// Growing a volume that is not mounted.
//
// Thread safety: one thread.
// Errors: kBusy when a daemon has the image, kReadOnly when it may not be written, and those of FileSystem::resize().
#pragma once

#include <cstdint>
#include <string>

#include "common/result.h"

namespace tarnfs {

// `size_bytes` 0: all that the image has room for. Returns the size. What the journal has is done again first, as a
// mount would do.
Result<std::uint64_t> resize_image(const std::string& image, std::uint64_t size_bytes);

}  // namespace tarnfs
