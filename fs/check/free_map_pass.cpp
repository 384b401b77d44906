// The free map against the blocks that the passes before have found in use.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <vector>

#include "fs/check/check_state.h"

namespace tarnfs::check {
namespace {

using BitWords = std::array<std::uint64_t, kBlockSize / sizeof(std::uint64_t)>;

// Joins neighbouring blocks with the same problem into one finding.
class RunReporter {
 public:
  explicit RunReporter(CheckState& state) : state_(state) {}

  void add(ProblemKind kind, std::uint64_t block) {
    if (count_ > 0 && kind == kind_ && block == first_ + count_) {
      ++count_;
      return;
    }
    flush();
    kind_ = kind;
    first_ = block;
    count_ = 1;
  }

  void flush() {
    if (count_ == 0) return;
    const std::string_view what = kind_ == ProblemKind::kMarkedFree ? "in use, but free in the free map"
                                  : kind_ == ProblemKind::kLeaked   ? "used in the free map, but nothing refers to it"
                                                                    : "used in the free map, but never allocated";
    const std::string blocks = count_ == 1 ? fmt::format("block {} is", first_)
                                           : fmt::format("blocks {} to {} are each", first_, first_ + count_ - 1);
    state_.log.error(kind_, std::nullopt, Address{first_}, fmt::format("{} {}", blocks, what));
    count_ = 0;
  }

 private:
  CheckState& state_;
  ProblemKind kind_ = ProblemKind::kLeaked;
  std::uint64_t first_ = 0;
  std::uint64_t count_ = 0;
};

class FreeMapCheck final : private TreeVisitor {
 public:
  explicit FreeMapCheck(CheckState& state) : state_(state), runs_(state) {}
  void run();

 private:
  struct StoredPage {
    std::uint64_t index;
    BlockPointer pointer;
  };

  void on_block(std::uint64_t index, const BlockPointer& pointer) override { pages_.push_back({index, pointer}); }
  void on_lost(std::uint64_t first, std::uint64_t count) override { lost_.add(first, count); }

  void compare_page(const StoredPage& page);
  void compare_hole(std::uint64_t index);
  void compare(std::uint64_t index, const BitWords& map);

  CheckState& state_;
  RunReporter runs_;
  std::vector<StoredPage> pages_;  // ascending
  LostRanges lost_;                // pages
  std::uint64_t bits_set_ = 0;
  bool complete_ = true;
};

void FreeMapCheck::run() {
  const TreeOwner owner{TreeOwner::kFreeMap};
  state_.count(state_.walker.walk(owner, state_.root.free_map, Cp{state_.root.cp}, *this));
  complete_ = lost_.empty();
  // The free map's own blocks are in the set only now.
  const std::vector<std::uint64_t> chunks = state_.used.chunk_indexes();
  auto chunk = chunks.begin();
  for (const StoredPage& page : pages_) {
    for (; chunk != chunks.end() && *chunk < page.index; ++chunk) compare_hole(*chunk);
    if (chunk != chunks.end() && *chunk == page.index) ++chunk;
    compare_page(page);
  }
  for (; chunk != chunks.end(); ++chunk) compare_hole(*chunk);
  runs_.flush();
  if (complete_ && bits_set_ != state_.root.used_blocks) {
    state_.log.error(ProblemKind::kUsedBlocks, std::nullopt, std::nullopt,
                     fmt::format("the free map has {} blocks in use, but the root block says {}", bits_set_,
                                 state_.root.used_blocks));
  }
}

void FreeMapCheck::compare_page(const StoredPage& page) {
  const PageRef bits =
      state_.reader.read_verified(page.pointer, TreeOwner{TreeOwner::kFreeMap}, fmt::format("page {}", page.index));
  if (!bits) {
    complete_ = false;
    return;
  }
  if (page.index > (state_.size_blocks - 1) / kBitsPerFreeMapPage) {
    state_.log.error(ProblemKind::kFreeMap, std::nullopt, Address{page.pointer.address},
                     fmt::format("page {} of the free map is beyond the end of the volume", page.index));
    complete_ = false;
    return;
  }
  BitWords map;
  std::memcpy(map.data(), bits.data(), kBlockSize);
  compare(page.index, map);
}

void FreeMapCheck::compare_hole(std::uint64_t index) {
  if (!lost_.contains(index)) compare(index, BitWords{});
}

void FreeMapCheck::compare(std::uint64_t index, const BitWords& map) {
  BitWords used;
  state_.used.expand(index, std::as_writable_bytes(std::span<std::uint64_t, used.size()>(used)));
  for (std::size_t word = 0; word < map.size(); ++word) {
    bits_set_ += static_cast<std::uint64_t>(std::popcount(map[word]));
    for (std::uint64_t difference = map[word] ^ used[word]; difference != 0; difference &= difference - 1) {
      const auto bit = static_cast<unsigned>(std::countr_zero(difference));
      const std::uint64_t block = index * kBitsPerFreeMapPage + word * 64 + bit;
      if ((used[word] >> bit & 1) != 0) {
        runs_.add(ProblemKind::kMarkedFree, block);
      } else if (!is_data_address(Address{block}, state_.size_blocks)) {
        runs_.add(ProblemKind::kFreeMap, block);
      } else if (state_.trees_complete) {
        runs_.add(ProblemKind::kLeaked, block);
      }
    }
  }
}

}  // namespace

void check_free_map(CheckState& state) {
  state.phase = "free map";
  FreeMapCheck(state).run();
  state.report.counters.reachable_blocks = state.used.count();
}

}  // namespace tarnfs::check
