#include "mirror/receiver/mirror_storage.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/file_block_device.h"
#include "common/staging_place.h"

namespace tarnfs {
namespace {

Result<std::shared_ptr<BlockDevice>> shared(Result<std::unique_ptr<FileBlockDevice>> device) {
  if (!device.ok()) return device.error();
  return std::shared_ptr<BlockDevice>(*std::move(device));
}

class FileMirrorStorage final : public MirrorStorage {
 public:
  explicit FileMirrorStorage(std::string path) : path_(std::move(path)) {}

  std::string name() const override { return path_; }
  Result<std::shared_ptr<BlockDevice>> open_image() override {
    return shared(FileBlockDevice::open(path_, DeviceMode::kReadWrite));
  }
  Result<std::shared_ptr<BlockDevice>> create_image(std::uint64_t size_blocks) override {
    return shared(FileBlockDevice::create(path_, size_blocks));
  }
  Result<std::shared_ptr<BlockDevice>> open_staging() override {
    return shared(FileBlockDevice::open(staging_path(), DeviceMode::kReadWrite));
  }
  Result<std::shared_ptr<BlockDevice>> create_staging(std::uint64_t size_blocks) override {
    return shared(FileBlockDevice::create(staging_path(), size_blocks));
  }
  Status remove_staging() override {
    if (::unlink(staging_path().c_str()) == 0 || errno == ENOENT) return {};
    return Error(ErrorCode::kIo, "remove " + staging_path() + ": " + std::strerror(errno));
  }
  Result<std::shared_ptr<BlockDevice>> create_kept(std::uint64_t size_blocks) override {
    return shared(FileBlockDevice::create_nameless(path_ + ".kept", size_blocks));
  }

 private:
  std::string staging_path() const { return staging_path_of(path_); }

  const std::string path_;
};

}  // namespace

std::unique_ptr<MirrorStorage> file_mirror_storage(const std::string& path) {
  return std::make_unique<FileMirrorStorage>(path);
}

}  // namespace tarnfs
