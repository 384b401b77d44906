// Where a mirror keeps blocks of a state that it is about to publish: beside its image. PROTOCOL.md has the layout.
//
// Purpose: from the moment when such a state is decided until its blocks have been copied, the image alone is a mixture
// of two states. Only tarn-mirrord knows how to finish that, so that others must not take the image for a volume.
//
// Thread safety: plain functions.
// Errors: kRefused for an image that is not finished.
#pragma once

#include <cstdint>
#include <string>

#include "common/block_device.h"
#include "common/result.h"

namespace tarnfs {

inline constexpr std::uint64_t kStagingMagic = 0x47415453'4e524154ULL;  // "TARNSTAG" in bytes; begins a decided file
inline constexpr std::size_t kStagingVolumeOffset = 16;                 // the volume's id, behind the magic

std::string staging_path_of(const std::string& image);

// Whether `image`, which was opened from `path`, is whole without its staging file.
Status check_nothing_is_staged(BlockDevice& image, const std::string& path);

}  // namespace tarnfs
