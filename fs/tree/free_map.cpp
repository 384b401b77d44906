#include "fs/tree/free_map.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>
#include <utility>

namespace tarnfs {
namespace {

bool bit_in(const PageRef& page, std::uint64_t bit) {
  return (std::to_integer<unsigned>(page.data()[bit / 8]) >> (bit % 8) & 1U) != 0;
}

void write_bit(PageRef& page, std::uint64_t bit, bool value) {
  page.make_unique();
  std::byte& byte = page.mutable_bytes()[bit / 8];
  const auto mask = static_cast<std::byte>(1U << (bit % 8));
  byte = value ? byte | mask : byte & ~mask;
}

std::uint64_t word_in(const PageRef& page, std::uint64_t index) {
  std::uint64_t word = 0;
  std::memcpy(&word, page.data() + index * sizeof word, sizeof word);
  return word;
}

// Gives out addresses that were chosen before.
class PlannedAllocator final : public BlockAllocator {
 public:
  explicit PlannedAllocator(std::vector<Address> addresses) : addresses_(std::move(addresses)) {}
  Result<Address> allocate() override {
    TARNFS_ASSERT(next_ < addresses_.size());
    return addresses_[next_++];
  }
  Status adopt(Address /*address*/) override { return Error(ErrorCode::kUnsupported); }
  Status release(const BlockPointer& /*pointer*/) override { return {}; }
  bool all_given_out() const { return next_ == addresses_.size(); }

 private:
  std::vector<Address> addresses_;
  std::size_t next_ = 0;
};

}  // namespace

Result<bool> is_block_used(const TreeRoot& tree, Address address, BlockSource& source) {
  TARNFS_ASSIGN(const BlockPointer pointer, find_pointer(tree, address.value / kBitsPerMapPage, source));
  if (pointer.is_hole()) return false;
  TARNFS_ASSIGN(const PageRef page, source.get(pointer));
  return bit_in(page, address.value % kBitsPerMapPage);
}

FreeMap::FreeMap(const RootBlock& root, BlockSource& source)
    : source_(source),
      size_blocks_(root.size_blocks),
      data_blocks_(end_of_data_blocks(root.size_blocks) - kFirstDataBlock),
      height_(height_for(map_pages_of(root.size_blocks))),
      tree_(tree_of(root.free_map)),
      used_blocks_(root.used_blocks),
      cursor_(is_data_address(Address{root.allocation_cursor}, root.size_blocks) ? root.allocation_cursor
                                                                                 : kFirstDataBlock) {}

Result<PageRef> FreeMap::page_at(std::uint64_t index) const {
  if (const auto found = dirty_.find(index); found != dirty_.end()) return found->second;
  TARNFS_ASSIGN(const BlockPointer pointer, find_pointer(tree_, index, source_));
  if (pointer.is_hole()) return PageRef::zeroed();
  return source_.get(pointer);
}

Result<PageRef*> FreeMap::dirty_page_at(std::uint64_t index) {
  const auto found = dirty_.find(index);
  if (found != dirty_.end()) return &found->second;
  TARNFS_ASSIGN(PageRef page, page_at(index));
  return &dirty_.emplace(index, std::move(page)).first->second;
}

Status FreeMap::set_bit(std::uint64_t block, bool used) {
  TARNFS_ASSIGN(PageRef* const page, dirty_page_at(block / kBitsPerMapPage));
  const std::uint64_t bit = block % kBitsPerMapPage;
  if (bit_in(*page, bit) == used) {
    return Error(ErrorCode::kCorrupt, "the free map is wrong about block " + std::to_string(block) +
                                          ", which should be " + (used ? "free" : "in use") + "; run fsck.tarnfs");
  }
  write_bit(*page, bit, used);
  used_blocks_ += used ? 1 : -std::uint64_t{1};
  return {};
}

// The first bit in [from_bit, end_bit) of the page that is neither used nor held, or end_bit.
Result<std::uint64_t> FreeMap::find_free_in_page(std::uint64_t index, std::uint64_t from_bit,
                                                 std::uint64_t end_bit) const {
  TARNFS_ASSIGN(const PageRef used, page_at(index));
  const auto held = held_pages_.find(index);
  for (std::uint64_t word = from_bit / 64; word * 64 < end_bit; ++word) {
    std::uint64_t taken = word_in(used, word);
    if (held != held_pages_.end()) taken |= word_in(held->second, word);
    if (word == from_bit / 64) taken |= (std::uint64_t{1} << (from_bit % 64)) - 1;
    if (taken == ~std::uint64_t{0}) continue;
    return std::min<std::uint64_t>(end_bit, word * 64 + static_cast<unsigned>(std::countr_one(taken)));
  }
  return end_bit;
}

void FreeMap::set_held(std::uint64_t block, bool held) {
  const auto page = held_pages_.try_emplace(block / kBitsPerMapPage, PageRef::zeroed()).first;
  write_bit(page->second, block % kBitsPerMapPage, held);
}

bool FreeMap::is_held(std::uint64_t block) const {
  const auto page = held_pages_.find(block / kBitsPerMapPage);
  return page != held_pages_.end() && bit_in(page->second, block % kBitsPerMapPage);
}

// The next free block from the cursor on, which moves behind it.
Result<std::uint64_t> FreeMap::find_free() {
  if (used_blocks_ + held_blocks_ + reserved_blocks_ >= data_blocks_) {
    return Error(ErrorCode::kNoSpace, "no free block is left");
  }
  const std::uint64_t end = end_of_data_blocks(size_blocks_);
  const std::uint64_t pages = map_pages_of(size_blocks_);
  for (std::uint64_t visited = 0; visited <= pages; ++visited) {
    const std::uint64_t index = cursor_ / kBitsPerMapPage;
    const std::uint64_t base = index * kBitsPerMapPage;
    const std::uint64_t end_bit = std::min(kBitsPerMapPage, end - base);
    TARNFS_ASSIGN(const std::uint64_t bit, find_free_in_page(index, cursor_ - base, end_bit));
    if (bit < end_bit) {
      cursor_ = base + bit + 1 < end ? base + bit + 1 : kFirstDataBlock;
      return base + bit;
    }
    cursor_ = base + end_bit < end ? base + end_bit : kFirstDataBlock;
  }
  return Error(ErrorCode::kCorrupt, "the free map has no free block although its count says so; run fsck.tarnfs");
}

Result<Address> FreeMap::allocate_locked() {
  TARNFS_ASSIGN(const std::uint64_t block, find_free());
  TARNFS_TRY(set_bit(block, true));
  return Address{block};
}

Result<Address> FreeMap::allocate() {
  MutexLock lock(mutex_);
  return allocate_locked();
}

Status FreeMap::adopt(Address address) {
  MutexLock lock(mutex_);
  TARNFS_ASSERT(reserved_blocks_ > 0 && is_held(address.value));
  TARNFS_TRY(set_bit(address.value, true));
  set_held(address.value, false);
  --reserved_blocks_;
  return {};
}

Result<std::vector<Address>> FreeMap::reserve(std::uint64_t count) {
  MutexLock lock(mutex_);
  std::vector<Address> addresses;
  addresses.reserve(count);
  while (addresses.size() < count) {
    const auto block = find_free();
    if (!block.ok()) {
      for (const Address address : addresses) set_held(address.value, false);
      reserved_blocks_ -= addresses.size();
      return block.error();
    }
    set_held(*block, true);
    ++reserved_blocks_;
    addresses.push_back(Address{*block});
  }
  return addresses;
}

Result<bool> FreeMap::reserve_at(Address address) {
  MutexLock lock(mutex_);
  if (!is_data_address(address, size_blocks_) || is_held(address.value)) {
    return Error(ErrorCode::kCorrupt, "block " + std::to_string(address.value) + " cannot be set aside");
  }
  TARNFS_ASSIGN(const PageRef page, page_at(address.value / kBitsPerMapPage));
  if (bit_in(page, address.value % kBitsPerMapPage)) return false;
  set_held(address.value, true);
  ++reserved_blocks_;
  return true;
}

void FreeMap::unreserve(std::span<const Address> addresses) {
  MutexLock lock(mutex_);
  for (const Address address : addresses) {
    TARNFS_ASSERT(is_held(address.value));
    set_held(address.value, false);
  }
  reserved_blocks_ -= addresses.size();
}

Status FreeMap::release(const BlockPointer& pointer) {
  MutexLock lock(mutex_);
  return release_locked(pointer);
}

Status FreeMap::release_locked(const BlockPointer& pointer) {
  if (!is_data_address(Address{pointer.address}, size_blocks_)) {
    return Error(ErrorCode::kCorrupt, "block " + std::to_string(pointer.address) + " is outside the data area");
  }
  TARNFS_TRY(set_bit(pointer.address, false));
  set_held(pointer.address, true);
  std::vector<Run>& runs = held_by_cp_[cp_.value];
  if (!runs.empty() && runs.back().first + runs.back().count == pointer.address) {
    ++runs.back().count;
  } else {
    runs.push_back({pointer.address, 1});
  }
  ++held_blocks_;
  return {};
}

std::vector<FreeMap::Run> FreeMap::released_by(Cp cp) {
  MutexLock lock(mutex_);
  const auto found = held_by_cp_.find(cp.value);
  return found == held_by_cp_.end() ? std::vector<Run>() : found->second;
}

void FreeMap::release_held(Cp oldest_kept) {
  MutexLock lock(mutex_);
  while (!held_by_cp_.empty() && held_by_cp_.begin()->first <= oldest_kept.value) {
    const auto runs = std::move(held_by_cp_.begin()->second);
    held_by_cp_.erase(held_by_cp_.begin());
    for (const Run& run : runs) {
      for (std::uint64_t block = run.first; block < run.first + run.count; ++block) set_held(block, false);
      held_blocks_ -= run.count;
    }
  }
  // What stays may stay for days.
  if (!held_by_cp_.empty()) held_by_cp_.rbegin()->second.shrink_to_fit();
  if (held_blocks_ + reserved_blocks_ == 0) held_pages_.clear();
}

std::uint64_t FreeMap::used_blocks() {
  MutexLock lock(mutex_);
  return used_blocks_;
}

std::uint64_t FreeMap::unused_blocks() {
  MutexLock lock(mutex_);
  return data_blocks_ - used_blocks_ - held_blocks_;
}

std::uint64_t FreeMap::held_blocks() {
  MutexLock lock(mutex_);
  return held_blocks_;
}

std::uint64_t FreeMap::cursor() {
  MutexLock lock(mutex_);
  return cursor_;
}

// Allocating a block for a page of the map changes a page of the map: goes on until every changed page and every node
// above one has its new address and has given up its old one.
Status FreeMap::plan_tree(std::vector<Address>& addresses) {
  std::set<std::pair<unsigned, std::uint64_t>> planned;  // level, index >> (7 * level)
  for (bool again = true; again;) {
    again = false;
    std::vector<std::uint64_t> changed;
    for (const auto& [index, page] : dirty_) changed.push_back(index);
    for (const std::uint64_t index : changed) {
      for (unsigned level = 0; level <= height_; ++level) {
        if (!planned.emplace(level, index >> (kNodeShift * level)).second) continue;
        again = true;
        TARNFS_ASSIGN(const BlockPointer old, find_node(tree_, index, level, source_));
        if (!old.is_hole()) TARNFS_TRY(release_locked(old));
        TARNFS_ASSIGN(const Address address, allocate_locked());
        addresses.push_back(address);
      }
    }
  }
  return {};
}

// The lock is not held while blocks are written: nobody else changes bits.
Result<TreeRoot> FreeMap::write_tree(BlockSink& sink, Cp cp) {
  std::vector<Address> addresses;
  PageMap pages;
  TreeRoot tree;
  std::uint8_t height = 0;
  {
    MutexLock lock(mutex_);
    TARNFS_TRY(plan_tree(addresses));
    for (const auto& [index, page] : dirty_) pages.put(index, page);
    tree = tree_;
    height = height_;
  }
  PlannedAllocator allocator(std::move(addresses));
  TARNFS_ASSIGN(tree,
                rewrite_tree(tree, RangeSet(), pages, {}, {}, TreeEnvironment{source_, allocator, sink, cp}, height));
  TARNFS_ASSERT(allocator.all_given_out());
  MutexLock lock(mutex_);
  tree_ = tree;
  dirty_.clear();
  return tree;
}

}  // namespace tarnfs
