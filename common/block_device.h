// The seam to the disk: an image as an array of 4 KiB blocks.
//
// Invariants:
//   1. What write() wrote is durable once a later flush() returned without error; until then any subset of it, torn at
//      512 bytes, may survive a crash.
//   2. read() returns what was last written, durable or not.
//
// Thread safety: all functions may be called from any thread at once; overlapping writes are the caller's mistake.
// Errors: kIo with the address and the reason; kNoSpace when the file system under the image is full.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "common/page.h"
#include "common/result.h"
#include "common/types.h"

namespace tarnfs {

class BlockDevice {
 public:
  virtual ~BlockDevice() = default;
  // For messages: the path of the image.
  virtual std::string name() const = 0;
  virtual std::uint64_t size_blocks() const = 0;
  // How large it could be: what is there by now, however long it was when it was opened.
  virtual Result<std::uint64_t> size_blocks_now() { return size_blocks(); }
  // Makes it at least so large; never smaller. kNoSpace when there is no room. Durable after a flush().
  virtual Status grow(std::uint64_t size_blocks) {
    return size_blocks <= this->size_blocks() ? Status() : Status(Error(ErrorCode::kUnsupported));
  }
  // Reads out.size() / 4096 blocks from `first` on. `out` is 4096-aligned and a multiple of 4096 long.
  virtual Status read(Address first, std::span<std::byte> out) = 0;
  // Other copies of a block, 0 and up, where the device has some: a mirror's device does while it moves to a new state,
  // and of states that it has left. For a block that failed its checksum. kNotFound when there is none with this
  // number.
  virtual Status read_other_copy(Address /*address*/, std::size_t /*number*/,
                                 std::span<std::byte, kBlockSize> /*out*/) {
    return Error(ErrorCode::kNotFound);
  }
  // Writes the pages to consecutive blocks from `first` on.
  virtual Status write(Address first, std::span<const PageRef> pages) = 0;
  // Makes all that was written before durable.
  virtual Status flush() = 0;
  // Gives the storage below these blocks back. What they hold is undefined until they are written again, after a crash,
  // too. kUnsupported where storage cannot be given back.
  virtual Status discard(Address /*first*/, std::uint64_t /*count_blocks*/) { return Error(ErrorCode::kUnsupported); }
};

}  // namespace tarnfs
