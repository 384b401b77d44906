// Directories: names to inodes, in the pages of the directory's own file.
//
// Purpose: find, insert, remove, replace and list entries at a cost that grows with the logarithm of their number; the
// bytes are in directory_format.h. Names are bytes; "." and ".." are not stored and never asked for.
//
// Invariants:
//   1. An entry keeps its cookie as long as its name exists, so that a listing goes on at any cookie while entries come
//      and go: what is there all the time is listed exactly once.
//   2. An operation that returns an error has written nothing. All reads come before the first write.
//   3. One operation writes at most directory_pages_written_max() pages.
//
// Thread safety: as DirectoryPages: the caller holds the directory's lock, exclusively for changes.
// Errors: those of DirectoryPages::read unchanged (kNeedsBlock: wait and run the operation again); kCorrupt when a page
// is not what it must be; kInvalid and kNameTooLong for a name of no or over 255 bytes; and what each function says.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

#include "common/result.h"
#include "common/types.h"
#include "fs/tree/directory_format.h"
#include "fs/tree/directory_pages.h"

namespace tarnfs {

struct DirectoryRecord {
  InodeNumber inode;
  std::uint32_t type = 0;    // S_IFMT bits
  std::uint64_t cookie = 0;  // 128 to 2^63 - 1
};

// How many pages one insert, remove or replace may write, for the promise of space before it.
constexpr unsigned directory_pages_written_max(std::uint64_t page_count) {
  return 2 * directory_height_max(page_count) + 1;
}

// `seed` is the volume's Superblock::name_hash_seed.
Result<std::optional<DirectoryRecord>> find_entry(DirectoryPages& pages, std::uint64_t seed, std::string_view name);

// Adds a name; `type` are the S_IFMT bits of the inode's mode. Returns the new record. kExists when the name is there;
// kNoSpace when no key or page index is left.
Result<DirectoryRecord> insert_entry(DirectoryPages& pages, std::uint64_t seed, std::string_view name,
                                     InodeNumber inode, std::uint32_t type);

// Removes a name and returns what it was. kNotFound.
Result<DirectoryRecord> remove_entry(DirectoryPages& pages, std::uint64_t seed, std::string_view name);

// Lets a name refer to another inode; the cookie stays. Returns what it was. kNotFound.
Result<DirectoryRecord> replace_entry(DirectoryPages& pages, std::uint64_t seed, std::string_view name,
                                      InodeNumber inode, std::uint32_t type);

// Calls `visit` for the entries with a cookie above `after_cookie` in the order of their cookies until it returns
// false. The name is valid during the call; `visit` must not change the directory. When an error comes after some
// entries, those were good: go on after the last cookie.
Status list_entries(DirectoryPages& pages, std::uint64_t after_cookie,
                    const std::function<bool(std::string_view name, const DirectoryRecord& record)>& visit);

}  // namespace tarnfs
