// What a simulated disk gives for a block that was discarded: neither the old content nor zeros.
#pragma once

#include <cstring>

#include "common/page.h"

namespace tarnfs::testing {

inline PageRef garbage_page(std::uint64_t block) {
  PageRef page = PageRef::uninitialised();
  std::uint64_t next = block;
  for (std::size_t at = 0; at < kBlockSize; at += sizeof next) {
    next = next * 6364136223846793005ULL + 1442695040888963407ULL;
    std::memcpy(page.mutable_bytes().data() + at, &next, sizeof next);
  }
  return page;
}

}  // namespace tarnfs::testing
