// The device under the mirror's read-only volume: the image, with staged blocks in front while a state is published.
//
// Invariants:
//   1. Before the first image is made the device has no blocks.
//   2. While staged blocks are shown, read() gives them for their addresses. read_other_copy() has what the image has
//      there, then what is kept of earlier states. So readers of the old and of the new state, and of a pinned one, all
//      find a block with the checksum they expect: what is kept was there before the image was written.
//   3. A read that ran while show() or hide() changed the device is done again.
//
// Thread safety: all functions may be called from any thread; no lock is held while the disk works.
// Errors: kIo; kReadOnly for writes, which only the receiver does, past this device.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/block_device.h"
#include "common/mutex.h"
#include "mirror/receiver/kept_blocks.h"
#include "mirror/receiver/staging_file.h"

namespace tarnfs {

class StagedDevice final : public BlockDevice {
 public:
  // `kept` must outlive this.
  StagedDevice(std::string name, KeptBlocks& kept) : name_(std::move(name)), kept_(kept) {}

  void set_image(std::shared_ptr<BlockDevice> image) TARNFS_EXCLUDES(mutex_);
  void show(StagedBlocks blocks, std::shared_ptr<BlockDevice> staging) TARNFS_EXCLUDES(mutex_);
  void hide() TARNFS_EXCLUDES(mutex_);

  std::string name() const override { return name_; }
  std::uint64_t size_blocks() const override TARNFS_EXCLUDES(mutex_);
  Status read(Address first, std::span<std::byte> out) override TARNFS_EXCLUDES(mutex_);
  Status read_other_copy(Address address, std::size_t number, std::span<std::byte, kBlockSize> out) override
      TARNFS_EXCLUDES(mutex_);
  Status write(Address first, std::span<const PageRef> pages) override;
  Status flush() override;

 private:
  struct View {
    std::shared_ptr<BlockDevice> image;
    std::shared_ptr<BlockDevice> staging;  // null: nothing is shown
    StagedBlocks blocks;
  };

  std::shared_ptr<const View> view() const TARNFS_EXCLUDES(mutex_);
  void replace(std::shared_ptr<const View> next) TARNFS_EXCLUDES(mutex_);
  Status read_through(const View& view, Address first, std::span<std::byte> out) const;

  const std::string name_;
  KeptBlocks& kept_;
  mutable Mutex mutex_;
  std::shared_ptr<const View> view_ TARNFS_GUARDED_BY(mutex_) = std::make_shared<const View>();
};

}  // namespace tarnfs
