#include "fs/tree/share_map.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/log.h"

namespace tarnfs {
namespace {

std::uint16_t count_in(const PageRef& page, std::uint64_t slot) {
  std::uint16_t count = 0;
  if (page) std::memcpy(&count, page.data() + slot * sizeof count, sizeof count);
  return count;
}

void write_count(PageRef& page, std::uint64_t slot, std::uint16_t count) {
  page.make_unique();
  std::memcpy(page.mutable_bytes().data() + slot * sizeof count, &count, sizeof count);
}

}  // namespace

std::uint64_t share_map_reserve_blocks(std::uint64_t size_blocks) {
  // With the block of the inode file that its inode stands in, and the nodes above that.
  return 2 * (dense_tree_blocks(share_pages_of(size_blocks)) + 1 + kTreeHeightMax);
}

void ShareMap::open(const TreeRoot& tree) {
  tree_ = tree;
  install();
}

Result<PageRef> ShareMap::page_at(std::uint64_t index) {
  if (const auto found = dirty_.find(index); found != dirty_.end()) return found->second;
  if (clean_page_ && clean_index_ == index) return clean_page_;
  TARNFS_ASSIGN(const BlockPointer pointer, find_pointer(tree_, index, source_));
  PageRef page;
  if (pointer.is_hole()) {
    page = PageRef::zeroed();
  } else {
    TARNFS_ASSIGN(page, source_.get(pointer));
  }
  clean_index_ = index;
  clean_page_ = page;
  return page;
}

Result<PageRef*> ShareMap::dirty_page_at(std::uint64_t index) {
  const auto found = dirty_.find(index);
  if (found != dirty_.end()) return &found->second;
  TARNFS_ASSIGN(PageRef page, page_at(index));
  clean_page_ = PageRef();
  return &dirty_.emplace(index, std::move(page)).first->second;
}

Status ShareMap::add(const BlockPointer& pointer) {
  TARNFS_ASSIGN(PageRef* const page, dirty_page_at(pointer.address / kSharesPerPage));
  const std::uint64_t slot = pointer.address % kSharesPerPage;
  const std::uint16_t count = count_in(*page, slot);
  if (count == kSharesMax) {
    return Error(ErrorCode::kCorrupt, "the share map is wrong about block " + std::to_string(pointer.address) +
                                          ", which cannot have so many references; run fsck.tarnfs");
  }
  write_count(*page, slot, static_cast<std::uint16_t>(count + 1));
  return {};
}

Result<bool> ShareMap::drop(const BlockPointer& pointer) {
  const std::uint64_t slot = pointer.address % kSharesPerPage;
  const auto page = page_at(pointer.address / kSharesPerPage);
  if (!page.ok()) {
    if (page.error().code() != ErrorCode::kCorrupt && page.error().code() != ErrorCode::kIo) return page.error();
    log_warning(page.error().describe() + "; block " + std::to_string(pointer.address) + " stays allocated");
    return true;
  }
  const std::uint16_t count = count_in(*page, slot);
  if (count == 0) return false;
  TARNFS_ASSIGN(PageRef* const dirty, dirty_page_at(pointer.address / kSharesPerPage));
  write_count(*dirty, slot, static_cast<std::uint16_t>(count - 1));
  return true;
}

Result<TreeRoot> ShareMap::write_tree(const TreeEnvironment& environment) {
  RangeSet removed;
  PageMap pages;
  for (const auto& [index, page] : dirty_) {
    if (is_all_zero(page.bytes())) {
      removed.add(index, index + 1);
    } else {
      pages.put(index, page);
    }
  }
  TARNFS_ASSIGN(tree_, rewrite_tree(tree_, removed, pages, {}, {}, environment));
  dirty_.clear();
  clean_page_ = PageRef();
  return tree_;
}

void ShareMap::install() {
  MutexLock lock(mutex_);
  durable_tree_ = tree_;
}

TreeRoot ShareMap::durable_tree() {
  MutexLock lock(mutex_);
  return durable_tree_;
}

std::vector<std::size_t> ShareMap::claim(std::uint64_t generation, std::span<const BlockPointer> pointers,
                                         const SharePages& durable) {
  std::vector<std::size_t> left_out;
  std::uint64_t page_index = ~std::uint64_t{0};
  Counts* claimed = nullptr;       // of this generation
  const Counts* before = nullptr;  // of the one before it
  const PageRef* durable_page = nullptr;
  MutexLock lock(mutex_);
  for (std::size_t i = 0; i < pointers.size(); ++i) {
    if (pointers[i].is_hole()) continue;
    if (pointers[i].address / kSharesPerPage != page_index) {
      page_index = pointers[i].address / kSharesPerPage;
      auto& slot = claims_[generation & 1][page_index];
      if (slot == nullptr) slot = std::make_unique<Counts>();
      claimed = slot.get();
      const auto earlier = claims_[(generation + 1) & 1].find(page_index);
      before = earlier == claims_[(generation + 1) & 1].end() ? nullptr : earlier->second.get();
      const auto found = durable.find(page_index);
      durable_page = found == durable.end() ? nullptr : &found->second;
    }
    const std::uint64_t slot = pointers[i].address % kSharesPerPage;
    const std::uint32_t sum = (durable_page != nullptr ? count_in(*durable_page, slot) : 0U) +
                              (before != nullptr ? (*before)[slot] : 0U) + (*claimed)[slot];
    if (sum >= kSharesMax) {
      left_out.push_back(i);
    } else {
      ++(*claimed)[slot];
    }
  }
  return left_out;
}

void ShareMap::give_back(std::uint64_t generation, std::span<const BlockPointer> pointers) {
  MutexLock lock(mutex_);
  for (const BlockPointer& pointer : pointers) {
    if (pointer.is_hole()) continue;
    Counts& counts = *claims_[generation & 1].at(pointer.address / kSharesPerPage);
    TARNFS_ASSERT(counts[pointer.address % kSharesPerPage] > 0);
    --counts[pointer.address % kSharesPerPage];
  }
}

ShareMap::Claims ShareMap::take_claims_before(std::uint64_t generation) {
  MutexLock lock(mutex_);
  return std::exchange(claims_[generation & 1], Claims());
}

}  // namespace tarnfs
