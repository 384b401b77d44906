// Repair of a journal that was damaged after it was written.
//
// Thread safety: `device` belongs to the caller alone.
// Errors: those of the device; kCorrupt when superblock or roots are lost.
#pragma once

#include "common/block_device.h"
#include "common/result.h"

namespace tarnfs {

// When a batch cannot be read although later ones are there, forgets the later ones: the journal then ends where the
// damage begins, and the volume can be opened with what comes before. Returns whether there was anything to forget.
Result<bool> give_up_damaged_journal(BlockDevice& device);

}  // namespace tarnfs
