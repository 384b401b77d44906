// Opening an image that an old daemon may be closing at this moment.
//
// Thread safety: one thread of a process that has no others yet: it uses SIGALRM.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "common/file_block_device.h"

namespace tarnfs {

// As FileBlockDevice::open(), but waits at most `patience` for a process that has it and whose mount is gone. `path` is
// canonical. kBusy at once when the image is mounted, as whatever it be, and when the time is over.
Result<std::unique_ptr<FileBlockDevice>> open_image(const std::string& path, DeviceMode mode,
                                                    std::chrono::milliseconds patience);

}  // namespace tarnfs
