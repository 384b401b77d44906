// A simulated block device in memory: sparse, with a log of writes and an injected failure.
//
// Thread safety: as BlockDevice.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>

#include "common/block_device.h"
#include "common/mutex.h"
#include "tests/support/direct_memory.h"
#include "tests/support/garbage_page.h"

namespace tarnfs::testing {

class MemoryBlockDevice final : public BlockDevice {
 public:
  explicit MemoryBlockDevice(std::uint64_t size_blocks) : size_blocks_(size_blocks) {}

  std::string name() const override { return "memory"; }
  std::uint64_t size_blocks() const override { return size_blocks_; }
  Result<std::uint64_t> size_blocks_now() override { return std::max(size_blocks_.load(), room_blocks_.load()); }
  // Up to what give_room() said.
  Status grow(std::uint64_t size_blocks) override {
    if (size_blocks <= size_blocks_) return {};
    if (size_blocks > room_blocks_) return Error(ErrorCode::kNoSpace, "the device has no room");
    size_blocks_ = size_blocks;
    return {};
  }
  void give_room(std::uint64_t room_blocks) { room_blocks_ = room_blocks; }

  Status read(Address first, std::span<std::byte> out) override {
    TARNFS_TRY(check_aligned(out));
    MutexLock lock(mutex_);
    TARNFS_TRY(count_call());
    ++reads_;
    if (first.value + out.size() / kBlockSize > size_blocks_) return Error(ErrorCode::kIo, "read beyond the end");
    for (std::size_t done = 0; done < out.size(); done += kBlockSize, ++first.value) {
      const auto found = blocks_.find(first.value);
      if (found == blocks_.end()) {
        std::memset(out.data() + done, 0, kBlockSize);
      } else {
        std::memcpy(out.data() + done, found->second.data(), kBlockSize);
      }
    }
    return {};
  }

  Status write(Address first, std::span<const PageRef> pages) override {
    MutexLock lock(mutex_);
    TARNFS_TRY(count_call());
    if (first.value + pages.size() > size_blocks_) return Error(ErrorCode::kIo, "write beyond the end");
    for (const PageRef& page : pages) {
      ++written_blocks_;
      blocks_[first.value++] = PageRef::copy_of(page.bytes());
    }
    return {};
  }

  Status flush() override {
    MutexLock lock(mutex_);
    return count_call();
  }

  // What was discarded reads as garbage.
  Status discard(Address first, std::uint64_t count_blocks) override {
    MutexLock lock(mutex_);
    TARNFS_TRY(count_call());
    if (first.value + count_blocks > size_blocks_) return Error(ErrorCode::kIo, "discard beyond the end");
    for (std::uint64_t block = first.value; block < first.value + count_blocks; ++block) {
      blocks_[block] = garbage_page(block);
    }
    discarded_blocks_ += count_blocks;
    return {};
  }
  std::uint64_t discarded_blocks() const {
    MutexLock lock(mutex_);
    return discarded_blocks_;
  }

  // Every call from the n-th (0: the next) on fails with kIo.
  void fail_from_call(std::optional<std::uint64_t> n) {
    MutexLock lock(mutex_);
    calls_ = 0;
    fail_from_ = n;
  }
  // How many calls there were since fail_from_call() with a number.
  std::uint64_t calls() const {
    MutexLock lock(mutex_);
    return calls_;
  }
  std::uint64_t reads() const {
    MutexLock lock(mutex_);
    return reads_;
  }
  std::uint64_t written_blocks() const {
    MutexLock lock(mutex_);
    return written_blocks_;
  }
  // Flips a bit of a block, as a bad disk would.
  void damage(Address address) {
    MutexLock lock(mutex_);
    PageRef& page = blocks_.at(address.value);
    page.make_unique();
    page.mutable_bytes()[100] ^= std::byte{1};
  }
  // What a crash now and a new start would find, when all writes survive.
  std::unique_ptr<MemoryBlockDevice> clone() const {
    MutexLock lock(mutex_);
    auto copy = std::make_unique<MemoryBlockDevice>(size_blocks_);
    copy->adopt_blocks(blocks_);
    return copy;
  }

 private:
  void adopt_blocks(const std::map<std::uint64_t, PageRef>& blocks) {
    MutexLock lock(mutex_);
    for (const auto& [address, page] : blocks) blocks_[address] = PageRef::copy_of(page.bytes());
  }
  Status count_call() TARNFS_REQUIRES(mutex_) {
    if (fail_from_ && calls_++ >= *fail_from_) return Error(ErrorCode::kIo, "injected failure");
    return {};
  }

  std::atomic<std::uint64_t> size_blocks_;
  std::atomic<std::uint64_t> room_blocks_{0};
  mutable Mutex mutex_;
  std::map<std::uint64_t, PageRef> blocks_ TARNFS_GUARDED_BY(mutex_);
  std::optional<std::uint64_t> fail_from_ TARNFS_GUARDED_BY(mutex_);
  std::uint64_t calls_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::uint64_t reads_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::uint64_t written_blocks_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::uint64_t discarded_blocks_ TARNFS_GUARDED_BY(mutex_) = 0;
};

}  // namespace tarnfs::testing
