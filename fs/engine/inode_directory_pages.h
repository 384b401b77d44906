// A directory inode's pages for the directory tree, with all changes held back until commit().
//
// Purpose: an operation that changes two directories, or one twice, needs all its blocks before it changes anything:
// its changes gather here and are put into the inodes together.
//
// Thread safety: used under the inode's lock: exclusive for changes.
#pragma once

#include <map>
#include <optional>

#include "fs/engine/engine.h"
#include "fs/tree/directory_pages.h"

namespace tarnfs {

class InodeDirectoryPages final : public DirectoryPages {
 public:
  InodeDirectoryPages(Engine& engine, Operation& op, const Inode& inode) TARNFS_NO_THREAD_SAFETY_ANALYSIS
      : engine_(engine),
        op_(op),
        inode_(inode),
        page_count_(inode.record.size_bytes / kBlockSize) {}

  Result<PageRef> read(std::uint64_t index) override TARNFS_NO_THREAD_SAFETY_ANALYSIS {
    if (const auto changed = changed_.find(index); changed != changed_.end()) {
      if (!changed->second) return Error(ErrorCode::kCorrupt, "a directory refers to a page that it gave up");
      return *changed->second;
    }
    TARNFS_ASSIGN(Engine::PagePlace place, engine_.find_page(op_, inode_, index));
    if (place.page) return std::move(place.page);
    if (place.pointer.is_hole()) {
      return Error(ErrorCode::kCorrupt, "directory " + std::to_string(inode_.number.value) + " refers to page " +
                                            std::to_string(index) + ", which is a hole; run fsck.tarnfs");
    }
    return op_.get(place.pointer);
  }
  void write(std::uint64_t index, PageRef page) override { changed_[index] = std::move(page); }
  void remove(std::uint64_t index) override { changed_[index] = std::nullopt; }
  std::uint64_t page_count() const override { return page_count_; }
  void set_page_count(std::uint64_t count) override { page_count_ = count; }

  // Puts the changes into the inode, which must be the one that this was made for, after begin_change().
  void commit(Inode& inode) TARNFS_REQUIRES(inode.mutex) TARNFS_NO_THREAD_SAFETY_ANALYSIS {
    TARNFS_ASSERT(&inode == &inode_);
    for (auto& [index, page] : changed_) {
      if (page) {
        engine_.put_page(op_, inode, index, std::move(*page));
      } else {
        engine_.cut_pages(op_, inode, index, index + 1);
      }
    }
    inode.record.size_bytes = page_count_ * kBlockSize;
  }

 private:
  Engine& engine_;
  Operation& op_;
  const Inode& inode_;
  std::uint64_t page_count_;
  std::map<std::uint64_t, std::optional<PageRef>> changed_;  // nothing: removed
};

}  // namespace tarnfs
