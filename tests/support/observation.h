// Everything that a user can see of a file system, as a value to compare with.
//
// Thread safety: a value; contents are shared and never change.
// Errors: observe() gives the first error of the file system, or kCorrupt when its answers contradict one another.
#pragma once

#include <compare>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "fs/engine/file_system.h"
#include "tests/support/file_pages.h"

namespace tarnfs::testing {

using SharedText = std::shared_ptr<const std::string>;

struct NameKey {
  std::uint64_t directory = 0;
  std::string name;
  auto operator<=>(const NameKey&) const = default;
};
using Names = std::map<NameKey, std::uint64_t>;  // to inode numbers

struct Metadata {
  std::uint32_t mode = 0;  // with the type
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::map<std::string, std::string> xattrs;
  bool operator==(const Metadata&) const = default;
};

struct ObservedInode {
  Metadata metadata;
  std::uint32_t link_count = 0;
  SharedText content;  // a symlink's target; empty for directories
  // Of regular files.
  std::uint64_t block_count = 0;
  std::optional<FilePages> pages;  // where the blocks do not leave open for which pages space is kept
};

struct Observation {
  Names names;
  std::map<std::uint64_t, ObservedInode> inodes;  // all that have a name, and the root directory
};

// Walks the whole tree from the root directory and reads every file.
Result<Observation> observe(FileSystem& volume);

// The first bytes of a file, at most `length`; read into aligned memory, so that the calls to the device are the same
// in every run.
Result<std::string> read_start(FileSystem& volume, InodeNumber inode, std::size_t length);

// "A/f", by one of its names; the number when it has none.
std::string path_of(const Names& names, std::uint64_t inode);

std::string describe(const Names& names);

}  // namespace tarnfs::testing
