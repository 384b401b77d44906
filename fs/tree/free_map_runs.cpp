// Runs of free blocks: what a trim gives back to the storage below.
#include <algorithm>
#include <bit>
#include <cstring>

#include "fs/tree/free_map.h"

namespace tarnfs {
namespace {

constexpr std::uint64_t kBitsPerWord = 64;

std::uint64_t word_in(const PageRef& page, std::uint64_t index) {
  std::uint64_t word = 0;
  std::memcpy(&word, page.data() + index * sizeof word, sizeof word);
  return word;
}

// The first bit from `bit` on, below `end_bit`, that is set in one of the pages, or `end_bit`. `held` may be null.
std::uint64_t next_taken(const PageRef& used, const PageRef* held, std::uint64_t bit, std::uint64_t end_bit) {
  while (bit < end_bit) {
    const std::uint64_t index = bit / kBitsPerWord;
    std::uint64_t taken = word_in(used, index);
    if (held != nullptr) taken |= word_in(*held, index);
    taken >>= bit % kBitsPerWord;
    if (taken != 0) return std::min(end_bit, bit + static_cast<unsigned>(std::countr_zero(taken)));
    bit = (index + 1) * kBitsPerWord;
  }
  return end_bit;
}

}  // namespace

Result<FreeMap::FreeRun> FreeMap::find_run(std::uint64_t from, std::uint64_t end) const {
  from = std::max(from, kFirstDataBlock);
  end = std::min(end, end_of_data_blocks(size_blocks_));
  if (from >= end) return FreeRun{end, end};
  const std::uint64_t index = from / kBitsPerMapPage;
  const std::uint64_t base = index * kBitsPerMapPage;
  const std::uint64_t end_bit = std::min(kBitsPerMapPage, end - base);
  TARNFS_ASSIGN(const std::uint64_t first, find_free_in_page(index, from - base, end_bit));
  if (first == end_bit) return FreeRun{base + end_bit, base + end_bit};
  TARNFS_ASSIGN(const PageRef used, page_at(index));
  const auto held = held_pages_.find(index);
  return FreeRun{base + first,
                 base + next_taken(used, held == held_pages_.end() ? nullptr : &held->second, first, end_bit)};
}

Result<FreeMap::FreeRun> FreeMap::next_free_run(std::uint64_t from, std::uint64_t end) {
  MutexLock lock(mutex_);
  return find_run(from, end);
}

Result<FreeMap::FreeRun> FreeMap::reserve_run(std::uint64_t from, std::uint64_t end, std::uint64_t count_max) {
  MutexLock lock(mutex_);
  TARNFS_ASSIGN(FreeRun run, find_run(from, end));
  run.end = std::min(run.end, run.first + count_max);
  for (std::uint64_t block = run.first; block < run.end; ++block) set_held(block, true);
  reserved_blocks_ += run.count();
  return run;
}

void FreeMap::unreserve_run(const FreeRun& run) {
  MutexLock lock(mutex_);
  for (std::uint64_t block = run.first; block < run.end; ++block) {
    TARNFS_ASSERT(is_held(block));
    set_held(block, false);
  }
  reserved_blocks_ -= run.count();
}

}  // namespace tarnfs
