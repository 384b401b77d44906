// A directory inode's pages for the directory tree, with all changes held back until commit().
//
// Purpose: an operation that changes two directories, or one twice, needs all its blocks before it changes anything:
// its changes gather here and are put into the inodes together. The change of one entry is not made before that, so
// that it can be made in the page itself when nobody else has it.
//
// Thread safety: used under the inode's lock: exclusive for changes.
#pragma once

#include <map>
#include <optional>
#include <utility>

#include "fs/engine/engine.h"
#include "fs/tree/directory.h"
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
    if (const auto found = changes_.find(index); found != changes_.end()) {
      Change& change = found->second;
      if (!change.page) return Error(ErrorCode::kCorrupt, "a directory refers to a page that it gave up");
      change.make_edit();
      return change.page;
    }
    TARNFS_ASSIGN(Engine::PagePlace place, engine_.find_page(op_, inode_, index));
    if (place.page) return std::move(place.page);
    if (place.pointer.is_hole()) {
      return Error(ErrorCode::kCorrupt, "directory " + std::to_string(inode_.number.value) + " refers to page " +
                                            std::to_string(index) + ", which is a hole; run fsck.tarnfs");
    }
    block_read_ = {index, place.pointer};
    return op_.get(place.pointer);
  }
  void write(std::uint64_t index, PageRef page) override { changes_[index] = Change{std::move(page), {}, {}}; }
  void edit(std::uint64_t index, PageRef page, const LeafEdit& edit) override {
    const auto [found, is_first] = changes_.try_emplace(index);
    Change& change = found->second;
    if (is_first) {
      const BlockPointer block = block_read_.first == index ? block_read_.second : BlockPointer();
      change = Change{std::move(page), edit, block};
      return;
    }
    page = PageRef();
    change.make_edit();
    change.page.make_unique();
    apply_edit(change.page.mutable_bytes(), edit);
  }
  void remove(std::uint64_t index) override { changes_[index] = Change(); }
  std::uint64_t page_count() const override { return page_count_; }
  void set_page_count(std::uint64_t count) override { page_count_ = count; }

  // Puts the changes into the inode, which must be the one that this was made for, after begin_change().
  void commit(Inode& inode) TARNFS_REQUIRES(inode.mutex) TARNFS_NO_THREAD_SAFETY_ANALYSIS {
    TARNFS_ASSERT(&inode == &inode_);
    for (auto& [index, change] : changes_) {
      if (change.edit) {
        engine_.edit_page(op_, inode, index, std::move(change.page), change.block, *change.edit);
      } else if (change.page) {
        engine_.put_page(op_, inode, index, std::move(change.page));
      } else {
        engine_.cut_pages(op_, inode, index, index + 1);
      }
    }
    inode.record.size_bytes = page_count_ * kBlockSize;
  }

 private:
  struct Change {
    PageRef page;                  // null: removed
    std::optional<LeafEdit> edit;  // to be made in `page` yet
    BlockPointer block;            // with an edit: the clean block that `page` is, or a hole

    void make_edit() {
      if (!edit) return;
      page.make_unique();
      apply_edit(page.mutable_bytes(), *edit);
      edit.reset();
    }
  };

  Engine& engine_;
  Operation& op_;
  const Inode& inode_;
  std::uint64_t page_count_;
  std::map<std::uint64_t, Change> changes_;
  std::pair<std::uint64_t, BlockPointer> block_read_;  // the page that was read last of those that are clean
};

// `changed` is what a name was when it was changed under the locks; kNotFound when that was not `inode`.
inline Status named_as_found(const Result<DirectoryRecord>& changed, const Inode& inode) {
  if (!changed.ok()) return changed.error();
  return changed->inode == inode.number ? Status() : Error(ErrorCode::kNotFound);
}

}  // namespace tarnfs
