// Memory that is aligned as O_DIRECT wants it, for requests of many blocks.
//
// Thread safety: as a plain array.
// Ownership: owns its memory.
// Errors: none; asserts when there is no memory left.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <span>

#include "common/result.h"
#include "common/types.h"

namespace tarnfs {

class AlignedBuffer {
 public:
  explicit AlignedBuffer(std::size_t blocks)
      : size_bytes_(blocks * kBlockSize),
        memory_(static_cast<std::byte*>(std::aligned_alloc(kBlockSize, size_bytes_)), &std::free) {
    TARNFS_ASSERT(memory_ != nullptr);
  }
  std::size_t size_blocks() const { return size_bytes_ / kBlockSize; }
  std::span<std::byte> first(std::size_t blocks) { return {memory_.get(), blocks * kBlockSize}; }

 private:
  const std::size_t size_bytes_;
  std::unique_ptr<std::byte, decltype(&std::free)> memory_;
};

}  // namespace tarnfs
