// Which pages of a file have a block, and for which one is kept.
//
// Purpose: the model's side of fallocate(2): what a volume owes a file of its space.
//
// Thread safety: none; a value.
#pragma once

#include <algorithm>
#include <cstdint>
#include <set>

#include "common/types.h"

namespace tarnfs::testing {

struct FilePages {
  std::set<std::uint64_t> data;
  std::set<std::uint64_t> reserved;  // none of `data`

  static std::uint64_t page_above(std::uint64_t offset_bytes) { return (offset_bytes + kBlockSize - 1) / kBlockSize; }

  void write(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    for (std::uint64_t page = offset_bytes / kBlockSize; page < page_above(offset_bytes + length_bytes); ++page) {
      put(page);
    }
  }
  void put(std::uint64_t page) {
    data.insert(page);
    reserved.erase(page);
  }
  // Whole pages go.
  void cut(std::uint64_t offset_bytes, std::uint64_t end_bytes) {
    for (std::set<std::uint64_t>* pages : {&data, &reserved}) {
      std::erase_if(*pages, [&](std::uint64_t page) {
        return page >= page_above(offset_bytes) && page < end_bytes / kBlockSize;
      });
    }
  }
  void reserve(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    for (std::uint64_t page = offset_bytes / kBlockSize; page < page_above(offset_bytes + length_bytes); ++page) {
      if (!data.contains(page)) reserved.insert(page);
    }
  }
  // The same range of another file, `ends_files`: with the end of both.
  void copy(const FilePages& from, std::uint64_t offset_bytes, std::uint64_t length_bytes, bool ends_files) {
    const std::uint64_t end_bytes = offset_bytes + length_bytes;
    for (std::uint64_t page = offset_bytes / kBlockSize; page < page_above(end_bytes); ++page) {
      const bool to_end = (page + 1) * kBlockSize <= end_bytes || ends_files;
      const bool is_whole = page * kBlockSize >= offset_bytes && to_end;
      data.erase(page);
      reserved.erase(page);
      if (!is_whole || from.data.contains(page)) data.insert(page);
    }
  }
  std::uint64_t count() const { return data.size() + reserved.size(); }
};

}  // namespace tarnfs::testing
