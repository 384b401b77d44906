// Growing: the volume becomes larger while it is used.
//
// The new end is made first, where the volume does not reach yet. Then a consistency point publishes a root of the new
// size and writes the superblock at the front; from then on blocks behind the old end, and those of it, are given out.
// FORMAT.md says why a crash at any write leaves the old size or the new one.
#include <algorithm>
#include <utility>

#include "fs/engine/engine.h"

namespace tarnfs {

Result<std::uint64_t> Engine::resize(std::uint64_t size_bytes) {
  if (mode_ != VolumeMode::kReadWrite) return Error(ErrorCode::kReadOnly);
  const RunningFsync running(*this);  // shut_down() waits for what changes the device
  {
    MutexLock lock(cp_mutex_);
    if (stopped_) return Error(ErrorCode::kReadOnly, "the volume takes no changes: " + stop_reason_);
    if (std::exchange(resizing_, true)) return Error(ErrorCode::kBusy, "the volume is being resized already");
  }
  const auto size_blocks = size_to_grow_to(size_bytes);
  Status status = size_blocks.ok() ? grow_to(*size_blocks) : Status(size_blocks.error());
  {
    MutexLock lock(cp_mutex_);
    resizing_ = false;
  }
  if (!status.ok()) return status.error();
  return *size_blocks * kBlockSize;
}

Result<std::uint64_t> Engine::size_to_grow_to(std::uint64_t size_bytes) {
  const std::uint64_t now_blocks = size_blocks_.load();
  std::uint64_t blocks = size_bytes / kBlockSize;
  if (size_bytes == 0) {
    TARNFS_ASSIGN(const std::uint64_t image_blocks, device_.size_blocks_now());
    blocks = std::min(image_blocks, kVolumeBlocksMax);
    if (blocks < now_blocks + kGrowthBlocksMin) return now_blocks;
  }
  if (blocks == now_blocks) return blocks;
  if (blocks < now_blocks) {
    return Error(ErrorCode::kUnsupported, "a volume cannot become smaller than it is (" +
                                              std::to_string(now_blocks * kBlockSize) +
                                              " bytes); make a smaller one with mkfs.tarnfs and copy the files to it");
  }
  if (blocks > kVolumeBlocksMax || blocks < now_blocks + kGrowthBlocksMin) {
    return Error(ErrorCode::kInvalid, "a volume of " + std::to_string(now_blocks * kBlockSize) + " bytes can grow by " +
                                          std::to_string(kGrowthBlocksMin * kBlockSize) +
                                          " bytes and more, up to 4 PiB");
  }
  return blocks;
}

// Two consistency points: the second one's root stands at the other end, so that both have one of the new size.
Status Engine::grow_to(std::uint64_t size_blocks) {
  if (size_blocks == size_blocks_.load()) return {};
  const Status prepared = prepare_grown_end(device_, grown(superblock(), size_blocks));
  if (!prepared.ok()) return prepared.error().in("the storage below cannot hold the new end");
  growing_to_blocks_ = size_blocks;
  TARNFS_TRY(request_cp(true));
  return request_cp(true);
}

// The root of the new size is durable, and so are both superblocks.
void Engine::note_growth(const RootBlock& root) {
  {
    WriteLock lock(root_mutex_);
    superblock_.size_blocks = root.size_blocks;
    superblock_.checksum = grown(superblock_, root.size_blocks).checksum;
    root_ = root;
  }
  size_blocks_ = root.size_blocks;
  free_map_->finish_growth(root.size_blocks);
  set_reserves(false, true);
}

}  // namespace tarnfs
