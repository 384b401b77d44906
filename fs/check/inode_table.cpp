#include "fs/check/inode_table.h"

#include <algorithm>

namespace tarnfs::check {

void InodeTable::add(std::uint64_t number, std::uint32_t link_count, std::uint8_t state, std::uint64_t parent) {
  const std::uint64_t first = number - number % InodeChunk::kInodes;
  TARNFS_ASSERT(state != 0 && (chunks_.empty() || chunks_.back()->first <= first));
  if (chunks_.empty() || chunks_.back()->first != first) {
    chunks_.push_back(std::make_unique<InodeChunk>());
    chunks_.back()->first = first;
  }
  InodeChunk& chunk = *chunks_.back();
  chunk.link_count[number - first] = link_count;
  chunk.state[number - first] = state;
  if ((state & kTypeBits) == kTypeDirectory) directories_.push_back({number, parent});
}

InodeSlot InodeTable::find(std::uint64_t number) const {
  const auto behind = std::upper_bound(chunks_.begin(), chunks_.end(), number,
                                       [](std::uint64_t wanted, const auto& chunk) { return wanted < chunk->first; });
  if (behind == chunks_.begin()) return {};
  InodeChunk* const chunk = std::prev(behind)->get();
  const std::uint64_t index = number - chunk->first;
  if (index >= InodeChunk::kInodes || chunk->state[index] == 0) return {};
  return {chunk, index};
}

std::size_t InodeTable::find_directory(std::uint64_t number) const {
  const auto found =
      std::lower_bound(directories_.begin(), directories_.end(), number,
                       [](const DirectoryInfo& info, std::uint64_t wanted) { return info.number < wanted; });
  if (found == directories_.end() || found->number != number) return directories_.size();
  return static_cast<std::size_t>(found - directories_.begin());
}

void LostRanges::add(std::uint64_t first, std::uint64_t count) {
  if (!ranges_.empty() && ranges_.back().end >= first) {
    ranges_.back().end = std::max(ranges_.back().end, first + count);
  } else {
    ranges_.push_back({first, first + count});
  }
}

bool LostRanges::contains(std::uint64_t number) const {
  const auto behind = std::upper_bound(ranges_.begin(), ranges_.end(), number,
                                       [](std::uint64_t wanted, const Range& range) { return wanted < range.first; });
  return behind != ranges_.begin() && number < std::prev(behind)->end;
}

}  // namespace tarnfs::check
