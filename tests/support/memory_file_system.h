// A FileSystem in memory, for tests of the front end.
//
// Purpose: what the kernel asks reaches it unchanged, and tests see lookup counts and what was asked.
//
// Thread safety: one mutex around everything; `list` calls back without it.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <map>
#include <string>

#include "common/clock.h"
#include "common/format.h"
#include "common/mutex.h"
#include "fs/engine/file_system.h"
#include "fs/engine/waiting.h"

namespace tarnfs {

class MemoryFileSystem final : public FileSystem {
 public:
  MemoryFileSystem() {
    MutexLock lock(mutex_);
    Node& root = nodes_[kRootDirectory.value];
    root.attributes.inode = kRootDirectory;
    root.attributes.mode = S_IFDIR | 0755;
    root.attributes.link_count = 2;
    root.parent = kRootDirectory.value;
    root.attributes.accessed = root.attributes.modified = root.attributes.changed = system_clock().now();
  }

  Result<Attributes> lookup(InodeNumber parent, std::string_view name) override {
    TARNFS_TRY(answers_here());
    MutexLock lock(mutex_);
    if (name == "..") return with_lookup(nodes_.at(parent.value).parent);
    const auto& entries = nodes_.at(parent.value).entries;
    const auto found = entries.find(std::string(name));
    if (found == entries.end()) return Error(ErrorCode::kNotFound);
    return with_lookup(found->second.inode);
  }

  Result<Attributes> make_node(InodeNumber parent, std::string_view name, const NewNode& node) override {
    TARNFS_TRY(answers_here());
    MutexLock lock(mutex_);
    Node& directory = nodes_.at(parent.value);
    if (directory.entries.contains(std::string(name))) return Error(ErrorCode::kExists);
    const std::uint64_t number = make(node);
    add_entry(directory, name, number);
    Node& made = nodes_.at(number);
    made.parent = parent.value;
    made.attributes.link_count = S_ISDIR(node.mode) ? 2 : 1;
    return with_lookup(number);
  }

  Result<Attributes> make_unnamed(InodeNumber /*parent*/, const NewNode& node) override {
    TARNFS_TRY(answers_here());
    MutexLock lock(mutex_);
    return with_lookup(make(node));
  }

  Result<Attributes> link(InodeNumber inode, InodeNumber parent, std::string_view name) override {
    TARNFS_TRY(answers_here());
    MutexLock lock(mutex_);
    Node& directory = nodes_.at(parent.value);
    if (directory.entries.contains(std::string(name))) return Error(ErrorCode::kExists);
    add_entry(directory, name, inode.value);
    ++nodes_.at(inode.value).attributes.link_count;
    return with_lookup(inode.value);
  }

  Status unlink(InodeNumber parent, std::string_view name) override {
    TARNFS_TRY(answers_here());
    MutexLock lock(mutex_);
    return remove_entry(nodes_.at(parent.value), std::string(name));
  }

  Status remove_directory(InodeNumber parent, std::string_view name) override {
    TARNFS_TRY(answers_here());
    MutexLock lock(mutex_);
    Node& directory = nodes_.at(parent.value);
    const auto found = directory.entries.find(std::string(name));
    if (found == directory.entries.end()) return Error(ErrorCode::kNotFound);
    if (!nodes_.at(found->second.inode).entries.empty()) return Error(ErrorCode::kNotEmpty);
    nodes_.at(found->second.inode).attributes.link_count = 1;
    return remove_entry(directory, std::string(name));
  }

  Status rename(InodeNumber from, std::string_view from_name, InodeNumber to, std::string_view to_name,
                RenameMode mode) override {
    TARNFS_TRY(answers_here());
    MutexLock lock(mutex_);
    Node& source = nodes_.at(from.value);
    Node& target = nodes_.at(to.value);
    const auto moved = source.entries.find(std::string(from_name));
    if (moved == source.entries.end()) return Error(ErrorCode::kNotFound);
    const std::uint64_t number = moved->second.inode;
    const auto there = target.entries.find(std::string(to_name));
    if (mode == RenameMode::kExchange) {
      if (there == target.entries.end()) return Error(ErrorCode::kNotFound);
      std::swap(moved->second.inode, there->second.inode);
      return {};
    }
    if (there != target.entries.end()) {
      if (mode == RenameMode::kNoReplace) return Error(ErrorCode::kExists);
      TARNFS_TRY(remove_entry(target, std::string(to_name)));
    }
    source.entries.erase(std::string(from_name));
    add_entry(target, to_name, number);
    nodes_.at(number).parent = to.value;
    return {};
  }

  Status rename_leaving(InodeNumber from, std::string_view from_name, InodeNumber to, std::string_view to_name,
                        RenameMode mode, const NewNode& left) override {
    TARNFS_TRY(rename(from, from_name, to, to_name, mode));
    const auto made = make_node(from, from_name, left);
    return made.ok() ? Status() : made.error();
  }

  void forget(InodeNumber inode, std::uint64_t count) override {
    MutexLock lock(mutex_);
    const auto found = nodes_.find(inode.value);
    TARNFS_ASSERT(found != nodes_.end());
    TARNFS_ASSERT(inode == kRootDirectory || found->second.lookups >= count);
    found->second.lookups -= std::min(found->second.lookups, count);
    if (found->second.lookups == 0 && found->second.attributes.link_count == 0) nodes_.erase(found);
    forgotten_.notify_all();
  }

  Result<Attributes> attributes(InodeNumber inode) override {
    TARNFS_TRY(answers_here());
    MutexLock lock(mutex_);
    const auto found = nodes_.find(inode.value);
    if (found == nodes_.end()) return Error(ErrorCode::kStale);
    return found->second.attributes;
  }

  Result<Attributes> change_attributes(InodeNumber inode, const AttributeChanges& changes) override {
    TARNFS_TRY(answers_here());
    MutexLock lock(mutex_);
    Node& node = nodes_.at(inode.value);
    Attributes& now = node.attributes;
    if (changes.mode) now.mode = (now.mode & S_IFMT) | *changes.mode;
    if (changes.uid) now.uid = *changes.uid;
    if (changes.gid) now.gid = *changes.gid;
    if (changes.flags) now.flags = *changes.flags;
    if (changes.size_bytes) {
      node.data.resize(*changes.size_bytes);
      now.size_bytes = *changes.size_bytes;
    }
    if (changes.accessed) now.accessed = *changes.accessed;
    if (changes.modified) now.modified = *changes.modified;
    now.changed = changes.changed.value_or(system_clock().now());
    return now;
  }

  void leave_times_to_kernel() override { kernel_keeps_times_ = true; }

  Result<std::string> symlink_target(InodeNumber inode) override {
    TARNFS_TRY(answers_here());
    MutexLock lock(mutex_);
    return nodes_.at(inode.value).data;
  }

  Result<std::string> xattr(InodeNumber inode, std::string_view name) override {
    TARNFS_TRY(answers_here());
    MutexLock lock(mutex_);
    ++xattr_requests_;
    const auto& all = nodes_.at(inode.value).xattrs;
    const auto found = all.find(std::string(name));
    if (found == all.end()) return Error(ErrorCode::kNoAttribute);
    return found->second;
  }

  Result<std::vector<std::string>> xattr_names(InodeNumber inode) override {
    TARNFS_TRY(answers_here());
    MutexLock lock(mutex_);
    std::vector<std::string> names;
    for (const auto& [name, value] : nodes_.at(inode.value).xattrs) names.push_back(name);
    return names;
  }

  Status set_xattr(InodeNumber inode, std::string_view name, std::span<const std::byte> value,
                   XattrMode mode) override {
    TARNFS_TRY(answers_here());
    MutexLock lock(mutex_);
    auto& all = nodes_.at(inode.value).xattrs;
    const bool exists = all.contains(std::string(name));
    if (mode == XattrMode::kCreate && exists) return Error(ErrorCode::kExists);
    if (mode == XattrMode::kReplace && !exists) return Error(ErrorCode::kNoAttribute);
    all[std::string(name)] = std::string(reinterpret_cast<const char*>(value.data()), value.size());
    return {};
  }

  Status remove_xattr(InodeNumber inode, std::string_view name) override {
    TARNFS_TRY(answers_here());
    MutexLock lock(mutex_);
    if (nodes_.at(inode.value).xattrs.erase(std::string(name)) == 0) return Error(ErrorCode::kNoAttribute);
    return {};
  }

  Result<std::size_t> read(InodeNumber inode, std::uint64_t offset_bytes, std::span<std::byte> out,
                           ReadOptions /*options*/ = {}) override {
    TARNFS_TRY(answers_here());
    MutexLock lock(mutex_);
    wait_while_held();
    TARNFS_ASSERT(reinterpret_cast<std::uintptr_t>(out.data()) % kBlockSize == 0);
    const std::string& data = nodes_.at(inode.value).data;
    if (offset_bytes >= data.size()) return std::size_t{0};
    const std::size_t bytes = std::min<std::size_t>(out.size(), data.size() - offset_bytes);
    std::memcpy(out.data(), data.data() + offset_bytes, bytes);
    return bytes;
  }

  Status write(InodeNumber inode, std::uint64_t offset_bytes, std::span<const std::byte> data,
               WriteOptions options) override {
    TARNFS_TRY(answers_here());
    MutexLock lock(mutex_);
    Node& node = nodes_.at(inode.value);
    if (node.data.size() < offset_bytes + data.size()) node.data.resize(offset_bytes + data.size());
    std::memcpy(node.data.data() + offset_bytes, data.data(), data.size());
    node.attributes.size_bytes = node.data.size();
    node.attributes.block_count = (node.data.size() + kBlockSize - 1) / kBlockSize;
    if (!options.from_page_cache && !kernel_keeps_times_)
      node.attributes.modified = node.attributes.changed = system_clock().now();
    return {};
  }

  Status fallocate(InodeNumber inode, std::uint64_t offset_bytes, std::uint64_t length_bytes,
                   FallocateOptions options) override {
    MutexLock lock(mutex_);
    Node& node = nodes_.at(inode.value);
    const std::uint64_t end = offset_bytes + length_bytes;
    if (!options.keep_size && end > node.data.size()) node.data.resize(end);
    if (options.punch_hole || options.zero_range) {
      for (std::uint64_t i = offset_bytes; i < std::min<std::uint64_t>(end, node.data.size()); ++i) node.data[i] = 0;
    }
    node.attributes.size_bytes = node.data.size();
    return {};
  }

  Result<std::uint64_t> seek(InodeNumber inode, std::uint64_t offset_bytes, SeekKind kind) override {
    TARNFS_TRY(answers_here());
    MutexLock lock(mutex_);
    const std::uint64_t size = nodes_.at(inode.value).data.size();
    if (offset_bytes >= size) return Error(ErrorCode::kNoData);
    return kind == SeekKind::kData ? offset_bytes : size;
  }

  Result<std::uint64_t> copy_range(InodeNumber from, std::uint64_t from_offset_bytes, InodeNumber to,
                                   std::uint64_t to_offset_bytes, std::uint64_t length_bytes) override {
    std::string bytes;
    {
      MutexLock lock(mutex_);
      const std::string& data = nodes_.at(from.value).data;
      if (from_offset_bytes >= data.size()) return std::uint64_t{0};
      bytes = data.substr(from_offset_bytes, length_bytes);
    }
    TARNFS_TRY(write(to, to_offset_bytes, std::as_bytes(std::span<const char>(bytes)), {}));
    return std::uint64_t{bytes.size()};
  }

  Status list(InodeNumber directory, std::uint64_t cookie,
              const std::function<bool(const DirectoryEntry&)>& visit) override {
    TARNFS_TRY(answers_here());
    struct Listed {
      std::string name;
      std::uint64_t inode;
      std::uint64_t cookie;
      std::uint32_t type;
    };
    std::vector<Listed> listed;
    {
      MutexLock lock(mutex_);
      const Node& node = nodes_.at(directory.value);
      listed.push_back({".", directory.value, 1, S_IFDIR});
      listed.push_back({"..", node.parent, 2, S_IFDIR});
      for (const auto& [name, entry] : node.entries) {
        listed.push_back({name, entry.inode, entry.cookie, nodes_.at(entry.inode).attributes.mode & S_IFMT});
      }
    }
    std::sort(listed.begin(), listed.end(), [](const Listed& a, const Listed& b) { return a.cookie < b.cookie; });
    for (const Listed& entry : listed) {
      if (entry.cookie <= cookie) continue;
      if (!visit({entry.name, InodeNumber{entry.inode}, entry.type, entry.cookie})) break;
    }
    return {};
  }

  Result<Attributes> attributes_with_lookup(InodeNumber inode) override {
    TARNFS_TRY(answers_here());
    MutexLock lock(mutex_);
    if (!nodes_.contains(inode.value)) return Error(ErrorCode::kNotFound);
    return with_lookup(inode.value);
  }

  FileSystemUsage usage() override { return {1000, 600, 500, 7}; }
  bool takes_changes() const override { return true; }
  bool read_only() const override { return false; }
  Status fsync(InodeNumber /*inode*/, bool /*data_only*/) override {
    MutexLock lock(mutex_);
    wait_while_held();
    ++fsync_count_;
    return fsyncs_fail_ ? Status(Error(ErrorCode::kIo)) : Status();
  }
  Result<Cp> consistency_point() override { return Cp{1}; }
  Result<std::uint64_t> trim(const TrimRange& /*range*/) override { return Error(ErrorCode::kUnsupported); }
  Result<std::uint64_t> resize(std::uint64_t /*size_bytes*/) override { return Error(ErrorCode::kUnsupported); }
  Status shut_down() override { return Error(ErrorCode::kUnsupported); }

  // While it is set, operations would wait, as for blocks that are not in memory.
  void put_off_all(bool put_off) { put_off_ = put_off; }
  unsigned put_off_count() const { return put_off_count_; }

  // While it is set, reads and fsyncs wait.
  void hold_waiting(bool held) {
    MutexLock lock(mutex_);
    held_ = held;
    held_changed_.notify_all();
  }
  // Returns once so many of them do.
  void wait_for_waiting(unsigned count) {
    MutexLock lock(mutex_);
    while (waiting_ < count) held_changed_.wait(mutex_);
  }

  void fail_fsyncs(bool fail) {
    MutexLock lock(mutex_);
    fsyncs_fail_ = fail;
  }

  // Sum of the lookup counts of all inodes but the root.
  std::uint64_t lookup_count() const {
    MutexLock lock(mutex_);
    std::uint64_t sum = 0;
    for (const auto& [number, node] : nodes_) sum += number == kRootDirectory.value ? 0 : node.lookups;
    return sum;
  }
  std::size_t node_count() const {
    MutexLock lock(mutex_);
    return nodes_.size();
  }
  // The kernel sends its forgets after the call that caused them has returned. False when the count does not come.
  bool wait_for_node_count(std::size_t count) {
    constexpr std::chrono::seconds kPatience{60};
    MutexLock lock(mutex_);
    while (nodes_.size() != count) {
      if (!forgotten_.wait_for(mutex_, kPatience)) return false;
    }
    return true;
  }
  std::uint64_t fsync_count() const {
    MutexLock lock(mutex_);
    return fsync_count_;
  }
  std::uint64_t xattr_request_count() const {
    MutexLock lock(mutex_);
    return xattr_requests_;
  }

 private:
  struct Entry {
    std::uint64_t inode = 0;
    std::uint64_t cookie = 0;
  };
  struct Node {
    Attributes attributes;
    std::string data;  // or the target of a symlink
    std::map<std::string, Entry> entries;
    std::map<std::string, std::string> xattrs;
    std::uint64_t parent = 0;
    std::uint64_t lookups = 0;
  };

  Status answers_here() {
    if (!NoWaitScope::is_active() || !(put_off_ || is_held())) return {};
    ++put_off_count_;
    return Error(ErrorCode::kWouldWait);
  }

  bool is_held() {
    MutexLock lock(mutex_);
    return held_;
  }

  void wait_while_held() TARNFS_REQUIRES(mutex_) {
    ++waiting_;
    held_changed_.notify_all();
    while (held_) held_changed_.wait(mutex_);
    --waiting_;
  }

  std::uint64_t make(const NewNode& node) TARNFS_REQUIRES(mutex_) {
    const std::uint64_t number = next_inode_++;
    Node& made = nodes_[number];
    made.attributes.inode = InodeNumber{number};
    made.attributes.mode = S_ISLNK(node.mode) ? node.mode : node.mode & ~node.caller.umask;
    made.attributes.uid = node.caller.uid;
    made.attributes.gid = node.caller.gid;
    made.attributes.device_major = node.device_major;
    made.attributes.device_minor = node.device_minor;
    made.attributes.accessed = made.attributes.modified = made.attributes.changed = system_clock().now();
    made.data = node.symlink_target;
    made.attributes.size_bytes = made.data.size();
    return number;
  }

  void add_entry(Node& directory, std::string_view name, std::uint64_t number) TARNFS_REQUIRES(mutex_) {
    directory.entries[std::string(name)] = Entry{number, next_cookie_++};
    if (S_ISDIR(nodes_.at(number).attributes.mode)) ++directory.attributes.link_count;
  }

  Status remove_entry(Node& directory, const std::string& name) TARNFS_REQUIRES(mutex_) {
    const auto found = directory.entries.find(name);
    if (found == directory.entries.end()) return Error(ErrorCode::kNotFound);
    const std::uint64_t number = found->second.inode;
    directory.entries.erase(found);
    Node& node = nodes_.at(number);
    if (S_ISDIR(node.attributes.mode)) --directory.attributes.link_count;
    if (--node.attributes.link_count == 0 && node.lookups == 0) nodes_.erase(number);
    return {};
  }

  Attributes with_lookup(std::uint64_t number) TARNFS_REQUIRES(mutex_) {
    Node& node = nodes_.at(number);
    ++node.lookups;
    return node.attributes;
  }

  mutable Mutex mutex_;
  Condition forgotten_;
  Condition held_changed_;
  std::atomic<bool> put_off_{false};
  std::atomic<bool> kernel_keeps_times_{false};
  std::atomic<unsigned> put_off_count_{0};
  bool held_ TARNFS_GUARDED_BY(mutex_) = false;
  unsigned waiting_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::map<std::uint64_t, Node> nodes_ TARNFS_GUARDED_BY(mutex_);
  std::uint64_t next_inode_ TARNFS_GUARDED_BY(mutex_) = 16;
  std::uint64_t next_cookie_ TARNFS_GUARDED_BY(mutex_) = 3;
  std::uint64_t fsync_count_ TARNFS_GUARDED_BY(mutex_) = 0;
  bool fsyncs_fail_ TARNFS_GUARDED_BY(mutex_) = false;
  std::uint64_t xattr_requests_ TARNFS_GUARDED_BY(mutex_) = 0;
};

}  // namespace tarnfs
