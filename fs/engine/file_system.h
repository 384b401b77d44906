// What a front end sees of a volume: the operations of a POSIX file system on inode numbers.
//
// Purpose: the FUSE front end, the tests and the mirror's read-only mount all work on this interface alone.
//
// Invariants:
//   1. Every reply that hands an inode to the kernel (the functions that say so) adds one to its lookup count;
//      forget() takes it away. An inode without links lives until its count is zero.
//   2. A function that returns an error has changed nothing and taken no lookup count.
//   3. Changes are in memory when a function returns. They are durable after fsync() or consistency_point().
//
// Thread safety: all functions may be called from any thread at once.
// Errors: those of result.h; a volume that stopped after a failed write answers kReadOnly to changes and kIo to fsync.
// Permissions are checked by the kernel (default_permissions); only immutable and append-only are checked here.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/format.h"
#include "common/result.h"
#include "common/types.h"

namespace tarnfs {

inline constexpr std::size_t kNameMaxBytes = 255;
inline constexpr std::size_t kSymlinkTargetMaxBytes = 4095;
inline constexpr std::size_t kXattrValueMaxBytes = 65536;

struct Attributes {
  InodeNumber inode;
  std::uint32_t mode = 0;  // type and permissions as in stat(2)
  std::uint32_t link_count = 0;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t device_major = 0;
  std::uint32_t device_minor = 0;
  std::uint32_t flags = 0;  // FS_*_FL
  std::uint64_t size_bytes = 0;
  std::uint64_t block_count = 0;  // of 4096 bytes, as far as they have addresses or are promised
  Timestamp accessed;
  Timestamp modified;
  Timestamp changed;
  Timestamp born;
};

// Who asks, for new inodes.
struct Caller {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t umask = 0;  // applied unless the directory has a default ACL
};

struct NewNode {
  std::uint32_t mode = 0;  // type and permissions
  std::uint32_t device_major = 0;
  std::uint32_t device_minor = 0;
  std::string_view symlink_target;  // symlinks only
  Caller caller;
};

// Fields that are absent stay as they are, but for the times of a change: they become now, unless ctime is given.
struct AttributeChanges {
  std::optional<std::uint32_t> mode;  // permissions only; the type stays
  std::optional<std::uint32_t> uid;
  std::optional<std::uint32_t> gid;
  std::optional<std::uint64_t> size_bytes;
  std::optional<Timestamp> accessed;
  std::optional<Timestamp> modified;
  std::optional<Timestamp> changed;
  std::optional<std::uint32_t> flags;
  bool sets_times = false;   // somebody chose the times, they are not those of a change
  bool writes_back = false;  // the kernel's times of what it has written, for which protection comes too late
};

struct WriteOptions {
  bool from_page_cache = false;   // the kernel's writeback: it owns size and times, ours stay untouched
  bool already_accepted = false;  // by write(2): on a full volume it takes what is kept for such
};

struct ReadOptions {
  bool notes_access = true;  // false: O_NOATIME
};

enum class RenameMode { kReplace, kNoReplace, kExchange };

struct FallocateOptions {
  bool keep_size = false;
  bool punch_hole = false;
  bool zero_range = false;
};

enum class SeekKind { kData, kHole };
enum class XattrMode { kCreateOrReplace, kCreate, kReplace };

struct DirectoryEntry {
  std::string_view name;  // valid during the callback
  InodeNumber inode;
  std::uint32_t type = 0;         // S_IFMT bits
  std::uint64_t next_cookie = 0;  // where to go on after this entry; below 2^63
};

struct FileSystemUsage {
  std::uint64_t size_blocks = 0;       // data area
  std::uint64_t free_blocks = 0;       // not used and not promised
  std::uint64_t available_blocks = 0;  // without the reserve
  std::uint64_t inode_count = 0;
};

// What of a volume is to be trimmed: runs of free blocks within `length_bytes` from `start_bytes` of the image on, as
// long as they are at least `run_min_bytes` there.
struct TrimRange {
  std::uint64_t start_bytes = 0;
  std::uint64_t length_bytes = ~std::uint64_t{0};  // as far as the volume goes
  std::uint64_t run_min_bytes = 0;
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;

  // Names. Each that returns Attributes adds one lookup.
  virtual Result<Attributes> lookup(InodeNumber parent, std::string_view name) = 0;  // "." and ".." too
  virtual Result<Attributes> make_node(InodeNumber parent, std::string_view name, const NewNode& node) = 0;
  virtual Result<Attributes> make_unnamed(InodeNumber parent, const NewNode& node) = 0;  // O_TMPFILE
  virtual Result<Attributes> link(InodeNumber inode, InodeNumber parent, std::string_view name) = 0;
  virtual Status unlink(InodeNumber parent, std::string_view name) = 0;
  virtual Status remove_directory(InodeNumber parent, std::string_view name) = 0;
  virtual Status rename(InodeNumber from, std::string_view from_name, InodeNumber to, std::string_view to_name,
                        RenameMode mode) = 0;
  // Renames, and makes `left` under the old name, as one change (RENAME_WHITEOUT). Not with kExchange.
  virtual Status rename_leaving(InodeNumber from, std::string_view from_name, InodeNumber to, std::string_view to_name,
                                RenameMode mode, const NewNode& left) = 0;
  virtual void forget(InodeNumber inode, std::uint64_t count) = 0;

  // Inodes.
  virtual Result<Attributes> attributes(InodeNumber inode) = 0;
  virtual Result<Attributes> change_attributes(InodeNumber inode, const AttributeChanges& changes) = 0;
  virtual Result<std::string> symlink_target(InodeNumber inode) = 0;
  virtual Result<std::string> xattr(InodeNumber inode, std::string_view name) = 0;  // kNoAttribute
  virtual Result<std::vector<std::string>> xattr_names(InodeNumber inode) = 0;
  virtual Status set_xattr(InodeNumber inode, std::string_view name, std::span<const std::byte> value,
                           XattrMode mode) = 0;
  virtual Status remove_xattr(InodeNumber inode, std::string_view name) = 0;

  // From now on the kernel keeps the times of regular files that somebody writes, allocates, copies to or truncates,
  // and sends them with change_attributes(): all these leave them as they are.
  virtual void leave_times_to_kernel() = 0;

  // Data. read() returns how many bytes it put into `out`, less than out.size() only at the end of the file; it is
  // fastest when `out` is 4096-aligned.
  virtual Result<std::size_t> read(InodeNumber inode, std::uint64_t offset_bytes, std::span<std::byte> out,
                                   ReadOptions options = {}) = 0;
  virtual Status write(InodeNumber inode, std::uint64_t offset_bytes, std::span<const std::byte> data,
                       WriteOptions options) = 0;
  virtual Status fallocate(InodeNumber inode, std::uint64_t offset_bytes, std::uint64_t length_bytes,
                           FallocateOptions options) = 0;
  virtual Result<std::uint64_t> seek(InodeNumber inode, std::uint64_t offset_bytes, SeekKind kind) = 0;
  // Returns the number of bytes copied, which may be fewer than there are; 0 only at the end of the source. Blocks are
  // shared where both offsets have the same place in a block. kInvalid when the ranges overlap in one file.
  virtual Result<std::uint64_t> copy_range(InodeNumber from, std::uint64_t from_offset_bytes, InodeNumber to,
                                           std::uint64_t to_offset_bytes, std::uint64_t length_bytes) = 0;

  // Directories. Calls `visit` for entries from `cookie` (0: the first, which is ".") until it returns false.
  // `visit` runs under no lock of the engine.
  virtual Status list(InodeNumber directory, std::uint64_t cookie,
                      const std::function<bool(const DirectoryEntry&)>& visit) = 0;
  // Attributes for a readdirplus entry: adds one lookup.
  virtual Result<Attributes> attributes_with_lookup(InodeNumber inode) = 0;

  // The volume. What was deleted counts as free, unless blocks are shared: then settle_usage() waits until it is.
  virtual FileSystemUsage usage() = 0;
  virtual Status settle_usage() { return {}; }
  // False when it was opened for reading alone: nothing that a reader sees changes until this is true.
  virtual bool takes_changes() const = 0;
  // Also true when it stopped.
  virtual bool read_only() const = 0;
  // Grows when the file system has changed by itself: when a mirror shows another state.
  virtual std::uint64_t view() const { return 0; }
  virtual Status fsync(InodeNumber inode, bool data_only) = 0;
  // Takes a consistency point of everything done before the call and waits until it is durable here.
  virtual Result<Cp> consistency_point() = 0;
  // Gives the storage of blocks that nothing uses or keeps back to the device below; returns how many bytes. Other
  // operations go on meanwhile. What is kept in reserve on a full volume is left out. kUnsupported when the device
  // cannot, kInvalid when the range begins behind the end or is shorter than a block.
  virtual Result<std::uint64_t> trim(const TrimRange& range) = 0;
  // Makes the volume larger, to `size_bytes` or (0) to all that its image has room for, and waits until that is durable
  // here; returns the size. A file becomes longer first. kInvalid for a size that cannot be, kUnsupported for a smaller
  // one, kNoSpace when the image cannot hold it, kBusy while another one runs.
  virtual Result<std::uint64_t> resize(std::uint64_t size_bytes) = 0;
  // Stops as a power cut would: what fsync promised stays, what was not durable is lost with the next open. When it
  // returns nothing is written any more, and every later call but usage() and forget() answers kIo.
  virtual Status shut_down() = 0;
};

}  // namespace tarnfs
