// Builds small volumes by hand, independently of the engine, so that every kind of damage can be planted.
//
// Purpose: the checker's tests. The sample has one of everything; a test changes the parts or sets a hook, and then
// build() writes a volume that is consistent but for that.
//
// Thread safety: none.
// Errors: a failed write asserts.
#pragma once

#include <sys/stat.h>

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/checksum.h"
#include "common/format.h"
#include "fs/tree/directory.h"
#include "tests/support/memory_block_device.h"

namespace tarnfs::testing {

inline constexpr std::uint64_t kSampleBlocks = 4096;
inline constexpr Cp kSampleCp{9};

class MemoryDirectoryPages final : public DirectoryPages {
 public:
  explicit MemoryDirectoryPages(std::map<std::uint64_t, PageRef>& pages) : pages_(pages) {}
  Result<PageRef> read(std::uint64_t index) override { return pages_.at(index); }
  void write(std::uint64_t index, PageRef page) override { pages_[index] = std::move(page); }
  void remove(std::uint64_t index) override { pages_.erase(index); }
  std::uint64_t page_count() const override { return count_; }
  void set_page_count(std::uint64_t count) override { count_ = count; }

 private:
  std::map<std::uint64_t, PageRef>& pages_;
  std::uint64_t count_ = 0;
};

struct BuilderEntry {
  std::string name;
  std::uint64_t inode = 0;
  std::uint32_t type = 0;
};

struct BuilderInode {
  InodeRecord record;                      // what build() does not fill in itself
  std::map<std::uint64_t, PageRef> pages;  // by index; directories get theirs from `entries`
  std::vector<BuilderEntry> entries;
};

class CheckVolumeBuilder {
 public:
  CheckVolumeBuilder() : device_(std::make_unique<MemoryBlockDevice>(kSampleBlocks)) {}

  std::map<std::uint64_t, BuilderInode> inodes;
  // Hooks, each called where its part is complete but for the checksum above it.
  std::function<void(PageRef&)> on_block;                                 // every block before its checksum
  std::function<void(std::uint64_t number, BuilderInode&)> on_directory;  // its pages are made
  std::function<void(std::uint64_t number, InodeRecord&)> on_record;      // its tree is written
  std::function<void(std::span<std::byte>)> on_free_map;                  // its bits are complete
  std::function<void(RootBlock&)> on_root;                                // the root before its checksum
  std::uint64_t seed_of_names = 77;

  static PageRef page_filled_with(std::uint8_t value) {
    PageRef page = PageRef::zeroed();
    std::memset(page.mutable_bytes().data(), value, kBlockSize);
    return page;
  }

  BuilderInode& add(std::uint64_t number, std::uint32_t mode, std::uint32_t link_count) {
    BuilderInode& inode = inodes[number];
    inode.record.number = number;
    inode.record.mode = mode;
    inode.record.link_count = link_count;
    return inode;
  }

  // Adds a directory and its name in `parent`, whose link count it raises.
  BuilderInode& add_directory(std::uint64_t number, std::uint64_t parent, const std::string& name) {
    BuilderInode& inode = add(number, S_IFDIR | 0755, 2);
    inode.record.parent = parent;
    if (number == parent) return inode;
    ++inodes.at(parent).record.link_count;
    inodes.at(parent).entries.push_back({name, number, S_IFDIR});
    return inode;
  }

  // Adds an inode with one name.
  BuilderInode& add_named(std::uint64_t number, std::uint32_t mode, std::uint64_t parent, const std::string& name) {
    inodes.at(parent).entries.push_back({name, number, mode & S_IFMT});
    return add(number, mode, 1);
  }

  // One of everything.
  void add_sample();

  // Writes all of it. The device may be damaged further.
  MemoryBlockDevice& build();
  // Where a data block of an inode went, and the root block as it was written.
  Address address_of(std::uint64_t number, std::uint64_t index) const { return places_.at({number, index}); }
  const RootBlock& root() const { return root_; }
  Address next_free() const { return Address{next_}; }
  // Writes a block at the next free address.
  BlockPointer write(PageRef page) {
    if (on_block) {
      page.make_unique();
      on_block(page);
    }
    BlockPointer pointer;
    pointer.address = next_++;
    pointer.birth_cp = kSampleCp.value;
    pointer.checksum = checksum_of(page.bytes());
    TARNFS_ASSERT(device_->write(Address{pointer.address}, std::span(&page, 1)).ok());
    return pointer;
  }

 private:
  void write_tree(std::uint64_t number, InodeRecord& record, const std::map<std::uint64_t, PageRef>& pages);
  void make_directory(BuilderInode& inode);
  void write_inode_file();
  void write_free_map();

  std::unique_ptr<MemoryBlockDevice> device_;
  std::map<std::pair<std::uint64_t, std::uint64_t>, Address> places_;
  RootBlock root_;
  std::uint64_t next_ = kFirstDataBlock;
};

inline void CheckVolumeBuilder::add_sample() {
  add_directory(1, 1, "");
  BuilderInode& file = add_named(16, S_IFREG | 0644, 1, "file");
  for (std::uint64_t i = 0; i < 3; ++i) file.pages[i] = page_filled_with(static_cast<std::uint8_t>(0x10 + i));
  file.record.size_bytes = 2 * kBlockSize + 5;
  file.record.xattr_inode = 24;
  BuilderInode& sparse = add_named(17, S_IFREG | 0600, 1, "sparse");
  for (const std::uint64_t i : {0, 130, 5000, 70000}) sparse.pages[i] = page_filled_with(0x20);
  sparse.record.size_bytes = 4097;  // the blocks behind are preallocated
  add_directory(18, 1, "directory");
  add_directory(19, 18, "below");
  inodes.at(18).entries.push_back({"second name", 16, S_IFREG});
  ++inodes.at(16).record.link_count;
  BuilderInode& symlink = add_named(20, S_IFLNK | 0777, 18, "short");
  symlink.record.layout = kInodeInlineTarget;
  symlink.record.size_bytes = 5;
  std::memcpy(static_cast<void*>(symlink.record.pointers.data()), "there", 5);
  BuilderInode& target = add_named(21, S_IFLNK | 0777, 18, "long");
  target.pages[0] = page_filled_with('x');
  target.record.size_bytes = 1000;
  add_named(22, S_IFIFO | 0600, 19, "fifo");
  add_named(23, S_IFCHR | 0600, 19, "device").record.device = 1U << 20 | 3U;
  BuilderInode& attributes = add(24, S_IFREG | 0600, 1);
  attributes.record.flags = kInodeFlagAttributes;
  attributes.record.parent = 16;
  attributes.record.size_bytes = 100;
  attributes.pages[0] = page_filled_with('a');
  add(25, S_IFREG | 0600, 0).pages[0] = page_filled_with('o');
  BuilderInode& orphans = add(2, S_IFREG | 0600, 1);
  const std::uint64_t listed = 25;
  orphans.pages[0] = PageRef::copy_of(std::as_bytes(std::span(&listed, 1)));
  orphans.record.size_bytes = sizeof listed;
  add_directory(32, 1, "many");
  for (std::uint64_t i = 0; i < 400; ++i) add_named(100 + i, S_IFREG | 0600, 32, "entry" + std::to_string(i));
}

inline void CheckVolumeBuilder::make_directory(BuilderInode& inode) {
  MemoryDirectoryPages pages(inode.pages);
  for (const BuilderEntry& entry : inode.entries) {
    TARNFS_ASSERT(insert_entry(pages, seed_of_names, entry.name, InodeNumber{entry.inode}, entry.type).ok());
  }
  inode.record.size_bytes = pages.page_count() * kBlockSize;
  inode.record.entry_count = inode.entries.size();
}

inline void CheckVolumeBuilder::write_tree(std::uint64_t number, InodeRecord& record,
                                           const std::map<std::uint64_t, PageRef>& pages) {
  std::map<std::uint64_t, BlockPointer> level;
  for (const auto& [index, page] : pages) {
    level[index] = write(page);
    places_[{number, index}] = Address{level[index].address};
  }
  record.block_count = level.size();
  while (!level.empty() && level.rbegin()->first >= kPointersPerInode) {
    std::map<std::uint64_t, TreeNode> nodes;
    for (const auto& [index, pointer] : level) nodes[index >> kNodeShift][index % kPointersPerNode] = pointer;
    level.clear();
    for (const auto& [index, node] : nodes) level[index] = write(page_of(node));
    record.block_count += level.size();
    ++record.height;
  }
  for (const auto& [index, pointer] : level) record.pointers[index] = pointer;
}

inline void CheckVolumeBuilder::write_inode_file() {
  std::map<std::uint64_t, InodeBlock> blocks;
  std::map<std::uint64_t, PageRef> pages;
  for (auto& [number, inode] : inodes) {
    if (S_ISDIR(inode.record.mode)) make_directory(inode);
    if (on_directory && S_ISDIR(inode.record.mode)) on_directory(number, inode);
    InodeRecord record = inode.record;
    if (!inode.pages.empty()) write_tree(number, record, inode.pages);
    if (on_record) on_record(number, record);
    blocks[number / kInodesPerBlock][number % kInodesPerBlock] = record;
    root_.next_inode = number + 1;
    const bool counted = number == 1 || (number >= 16 && (record.flags & kInodeFlagAttributes) == 0);
    root_.inode_count += counted && record.mode != 0 ? 1 : 0;
  }
  for (const auto& [index, block] : blocks) pages[index] = page_of(block);
  root_.inode_file.mode = root_.free_map.mode = S_IFREG | 0600;
  write_tree(0, root_.inode_file, pages);
}

inline void CheckVolumeBuilder::write_free_map() {
  PageRef map = PageRef::zeroed();
  for (std::uint64_t block = kFirstDataBlock; block <= next_; ++block) {
    map.mutable_bytes()[block / 8] |= std::byte{1} << block % 8;
  }
  root_.used_blocks = next_ + 1 - kFirstDataBlock;
  if (on_free_map) on_free_map(map.mutable_bytes());
  root_.free_map.size_bytes = kBlockSize;
  root_.free_map.block_count = 1;
  root_.free_map.pointers[0] = write(std::move(map));
}

inline MemoryBlockDevice& CheckVolumeBuilder::build() {
  Superblock superblock;
  superblock.size_blocks = kSampleBlocks;
  superblock.volume.fill(7);
  superblock.name_hash_seed = 77;
  seal(superblock);
  TARNFS_ASSERT(write_superblock(*device_, superblock).ok());
  root_.volume = superblock.volume;
  root_.cp = kSampleCp.value;
  root_.size_blocks = kSampleBlocks;
  write_inode_file();
  write_free_map();
  if (on_root) on_root(root_);
  seal(root_);
  TARNFS_ASSERT(publish_root(*device_, root_).ok());
  return *device_;
}

}  // namespace tarnfs::testing
