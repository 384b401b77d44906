// The B+tree of a directory, on names whose hash is known.
//
// Purpose: what directory.h promises, one step below the hash function: two names may be given the same hash on
// purpose. Use directory.h outside of tests.
//
// Invariants:
//   1. An operation collects its changes in PageEdits and applies them when nothing can fail any more.
//   2. Every page is checked (valid_directory_page, its level, its index) when it is read; levels fall by one from page
//      to page, so no damage leads into a circle.
//
// Thread safety, ownership, errors: as directory.h. Holds a reference to the pages, no state of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

#include "common/result.h"
#include "fs/tree/directory.h"
#include "fs/tree/directory_node.h"
#include "fs/tree/directory_pages.h"

namespace tarnfs {

struct DirectoryPath;
class PageEdits;

class DirectoryTree {
 public:
  explicit DirectoryTree(DirectoryPages& pages) : pages_(pages) {}

  // `name_hash` is 1 to 2^56 - 1 and always the same for a name; names have 1 to 255 bytes.
  Result<std::optional<DirectoryRecord>> find(std::uint64_t name_hash, std::string_view name);
  Result<DirectoryRecord> insert(std::uint64_t name_hash, std::string_view name, InodeNumber inode, std::uint32_t type);
  Result<DirectoryRecord> remove(std::uint64_t name_hash, std::string_view name);
  Result<DirectoryRecord> replace(std::uint64_t name_hash, std::string_view name, InodeNumber inode,
                                  std::uint32_t type);
  Status list(std::uint64_t after_cookie,
              const std::function<bool(std::string_view name, const DirectoryRecord& record)>& visit);

 private:
  // Where a name is, or the smallest sequence that is free for it.
  struct Location {
    std::optional<DirectoryRecord> record;
    std::uint64_t free_sequence = 0;  // kSequencesPerHash: none
  };

  Status descend(std::uint64_t key, DirectoryPath& path);
  Result<Location> locate(std::uint64_t name_hash, std::string_view name, DirectoryPath& path);
  Result<unsigned> check_new_slot(const DirectoryPath& path, std::uint64_t key) const;
  Status split(const DirectoryPath& path, unsigned slot, const LeafEntry& added, PageEdits& edits);
  Status grow_root(PageRef left, PageRef right, std::uint64_t separator, std::uint8_t level, PageEdits& edits);
  static bool keeps_its_place(const DirectoryPath& path, const PageRef& leaf, std::size_t name_bytes);
  Status rebalance(const DirectoryPath& path, PageRef leaf, PageEdits& edits);
  Result<std::optional<unsigned>> merge_with_neighbour(const DirectoryPath& path, unsigned depth, const PageRef& page,
                                                       PageEdits& edits);
  Status finish_root(PageRef root, PageEdits& edits);

  DirectoryPages& pages_;
};

}  // namespace tarnfs
