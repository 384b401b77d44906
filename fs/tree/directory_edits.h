// The changes of one directory operation, before they are made.
//
// Purpose: the operation reads its own changes back while it goes on reading pages, which may fail; nothing is written
// before apply().
//
// Thread safety: none; lives on the stack of one operation.
// Ownership: holds references to the new pages. Never allocates.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "common/page.h"
#include "common/result.h"
#include "fs/tree/directory_format.h"
#include "fs/tree/directory_pages.h"

namespace tarnfs {

class PageEdits {
 public:
  explicit PageEdits(DirectoryPages& pages) : pages_(pages), page_count_(pages.page_count()) {}

  // The page as it will be when it was put here; else null.
  PageRef changed(std::uint64_t index) const {
    for (unsigned i = 0; i < count_; ++i) {
      if (edits_[i].index == index) return edits_[i].page;
    }
    return {};
  }
  void put(std::uint64_t index, PageRef page) { edit_of(index).page = std::move(page); }
  void drop(std::uint64_t index) { edit_of(index).page = PageRef(); }
  // Puts a page at the next index never used, which it returns.
  std::uint64_t add(PageRef page) {
    put(page_count_, std::move(page));
    return page_count_++;
  }
  std::uint64_t page_count() const { return page_count_; }
  // The directory has become empty.
  void forget_all_indexes() { page_count_ = 0; }

  void apply() {
    if (page_count_ > pages_.page_count()) pages_.set_page_count(page_count_);
    for (unsigned i = 0; i < count_; ++i) {
      if (edits_[i].page) {
        pages_.write(edits_[i].index, std::move(edits_[i].page));
      } else {
        pages_.remove(edits_[i].index);
      }
    }
    if (page_count_ < pages_.page_count()) pages_.set_page_count(page_count_);
  }

 private:
  struct Edit {
    std::uint64_t index = 0;
    PageRef page;  // null: a hole
  };

  Edit& edit_of(std::uint64_t index) {
    for (unsigned i = 0; i < count_; ++i) {
      if (edits_[i].index == index) return edits_[i];
    }
    TARNFS_ASSERT(count_ < edits_.size());
    edits_[count_].index = index;
    return edits_[count_++];
  }

  DirectoryPages& pages_;
  std::uint64_t page_count_;
  // An insert changes two pages on each level and adds a root; a remove changes at most two on each level, and one more
  // on each level when the root takes over its only child.
  std::array<Edit, 3 * kDirectoryHeightMax + 2> edits_;
  unsigned count_ = 0;
};

}  // namespace tarnfs
