// Checks the tree of one directory and what stands in it.
//
// Purpose: the rules of fs/tree/directory_format.h, every page once, with links and parents counted in the inode table.
//
// Invariants:
//   1. A page of the tree is read once; memory is 24 bytes a page and one page for each level.
//   2. When not all entries can be known, CheckState::names_complete becomes false.
//
// Thread safety: none.
// Ownership: refers to the state; one object checks one directory.
// Errors: problems in the log.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/check/check_state.h"
#include "fs/tree/directory_node.h"

namespace tarnfs::check {

class DirectoryChecker final : private TreeVisitor {
 public:
  DirectoryChecker(CheckState& state, std::uint64_t number, const InodeRecord& record);
  // `birth_max` is the birth of the block that the inode stands in.
  void run(Cp birth_max);

 private:
  struct StoredPage {
    std::uint64_t index;
    std::uint64_t address;
    std::uint64_t checksum;
  };
  struct KeyRange {
    std::uint64_t low;
    std::uint64_t high;
  };
  struct Frame {
    PageRef page;
    KeyRange range;
    unsigned next;  // slot to look at
  };

  void on_block(std::uint64_t index, const BlockPointer& pointer) override;
  void on_lost(std::uint64_t first, std::uint64_t count) override;

  void walk_names();
  void visit_page(std::uint64_t index, std::optional<unsigned> level, KeyRange range);
  PageRef take_page(std::uint64_t index);
  bool index_in_order(std::uint64_t index, const PageRef& page, KeyRange range);
  void check_leaf(std::uint64_t index, const PageRef& page, KeyRange range);
  void check_heap(std::uint64_t index, const PageRef& page);
  void check_name(const LeafEntry& entry);
  void check_target(const LeafEntry& entry);
  void count_subdirectory(const LeafEntry& entry, const InodeSlot& target);
  void finish();

  // A problem of the tree; `loses_names` when entries may be missing because of it.
  void damaged(std::uint64_t page, std::string_view what, bool loses_names);
  void entry_error(ProblemKind kind, const LeafEntry& entry, std::string_view what);

  CheckState& state_;
  const std::uint64_t number_;
  const InodeRecord& record_;
  const std::uint64_t page_count_;
  std::vector<StoredPage> pages_;  // ascending by index
  std::vector<bool> visited_;      // for each of pages_
  std::vector<Frame> frames_;
  std::uint64_t entry_count_ = 0;
  bool complete_ = true;
  std::uint64_t last_hash_ = 0;               // of the names in same_hash_
  std::vector<std::string> same_hash_names_;  // at most kSequencesPerHash
};

}  // namespace tarnfs::check
