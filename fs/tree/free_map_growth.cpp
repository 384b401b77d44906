// The free map of a volume that grows: the bits of the new blocks, and of the old end, are 0 already.
#include "fs/tree/free_map.h"

namespace tarnfs {

// A higher tree gets new nodes above the first page, which is written with them so that they have blocks.
Status FreeMap::prepare_growth(std::uint64_t size_blocks) {
  MutexLock lock(mutex_);
  const std::uint8_t height = height_for(map_pages_of(size_blocks));
  if (height == height_) return {};
  height_ = height;
  const auto page = dirty_page_at(0);
  return page.ok() ? Status() : Status(page.error());
}

void FreeMap::finish_growth(std::uint64_t size_blocks) {
  MutexLock lock(mutex_);
  size_blocks_ = size_blocks;
  data_blocks_ = end_of_data_blocks(size_blocks) - kFirstDataBlock;
}

}  // namespace tarnfs
