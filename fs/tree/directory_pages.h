// What the directory tree asks of the file that it lives in.
//
// Thread safety: used under the directory inode's lock; implementations need none of their own.
#pragma once

#include <cstdint>
#include <utility>

#include "common/page.h"
#include "common/result.h"
#include "fs/tree/directory_node.h"

namespace tarnfs {

class DirectoryPages {
 public:
  virtual ~DirectoryPages() = default;
  // The page `index` of the directory file, which must exist. May fail with kNeedsBlock (the caller gives up with that
  // error and the whole operation is run again later), so every operation reads all the pages it needs before it
  // changes the first one.
  virtual Result<PageRef> read(std::uint64_t index) = 0;
  // Replaces the page. Cannot fail: space was promised before.
  virtual void write(std::uint64_t index, PageRef page) = 0;
  // Makes `edit`, for which outcome_of() said kDone, in the page `index`; `page` is what read() gave. Cannot fail. The
  // name in `edit` must stay valid as long as this object may still hold the change back.
  virtual void edit(std::uint64_t index, PageRef page, const LeafEdit& edit) {
    page.make_unique();
    apply_edit(page.mutable_bytes(), edit);
    write(index, std::move(page));
  }
  // Makes the page a hole.
  virtual void remove(std::uint64_t index) = 0;
  // The size of the directory file in pages: the smallest index never used since it was last empty. 0: empty directory.
  virtual std::uint64_t page_count() const = 0;
  virtual void set_page_count(std::uint64_t count) = 0;
};

}  // namespace tarnfs
