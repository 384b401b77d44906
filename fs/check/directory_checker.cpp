#include "fs/check/directory_checker.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tarnfs::check {

DirectoryChecker::DirectoryChecker(CheckState& state, std::uint64_t number, const InodeRecord& record)
    : state_(state), number_(number), record_(record), page_count_(record.size_bytes / kBlockSize) {}

void DirectoryChecker::run(Cp birth_max) {
  const TreeOwner owner{number_};
  const WalkedTree tree = state_.walker.walk(owner, record_, birth_max, *this);
  state_.count(tree);
  if (tree.end_index > page_count_) {
    state_.log.error(
        ProblemKind::kTreeShape, InodeNumber{number_}, std::nullopt,
        fmt::format("directory {} has page {} but a size of {} pages", number_, tree.end_index - 1, page_count_));
  }
  visited_.resize(pages_.size());
  if (!pages_.empty()) {
    walk_names();
  } else if (complete_ && page_count_ != 0) {
    damaged(0, "is missing", true);
  }
  finish();
}

void DirectoryChecker::on_block(std::uint64_t index, const BlockPointer& pointer) {
  pages_.push_back({index, pointer.address, pointer.checksum});
}

void DirectoryChecker::on_lost(std::uint64_t, std::uint64_t) {
  complete_ = false;
}

void DirectoryChecker::walk_names() {
  visit_page(0, std::nullopt, {0, kDirectoryKeyEnd});
  while (!frames_.empty()) {
    Frame& frame = frames_.back();
    const IndexView view(frame.page.bytes());
    if (frame.next == view.count()) {
      frames_.pop_back();
      continue;
    }
    const unsigned position = frame.next++;
    const KeyRange range{position == 0 ? frame.range.low : view.slot(position).key,
                         position + 1 == view.count() ? frame.range.high : view.slot(position + 1).key};
    const unsigned level = directory_header_of(frame.page.bytes()).level;
    visit_page(view.slot(position).child, level - 1U, range);
  }
}

void DirectoryChecker::visit_page(std::uint64_t index, std::optional<unsigned> level, KeyRange range) {
  PageRef page = take_page(index);
  if (!page) return;
  if (!valid_directory_page(page.bytes())) return damaged(index, "is no page of a directory", true);
  const DirectoryPageHeader header = directory_header_of(page.bytes());
  if (level ? header.level != *level : header.level + 1U > directory_height_max(page_count_)) {
    return damaged(index, fmt::format("has the level {}", header.level), true);
  }
  if (header.reserved != 0) damaged(index, "has a reserved field that is not 0", false);
  if (header.type == kDirectoryLeaf) return check_leaf(index, page, range);
  if (!index_in_order(index, page, range)) return;
  frames_.push_back({std::move(page), range, 0});
}

// The page, if it is there, whole, and was not seen before.
PageRef DirectoryChecker::take_page(std::uint64_t index) {
  const auto found = std::lower_bound(pages_.begin(), pages_.end(), index,
                                      [](const StoredPage& page, std::uint64_t wanted) { return page.index < wanted; });
  if (found == pages_.end() || found->index != index) {
    // Part of what the walk lost, which is reported already, or else a wrong index in its parent.
    if (complete_) damaged(index, "is missing", true);
    return {};
  }
  const auto position = static_cast<std::size_t>(found - pages_.begin());
  if (visited_[position]) {
    damaged(index, "stands at two places of the tree", true);
    return {};
  }
  visited_[position] = true;
  BlockPointer pointer;
  pointer.address = found->address;
  pointer.checksum = found->checksum;
  PageRef page = state_.reader.read_verified(pointer, TreeOwner{number_}, fmt::format("page {}", index));
  if (!page) complete_ = false;
  return page;
}

bool DirectoryChecker::index_in_order(std::uint64_t index, const PageRef& page, KeyRange range) {
  const DirectoryPageHeader header = directory_header_of(page.bytes());
  if (header.heap_start != 0 || header.heap_live_bytes != 0) damaged(index, "is an index page with a heap", false);
  const IndexView view(page.bytes());
  if (view.slot(0).key != 0) damaged(index, "has a key in its first slot", false);
  std::uint64_t above = range.low;
  for (unsigned i = 0; i < view.count(); ++i) {
    const IndexSlot slot = view.slot(i);
    const bool key_good = i == 0 || (slot.key > above && slot.key < range.high);
    if (!key_good || slot.child == 0 || slot.child >= page_count_) {
      damaged(index, fmt::format("has a bad slot {} (key {:#x}, child {})", i, slot.key, slot.child), true);
      return false;
    }
    if (i > 0) above = slot.key;
  }
  return true;
}

void DirectoryChecker::check_leaf(std::uint64_t index, const PageRef& page, KeyRange range) {
  const LeafView view(page.bytes());
  const std::uint64_t low = std::max(range.low, kDirectoryKeyMin);
  std::uint64_t before = 0;
  bool readable = true;
  for (unsigned i = 0; i < view.count(); ++i) {
    const std::uint64_t key = view.key(i);
    if (key < low || key >= range.high || key <= before) {
      damaged(index, fmt::format("has the key {:#x} of slot {} out of order or range", key, i), false);
    }
    before = key;
    ++entry_count_;
    LeafEntry entry;
    if (!view.entry(i, entry)) {
      damaged(index, fmt::format("has a bad entry in slot {}", i), true);
      readable = false;
      continue;
    }
    if (name_hash_of(entry.name, state_.report.superblock.name_hash_seed) != entry.key >> kSequenceBits) {
      damaged(index, fmt::format("has a wrong hash in slot {}", i), false);
    }
    check_name(entry);
    check_target(entry);
  }
  if (readable) check_heap(index, page);
}

// Records must not overlap, and the header says how many bytes they take.
void DirectoryChecker::check_heap(std::uint64_t index, const PageRef& page) {
  const LeafView view(page.bytes());
  std::vector<std::pair<std::size_t, std::size_t>> records;  // where each starts and ends
  std::size_t live_bytes = 0;
  for (unsigned i = 0; i < view.count(); ++i) {
    LeafEntry entry;
    if (!view.entry(i, entry)) return;
    const auto* const name = reinterpret_cast<const std::byte*>(entry.name.data());
    const auto start = static_cast<std::size_t>(name - page.data()) - sizeof(LeafRecord);
    records.emplace_back(start, start + sizeof(LeafRecord) + entry.name.size());
    live_bytes += sizeof(LeafRecord) + entry.name.size();
  }
  std::sort(records.begin(), records.end());
  for (std::size_t i = 1; i < records.size(); ++i) {
    if (records[i].first < records[i - 1].second) return damaged(index, "has records that overlap", false);
  }
  const std::size_t said = directory_header_of(page.bytes()).heap_live_bytes;
  if (said != live_bytes) {
    damaged(index, fmt::format("has {} bytes of records, but says {}", live_bytes, said), false);
  }
}

// Every page that is stored must be part of the tree, and the number of entries the inode's.
void DirectoryChecker::finish() {
  for (std::size_t i = 0; i < pages_.size(); ++i) {
    if (visited_[i]) continue;
    BlockPointer pointer;
    pointer.address = pages_[i].address;
    pointer.checksum = pages_[i].checksum;
    state_.reader.verify_later(pointer, TreeOwner{number_}, pages_[i].index);
    if (complete_) damaged(pages_[i].index, "is no part of the tree", false);
  }
  if (complete_ && entry_count_ != record_.entry_count) {
    state_.log.error(ProblemKind::kEntryCount, InodeNumber{number_}, std::nullopt,
                     fmt::format("directory {} says that it has {} entries, but it has {}", number_,
                                 record_.entry_count, entry_count_));
  }
  if (complete_) return;
  state_.names_complete = false;
  if (const InodeSlot slot = state_.inodes.find(number_); slot) slot.state() |= kIsUnreadable;
}

void DirectoryChecker::damaged(std::uint64_t page, std::string_view what, bool loses_names) {
  state_.log.error(ProblemKind::kDirectory, InodeNumber{number_}, std::nullopt,
                   fmt::format("page {} of directory {} {}", page, number_, what));
  if (loses_names) complete_ = false;
}

}  // namespace tarnfs::check
