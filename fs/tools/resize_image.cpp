#include "fs/tools/resize_image.h"

#include "common/file_block_device.h"
#include "fs/engine/volume.h"

namespace tarnfs {

Result<std::uint64_t> resize_image(const std::string& image, std::uint64_t size_bytes) {
  TARNFS_ASSIGN(const auto device, FileBlockDevice::open(image, DeviceMode::kReadWrite));
  VolumeOptions options;
  options.cp_interval_ms = 0;
  TARNFS_ASSIGN(const auto volume, Volume::open(*device, options));
  auto resized = volume->resize(size_bytes);
  const Status closed = volume->close();
  if (resized.ok() && !closed.ok()) return closed.error();
  return resized;
}

}  // namespace tarnfs
