// Where a mirror keeps its image and its staging file: the daemon's are files, the tests' are memory.
//
// Invariants:
//   1. What was made is still there after a crash: its name is durable when create_image() or create_staging() returns.
//
// Thread safety: used by one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/block_device.h"
#include "common/result.h"

namespace tarnfs {

class MirrorStorage {
 public:
  virtual ~MirrorStorage() = default;
  // For messages: the path of the image.
  virtual std::string name() const = 0;
  // kNotFound when there is none yet.
  virtual Result<std::shared_ptr<BlockDevice>> open_image() = 0;
  virtual Result<std::shared_ptr<BlockDevice>> create_image(std::uint64_t size_blocks) = 0;
  // The staging file: sparse, and gone when nothing is staged. kNotFound when there is none.
  virtual Result<std::shared_ptr<BlockDevice>> open_staging() = 0;
  virtual Result<std::shared_ptr<BlockDevice>> create_staging(std::uint64_t size_blocks) = 0;
  virtual Status remove_staging() = 0;
  // Room for what is kept of states that were left: empty, and gone with the last who holds it, also after a crash.
  virtual Result<std::shared_ptr<BlockDevice>> create_kept(std::uint64_t size_blocks) = 0;
};

// The image at `path` and the staging file beside it, at `path`.staging.
std::unique_ptr<MirrorStorage> file_mirror_storage(const std::string& path);

}  // namespace tarnfs
