// A block device in a file or on a real block device, opened with O_DIRECT where the file system below has it.
//
// Invariants:
//   1. While it is open for writing no other process has it open for writing or reading (an OFD lock on the whole
//      file). make_writable() exchanges one lock for the other in one step, so nobody has written in between.
//   2. A block device that may be written is claimed (O_EXCL): the kernel lets nobody else mount it or claim it, but
//      between leave_claim() and claim().
//   3. After a failed flush every later one fails. The kernel tells of lost writes once: without this a second flush
//   would say that all is well. So one flush runs at a time.
//
// Thread safety: as BlockDevice.
// leave_claim(), claim() and give_back() from one thread at a time.
// Ownership: owns its descriptors, which are closed on exec.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "common/block_device.h"
#include "common/descriptor.h"
#include "common/mutex.h"

namespace tarnfs {

enum class DeviceMode {
  kReadOnly,         // shared lock
  kReadOnlyAtFirst,  // the same, until make_writable()
  kReadWrite,        // exclusive lock
};

class FileBlockDevice final : public BlockDevice {
 public:
  // Opens an existing image. kBusy when another process has it, or the kernel; kNotFound when there is none.
  static Result<std::unique_ptr<FileBlockDevice>> open(const std::string& path, DeviceMode mode);
  // From kReadOnlyAtFirst to kReadWrite. kBusy when another process has it open too, kReadOnly when the image may not
  // be written; then nothing has changed.
  Status make_writable();
  // Creates `path` sparse with `size_blocks`, or resizes an existing regular file to it; then its name is durable. For
  // a block device `size_blocks` 0 takes the device's size, and larger ones are kNoSpace.
  static Result<std::unique_ptr<FileBlockDevice>> create(const std::string& path, std::uint64_t size_blocks);
  // A file without a name, in the directory of `path`: it is gone when it is closed, also by a crash.
  static Result<std::unique_ptr<FileBlockDevice>> create_nameless(const std::string& path, std::uint64_t size_blocks);

  // Leaves the claim to somebody who acts for this process: the kernel, when it mounts the device.
  void leave_claim();
  // kBusy when somebody else has it. Does nothing for what is no block device.
  Status claim();
  // Lets others open it while this is still open. Nothing may be written any more.
  Status give_back();
  bool is_block_device() const { return is_block_device_; }

  FileBlockDevice(const FileBlockDevice&) = delete;
  FileBlockDevice& operator=(const FileBlockDevice&) = delete;

  std::string name() const override { return path_; }
  std::uint64_t size_blocks() const override { return size_blocks_; }
  Result<std::uint64_t> size_blocks_now() override;
  // A file becomes longer, sparsely; a block device must have become so already.
  Status grow(std::uint64_t size_blocks) override;
  Status read(Address first, std::span<std::byte> out) override;
  Status write(Address first, std::span<const PageRef> pages) override;
  Status flush() override;
  Status discard(Address first, std::uint64_t count_blocks) override;

 private:
  FileBlockDevice(std::string path, Descriptor descriptor, std::uint64_t size_blocks)
      : path_(std::move(path)), descriptor_(std::move(descriptor)), size_blocks_(size_blocks) {}

  const std::string path_;
  const Descriptor descriptor_;
  // Nothing is read or written through it, so that closing it ends the claim at once.
  Descriptor claim_;
  std::atomic<std::uint64_t> size_blocks_;  // grows
  // Set before the device is handed out, then constant.
  bool may_write_ = true;
  bool is_block_device_ = false;
  Mutex flush_mutex_;
  bool flush_failed_ TARNFS_GUARDED_BY(flush_mutex_) = false;
};

// Whether nobody may write there: a block device that is set so, or a file of a file system that is mounted read-only.
// What this process may not write for want of permission is something else.
Result<bool> is_write_protected(const std::string& path);

}  // namespace tarnfs
