// Changes that are durable before they are answered: what the mount options dirsync and sync ask for.
//
// Purpose: of these options the kernel's FUSE client knows that it has to fsync what write(2) wrote, and nothing else.
// This stands before a FileSystem and makes changes of names, and with kAll of inodes too, durable there.
//
// Invariants:
//   1. A change within the scope that returned no error is durable: fsync() of the directory or inode below returned
//      after it. Left out are what no crash keeps, files without a name, and what the kernel writes back by itself,
//      pages and their times: it asks for an fsync of these when somebody waits for them.
//   2. Inside a NoWaitScope such a change is kWouldWait, and nothing was changed.
//   3. A change that could not be made durable is an error and takes no lookup count. Other than elsewhere it may be
//      seen: it is in memory, as after an fsync(2) that failed.
//
// Thread safety: as FileSystem.
// Ownership: the file system below belongs to the caller and outlives this.
// Errors: those of the file system below, of its fsync() too.
#pragma once

#include "fs/engine/file_system.h"

namespace tarnfs {

enum class DurableScope {
  kNames,  // dirsync: what makes, moves and removes names
  kAll,    // sync: attributes, sizes, extended attributes, allocations and content too
};

class DurableChanges final : public FileSystem {
 public:
  DurableChanges(FileSystem& below, DurableScope scope) : below_(below), scope_(scope) {}

  Result<Attributes> lookup(InodeNumber parent, std::string_view name) override;
  Result<Attributes> make_node(InodeNumber parent, std::string_view name, const NewNode& node) override;
  Result<Attributes> make_unnamed(InodeNumber parent, const NewNode& node) override;
  Result<Attributes> link(InodeNumber inode, InodeNumber parent, std::string_view name) override;
  Status unlink(InodeNumber parent, std::string_view name) override;
  Status remove_directory(InodeNumber parent, std::string_view name) override;
  Status rename(InodeNumber from, std::string_view from_name, InodeNumber to, std::string_view to_name,
                RenameMode mode) override;
  Status rename_leaving(InodeNumber from, std::string_view from_name, InodeNumber to, std::string_view to_name,
                        RenameMode mode, const NewNode& left) override;
  void forget(InodeNumber inode, std::uint64_t count) override;
  Result<Attributes> attributes(InodeNumber inode) override;
  Result<Attributes> change_attributes(InodeNumber inode, const AttributeChanges& changes) override;
  Result<std::string> symlink_target(InodeNumber inode) override;
  Result<std::string> xattr(InodeNumber inode, std::string_view name) override;
  Result<std::vector<std::string>> xattr_names(InodeNumber inode) override;
  Status set_xattr(InodeNumber inode, std::string_view name, std::span<const std::byte> value, XattrMode mode) override;
  Status remove_xattr(InodeNumber inode, std::string_view name) override;
  void leave_times_to_kernel() override;
  Result<std::size_t> read(InodeNumber inode, std::uint64_t offset_bytes, std::span<std::byte> out,
                           ReadOptions options) override;
  Status write(InodeNumber inode, std::uint64_t offset_bytes, std::span<const std::byte> data,
               WriteOptions options) override;
  Status fallocate(InodeNumber inode, std::uint64_t offset_bytes, std::uint64_t length_bytes,
                   FallocateOptions options) override;
  Result<std::uint64_t> seek(InodeNumber inode, std::uint64_t offset_bytes, SeekKind kind) override;
  Result<std::uint64_t> copy_range(InodeNumber from, std::uint64_t from_offset_bytes, InodeNumber to,
                                   std::uint64_t to_offset_bytes, std::uint64_t length_bytes) override;
  Status list(InodeNumber directory, std::uint64_t cookie,
              const std::function<bool(const DirectoryEntry&)>& visit) override;
  Result<Attributes> attributes_with_lookup(InodeNumber inode) override;
  FileSystemUsage usage() override;
  Status settle_usage() override;
  bool takes_changes() const override;
  bool read_only() const override;
  std::uint64_t view() const override;
  Status fsync(InodeNumber inode, bool data_only) override;
  Result<Cp> consistency_point() override;
  Result<std::uint64_t> trim(const TrimRange& range) override;
  Result<std::uint64_t> resize(std::uint64_t size_bytes) override;
  Status shut_down() override;

 private:
  template <class Change>
  auto durably(InodeNumber inode, const Change& change) -> decltype(change());
  template <class Change>
  auto durably_with_lookup(InodeNumber directory, const Change& change) -> decltype(change());
  template <class Change>
  auto durably_if(bool is_in_scope, InodeNumber inode, const Change& change) -> decltype(change());

  FileSystem& below_;
  const DurableScope scope_;
};

}  // namespace tarnfs
