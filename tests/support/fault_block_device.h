// A disk that fails at a chosen call.
//
// Purpose: to see at every call of a workload what a failure of it does.
//
// Invariants:
//   1. Calls of the chosen kind are counted from 0; number `at` fails, and those after it when the fault is for good.
//   2. A short write leaves the first half of its blocks and a part of the next one written; a short read the first
//   half
//      of its buffer. Both are reported as kIo.
//
// Thread safety: as BlockDevice.
// Ownership: the device below belongs to the caller and outlives this one.
#pragma once

#include <cstring>

#include "common/block_device.h"
#include "common/mutex.h"

namespace tarnfs::testing {

struct Fault {
  enum class Call { kAny, kRead, kWrite, kFlush };
  enum class Effect { kIo, kNoSpace, kShort };
  Call call = Call::kAny;
  Effect effect = Effect::kIo;
  std::uint64_t at = 0;
  bool for_good = false;
};

class FaultBlockDevice final : public BlockDevice {
 public:
  FaultBlockDevice(BlockDevice& below, const Fault& fault) : below_(below), fault_(fault) {}

  std::string name() const override { return "faulty"; }
  std::uint64_t size_blocks() const override { return below_.size_blocks(); }

  Status read(Address first, std::span<std::byte> out) override {
    if (!fails(Fault::Call::kRead)) return below_.read(first, out);
    const std::size_t whole = out.size() / kBlockSize / 2 * kBlockSize;
    if (fault_.effect == Fault::Effect::kShort && whole > 0) TARNFS_TRY(below_.read(first, out.first(whole)));
    return error("read", first);
  }

  Status write(Address first, std::span<const PageRef> pages) override {
    if (!fails(Fault::Call::kWrite)) return below_.write(first, pages);
    if (fault_.effect == Fault::Effect::kShort) {
      const std::size_t whole = pages.size() / 2;
      if (whole > 0) TARNFS_TRY(below_.write(first, pages.first(whole)));
      TARNFS_TRY(write_part(Address{first.value + whole}, pages[whole]));
    }
    return error("write", first);
  }

  Status flush() override { return fails(Fault::Call::kFlush) ? error("flush", Address{0}) : below_.flush(); }

  Status discard(Address first, std::uint64_t count_blocks) override { return below_.discard(first, count_blocks); }

  bool was_hit() const {
    MutexLock lock(mutex_);
    return failures_ > 0;
  }
  std::uint64_t failed_reads() const {
    MutexLock lock(mutex_);
    return failures_ - failed_changes_;
  }
  // Of writes and flushes.
  std::uint64_t failed_changes() const {
    MutexLock lock(mutex_);
    return failed_changes_;
  }

 private:
  bool fails(Fault::Call call) {
    if (fault_.call != Fault::Call::kAny && fault_.call != call) return false;
    MutexLock lock(mutex_);
    const std::uint64_t number = calls_++;
    if (number != fault_.at && (number < fault_.at || !fault_.for_good)) return false;
    ++failures_;
    failed_changes_ += call == Fault::Call::kRead ? 0 : 1;
    return true;
  }
  // The first three sectors of a page.
  Status write_part(Address address, const PageRef& page) {
    constexpr std::size_t kWrittenBytes = std::size_t{3} * 512;
    PageRef torn = PageRef::uninitialised();
    TARNFS_TRY(below_.read(address, torn.mutable_bytes()));
    std::memcpy(torn.mutable_bytes().data(), page.data(), kWrittenBytes);
    return below_.write(address, std::span(&torn, 1));
  }
  Error error(const char* what, Address address) const {
    const ErrorCode code = fault_.effect == Fault::Effect::kNoSpace ? ErrorCode::kNoSpace : ErrorCode::kIo;
    return Error(code, std::string("injected failure of a ") + what + " at block " + std::to_string(address.value));
  }

  BlockDevice& below_;
  const Fault fault_;
  mutable Mutex mutex_;
  std::uint64_t calls_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::uint64_t failures_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::uint64_t failed_changes_ TARNFS_GUARDED_BY(mutex_) = 0;
};

}  // namespace tarnfs::testing
