// What a file that is opened with O_DIRECT asks of memory, asked by simulated devices too: where files are in memory
// the kernel does not ask for it, so that nothing else finds a caller that forgets it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/result.h"
#include "common/types.h"

namespace tarnfs::testing {

inline Status check_aligned(std::span<const std::byte> memory) {
  if (reinterpret_cast<std::uintptr_t>(memory.data()) % kBlockSize == 0) return {};
  return Error(ErrorCode::kIo, "the memory is not aligned");
}

}  // namespace tarnfs::testing
