// Reads blocks for the checker and verifies them against their pointers.
//
// Purpose: metadata that is interpreted is read at once through a cache of 128 KiB segments, because what a consistency
// point wrote lies together; data that is only verified waits in a queue, and is read in the order of addresses.
//
// Invariants:
//   1. read_verified() gives a page only when its checksum is the pointer's; else there is a problem in the log.
//   2. When a read of many blocks fails, each is read alone, so that one bad sector costs one block.
//   3. After finish() every block given to verify_later() was read.
//
// Thread safety: none.
// Ownership: owns its buffers, 8 MiB for segments, 1 MiB for runs and 8 MiB for the queue.
// Errors: problems in the log (kUnreadable, kChecksum, with the owner's name).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "common/block_device.h"
#include "common/format.h"
#include "fs/check/report.h"

namespace tarnfs::check {

// Whose tree a block belongs to: an inode, or one of the two in the root block.
struct TreeOwner {
  static constexpr std::uint64_t kInodeFile = ~std::uint64_t{0};
  static constexpr std::uint64_t kFreeMap = ~std::uint64_t{0} - 1;
  std::uint64_t number = 0;
  bool is_inode() const { return number < kFreeMap; }
  std::optional<InodeNumber> inode() const { return is_inode() ? std::optional(InodeNumber{number}) : std::nullopt; }
  std::string name() const;
};

// `size_bytes` of memory, aligned for O_DIRECT.
class AlignedBuffer {
 public:
  explicit AlignedBuffer(std::size_t size_bytes)
      : bytes_(static_cast<std::byte*>(::operator new (size_bytes, std::align_val_t{kBlockSize}))),
        size_bytes_(size_bytes) {}
  std::span<std::byte> span() { return {bytes_.get(), size_bytes_}; }

 private:
  struct Deleter {
    void operator()(std::byte* bytes) const { ::operator delete (bytes, std::align_val_t{kBlockSize}); }
  };
  std::unique_ptr<std::byte, Deleter> bytes_;
  std::size_t size_bytes_;
};

class BlockReader {
 public:
  // Every block below `size_blocks` may be asked for. `on_progress` gets the number of blocks read so far.
  BlockReader(BlockDevice& device, std::uint64_t size_blocks, ProblemLog& log,
              std::function<void(std::uint64_t)> on_progress);

  // The block at an address inside the volume, unverified.
  Result<PageRef> read(Address address);
  // The block of `pointer`, whose address was checked; empty when it is damaged. `what` names it in the message.
  PageRef read_verified(const BlockPointer& pointer, TreeOwner owner, std::string_view what);
  // Verifies a data block some time before finish() returns.
  void verify_later(const BlockPointer& pointer, TreeOwner owner, std::uint64_t index);
  void finish();

 private:
  struct Segment {
    std::uint64_t number = ~std::uint64_t{0};  // no segment of a volume has this number
    std::unique_ptr<AlignedBuffer> buffer;
  };
  struct Waiting {
    std::uint64_t address;
    std::uint64_t checksum;
    std::uint64_t owner;
    std::uint64_t index;
  };

  std::size_t verify_run(std::size_t first);
  void verify_one(const Waiting& waiting, std::span<const std::byte> bytes);
  void report_unreadable(const Error& error, Address address, TreeOwner owner, std::string_view what);
  void count_blocks(std::uint64_t blocks);

  BlockDevice& device_;
  const std::uint64_t size_blocks_;
  ProblemLog& log_;
  const std::function<void(std::uint64_t)> on_progress_;
  std::vector<Segment> segments_;
  std::vector<Waiting> queue_;
  AlignedBuffer run_;
  std::uint64_t blocks_read_ = 0;
  std::uint64_t blocks_told_ = 0;
};

}  // namespace tarnfs::check
