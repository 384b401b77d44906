// Where a mirror in a test keeps its image: simulated devices.
//
// Thread safety: as MirrorStorage.
#pragma once

#include <memory>
#include <string>

#include "mirror/receiver/mirror_storage.h"
#include "tests/support/memory_block_device.h"

namespace tarnfs::testing {

// Simulated devices that outlive the receiver, as files do.
class DeviceStorage final : public MirrorStorage {
 public:
  std::string name() const override { return "mirror"; }
  Result<std::shared_ptr<BlockDevice>> open_image() override { return open(image); }
  Result<std::shared_ptr<BlockDevice>> create_image(std::uint64_t size_blocks) override {
    image = std::make_shared<MemoryBlockDevice>(size_blocks);
    return std::shared_ptr<BlockDevice>(image);
  }
  Result<std::shared_ptr<BlockDevice>> open_staging() override { return open(staging); }
  Result<std::shared_ptr<BlockDevice>> create_staging(std::uint64_t size_blocks) override {
    staging = std::make_shared<MemoryBlockDevice>(size_blocks);
    return std::shared_ptr<BlockDevice>(staging);
  }
  Status remove_staging() override {
    staging = nullptr;
    return {};
  }

  Result<std::shared_ptr<BlockDevice>> create_kept(std::uint64_t size_blocks) override {
    return std::shared_ptr<BlockDevice>(std::make_shared<MemoryBlockDevice>(size_blocks));
  }

  std::shared_ptr<MemoryBlockDevice> image;
  std::shared_ptr<MemoryBlockDevice> staging;

 private:
  static Result<std::shared_ptr<BlockDevice>> open(const std::shared_ptr<MemoryBlockDevice>& device) {
    if (device == nullptr) return Error(ErrorCode::kNotFound, "no such file");
    return std::shared_ptr<BlockDevice>(device);
  }
};

}  // namespace tarnfs::testing
