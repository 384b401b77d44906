// Making a new, empty volume on a device: mkfs.
#pragma once

#include <optional>
#include <string>

#include "common/block_device.h"
#include "common/clock.h"
#include "common/format.h"

namespace tarnfs {

struct FormatOptions {
  std::string label;  // at most 63 bytes
  VolumeId volume;    // zero: a random one
  std::uint32_t root_uid = 0;
  std::uint32_t root_gid = 0;
  // Blocks of the intent journal: 0 for none, else 64 to 16384. By default a 16th of the volume in these bounds.
  std::optional<std::uint64_t> journal_blocks;
};

// Writes superblock, root directory and first root block; durable when it returns. The time does not depend on the
// size. kInvalid when the device is too small or too large. Does not look at what was there before.
Result<Superblock> format_volume(BlockDevice& device, const FormatOptions& options, Clock& clock);

}  // namespace tarnfs
