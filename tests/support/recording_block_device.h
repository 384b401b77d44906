// A simulated disk that remembers in which order it was written and flushed.
//
// Purpose: from the log every state can be built that a power cut could have left (crash_states.h).
//
// Invariants:
//   1. The log is in the order in which things took effect; a write is one event, a flush is two, its begin and its
//   end.
//   2. Writes before a flush's begin are durable at its end; writes between both are not assured.
//
// Thread safety: as BlockDevice; the rest may be called from any thread, too.
// Ownership: the log holds copies of what was written, so callers may reuse their pages.
// Errors: kIo beyond the end of the device, nothing else.
#pragma once

#include <cstring>
#include <limits>
#include <thread>

#include "common/block_device.h"
#include "common/mutex.h"
#include "tests/support/crash_image.h"
#include "tests/support/direct_memory.h"
#include "tests/support/garbage_page.h"

namespace tarnfs::testing {

inline constexpr std::size_t kNoEvent = std::numeric_limits<std::size_t>::max();

struct DeviceEvent {
  enum class Kind { kWrite, kFlushBegin, kFlushEnd, kMark };
  Kind kind = Kind::kMark;
  std::uint64_t first_address = 0;    // of a write
  std::vector<ImageBlock> blocks;     // of a write
  std::size_t flush_begin_event = 0;  // of a flush's end: where it began
};

class RecordingBlockDevice final : public BlockDevice {
 public:
  // `yields`: how often a write or a flush lets other threads go first, so that more happens meanwhile.
  explicit RecordingBlockDevice(CrashImage image, unsigned yields = 0)
      : size_blocks_(image.size_blocks()), yields_(yields), image_(std::move(image)) {}

  std::string name() const override { return "recording"; }
  std::uint64_t size_blocks() const override { return size_blocks_; }

  Status read(Address first, std::span<std::byte> out) override {
    TARNFS_TRY(check_aligned(out));
    const std::uint64_t count = out.size() / kBlockSize;
    if (first.value > size_blocks_ || count > size_blocks_ - first.value) {
      return Error(ErrorCode::kIo, "read beyond the end");
    }
    MutexLock lock(mutex_);
    for (std::uint64_t i = 0; i < count; ++i) {
      const ImageBlock& block = image_.at(first.value + i);
      if (block.page) {
        std::memcpy(out.data() + i * kBlockSize, block.page.data(), kBlockSize);
      } else {
        std::memset(out.data() + i * kBlockSize, 0, kBlockSize);
      }
    }
    return {};
  }

  Status write(Address first, std::span<const PageRef> pages) override {
    if (first.value > size_blocks_ || pages.size() > size_blocks_ - first.value) {
      return Error(ErrorCode::kIo, "write beyond the end");
    }
    DeviceEvent event;
    event.kind = DeviceEvent::Kind::kWrite;
    event.first_address = first.value;
    event.blocks.reserve(pages.size());
    for (const PageRef& page : pages) event.blocks.push_back(ImageBlock::copy_of(page.bytes()));
    let_others_go_first();
    MutexLock lock(mutex_);
    std::uint64_t address = first.value;
    for (const ImageBlock& block : event.blocks) image_.put(address++, block);
    written_blocks_ += event.blocks.size();
    events_.push_back(std::move(event));
    return {};
  }

  // As a write of garbage that is as little assured as any other before it was flushed: until then a crash leaves the
  // old content, the new one, or some of both.
  Status discard(Address first, std::uint64_t count_blocks) override {
    std::vector<PageRef> garbage;
    for (std::uint64_t i = 0; i < count_blocks; ++i) garbage.push_back(garbage_page(first.value + i));
    return write(first, garbage);
  }

  Status flush() override {
    const std::size_t began = append(DeviceEvent::Kind::kFlushBegin, 0);
    let_others_go_first();
    append(DeviceEvent::Kind::kFlushEnd, began);
    return {};
  }

  // Notes that something happened outside of the device; returns the number of the event.
  std::size_t mark() { return append(DeviceEvent::Kind::kMark, 0); }

  std::uint64_t written_blocks() const {
    MutexLock lock(mutex_);
    return written_blocks_;
  }
  std::vector<DeviceEvent> events() const {
    MutexLock lock(mutex_);
    return events_;
  }
  CrashImage image() const {
    MutexLock lock(mutex_);
    return image_;
  }

 private:
  void let_others_go_first() const {
    for (unsigned i = 0; i < yields_; ++i) std::this_thread::yield();
  }
  std::size_t append(DeviceEvent::Kind kind, std::size_t flush_begin_event) {
    MutexLock lock(mutex_);
    DeviceEvent event;
    event.kind = kind;
    event.flush_begin_event = flush_begin_event;
    events_.push_back(std::move(event));
    return events_.size() - 1;
  }

  const std::uint64_t size_blocks_;
  const unsigned yields_;
  mutable Mutex mutex_;
  CrashImage image_ TARNFS_GUARDED_BY(mutex_);
  std::vector<DeviceEvent> events_ TARNFS_GUARDED_BY(mutex_);
  std::uint64_t written_blocks_ TARNFS_GUARDED_BY(mutex_) = 0;
};

}  // namespace tarnfs::testing
