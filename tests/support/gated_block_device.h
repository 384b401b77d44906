// A device whose writes, or whose writes of roots only, are held back while its gate is closed.
//
// Thread safety: as BlockDevice; the gate may be moved by any thread.
// Ownership: the device below outlives it.
#pragma once

#include <string>

#include "common/block_device.h"
#include "common/format.h"
#include "common/mutex.h"

namespace tarnfs::testing {

class GatedBlockDevice final : public BlockDevice {
 public:
  enum class Gate { kWrites, kRoots };

  GatedBlockDevice(BlockDevice& below, Gate gate) : below_(below), gate_(gate) {}

  std::string name() const override { return below_.name(); }
  std::uint64_t size_blocks() const override { return below_.size_blocks(); }
  Status read(Address first, std::span<std::byte> out) override { return below_.read(first, out); }
  Status write(Address first, std::span<const PageRef> pages) override {
    if (gate_ == Gate::kWrites || !is_data_address(first, size_blocks())) pass_gate();
    return below_.write(first, pages);
  }
  Status flush() override { return below_.flush(); }

  void close() {
    MutexLock lock(mutex_);
    closed_ = true;
  }
  void open() {
    MutexLock lock(mutex_);
    closed_ = false;
    changed_.notify_all();
  }
  // Until a write stands before the closed gate.
  void wait_for_a_write() {
    MutexLock lock(mutex_);
    while (waiting_ == 0) changed_.wait(mutex_);
  }

 private:
  void pass_gate() {
    MutexLock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    while (closed_) changed_.wait(mutex_);
    --waiting_;
  }

  BlockDevice& below_;
  const Gate gate_;
  Mutex mutex_;
  Condition changed_;
  bool closed_ TARNFS_GUARDED_BY(mutex_) = false;
  unsigned waiting_ TARNFS_GUARDED_BY(mutex_) = 0;
};

}  // namespace tarnfs::testing
