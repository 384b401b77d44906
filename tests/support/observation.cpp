#include "tests/support/observation.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

namespace tarnfs::testing {
namespace {

Result<SharedText> content_of(FileSystem& volume, const Attributes& attributes) {
  if (!S_ISREG(attributes.mode) && !S_ISLNK(attributes.mode)) return std::make_shared<const std::string>();
  if (S_ISLNK(attributes.mode)) {
    TARNFS_ASSIGN(std::string target, volume.symlink_target(attributes.inode));
    return std::make_shared<const std::string>(std::move(target));
  }
  // One byte more than there may be, so that a file that is longer than it says is noticed.
  TARNFS_ASSIGN(std::string content, read_start(volume, attributes.inode, attributes.size_bytes + 1));
  if (content.size() != attributes.size_bytes) {
    return Error(ErrorCode::kCorrupt, "inode " + std::to_string(attributes.inode.value) + " has size " +
                                          std::to_string(attributes.size_bytes) + ", but " +
                                          std::to_string(content.size()) + " bytes can be read");
  }
  return std::make_shared<const std::string>(std::move(content));
}

// The pages with content, when these are all blocks.
Result<std::optional<FilePages>> pages_of(FileSystem& volume, const Attributes& attributes) {
  FilePages pages;
  for (std::uint64_t offset = 0; offset < attributes.size_bytes;) {
    const auto found = volume.seek(attributes.inode, offset, SeekKind::kData);
    if (!found.ok() && found.error().code() == ErrorCode::kNoData) break;
    if (!found.ok()) return found.error();
    pages.data.insert(*found / kBlockSize);
    offset = (*found / kBlockSize + 1) * kBlockSize;
  }
  if (pages.count() != attributes.block_count) return std::optional<FilePages>();
  return std::optional(std::move(pages));
}

Result<ObservedInode> observe_inode(FileSystem& volume, const Attributes& attributes) {
  ObservedInode seen;
  seen.metadata.mode = attributes.mode;
  seen.metadata.uid = attributes.uid;
  seen.metadata.gid = attributes.gid;
  seen.link_count = attributes.link_count;
  if (S_ISREG(attributes.mode)) {
    seen.block_count = attributes.block_count;
    TARNFS_ASSIGN(seen.pages, pages_of(volume, attributes));
  }
  TARNFS_ASSIGN(seen.content, content_of(volume, attributes));
  TARNFS_ASSIGN(const std::vector<std::string> names, volume.xattr_names(attributes.inode));
  for (const std::string& name : names) {
    TARNFS_ASSIGN(seen.metadata.xattrs[name], volume.xattr(attributes.inode, name));
  }
  return seen;
}

struct ListedEntry {
  std::string name;
  InodeNumber inode;
  std::uint32_t type = 0;
};

Result<std::vector<ListedEntry>> list_of(FileSystem& volume, InodeNumber directory) {
  std::vector<ListedEntry> entries;
  TARNFS_TRY(volume.list(directory, 0, [&](const DirectoryEntry& entry) {
    if (entry.name != "." && entry.name != "..") {
      entries.push_back(ListedEntry{std::string(entry.name), entry.inode, entry.type});
    }
    return true;
  }));
  return entries;
}

}  // namespace

Result<std::string> read_start(FileSystem& volume, InodeNumber inode, std::size_t length) {
  const std::size_t aligned_length = (length + kBlockSize - 1) / kBlockSize * kBlockSize;
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  const std::unique_ptr<void, Free> memory(std::aligned_alloc(kBlockSize, std::max(aligned_length, kBlockSize)));
  TARNFS_ASSERT(memory != nullptr);
  TARNFS_ASSIGN(const std::size_t read,
                volume.read(inode, 0, std::span(static_cast<std::byte*>(memory.get()), length)));
  return std::string(static_cast<const char*>(memory.get()), read);
}

Result<Observation> observe(FileSystem& volume) {
  Observation seen;
  TARNFS_ASSIGN(const Attributes root, volume.attributes(kRootDirectory));
  TARNFS_ASSIGN(seen.inodes[root.inode.value], observe_inode(volume, root));
  std::vector<InodeNumber> directories{kRootDirectory};
  while (!directories.empty()) {
    const InodeNumber directory = directories.back();
    directories.pop_back();
    TARNFS_ASSIGN(const std::vector<ListedEntry> entries, list_of(volume, directory));
    for (const ListedEntry& entry : entries) {
      TARNFS_ASSIGN(const Attributes attributes, volume.lookup(directory, entry.name));
      volume.forget(attributes.inode, 1);
      const std::uint64_t number = attributes.inode.value;
      const bool first_time = seen.names.emplace(NameKey{directory.value, entry.name}, number).second;
      if (!first_time || attributes.inode != entry.inode || (attributes.mode & S_IFMT) != (entry.type & S_IFMT)) {
        return Error(ErrorCode::kCorrupt, "list() and lookup() do not agree about " + entry.name);
      }
      if (seen.inodes.contains(number)) continue;
      TARNFS_ASSIGN(seen.inodes[number], observe_inode(volume, attributes));
      if (S_ISDIR(attributes.mode)) directories.push_back(attributes.inode);
    }
  }
  return seen;
}

std::string path_of(const Names& names, std::uint64_t inode) {
  std::string path;
  for (int depth = 0; depth < 20 && inode != kRootDirectory.value; ++depth) {
    const auto found = std::find_if(names.begin(), names.end(), [&](const auto& name) { return name.second == inode; });
    if (found == names.end()) return "inode " + std::to_string(inode) + (path.empty() ? "" : "/" + path);
    if (!path.empty()) path.insert(0, "/");
    path.insert(0, found->first.name);
    inode = found->first.directory;
  }
  return path.empty() ? "/" : path;
}

std::string describe(const Names& names) {
  std::string text;
  for (const auto& [key, inode] : names) {
    const std::string directory = path_of(names, key.directory);
    text += " " + (directory == "/" ? "" : directory + "/") + key.name + "=" + std::to_string(inode);
  }
  return text.empty() ? " (nothing)" : text;
}

}  // namespace tarnfs::testing
