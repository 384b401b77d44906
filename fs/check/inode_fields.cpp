// The fields of one inode.
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/stat.h>

#include <algorithm>
#include <string_view>

#include "fs/check/check_state.h"

namespace tarnfs::check {
namespace {

constexpr std::uint32_t kKnownFlags =
    FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NOATIME_FL | FS_NODUMP_FL | kInodeFlagAttributes;
constexpr std::uint64_t kSymlinkTargetBytesMax = 4095;

bool known_type(std::uint32_t mode) {
  return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISCHR(mode) || S_ISBLK(mode) || S_ISFIFO(mode) ||
         S_ISSOCK(mode);
}

bool has_tree_fields(const InodeRecord& record) {
  return record.height != 0 || record.block_count != 0 || record.size_bytes != 0 ||
         std::any_of(record.pointers.begin(), record.pointers.end(),
                     [](const BlockPointer& pointer) { return !(pointer == BlockPointer{}); });
}

class FieldCheck {
 public:
  FieldCheck(CheckState& state, std::uint64_t number, const InodeRecord& record)
      : state_(state), number_(number), record_(record) {}

  void run() {
    if (!known_type(record_.mode) || (record_.mode & ~(S_IFMT | 07777U)) != 0) {
      return error(fmt::format("has the impossible mode {:o}", record_.mode));
    }
    check_type();
    if (record_.layout != 0 && !inline_target()) error(fmt::format("has the layout {}", record_.layout));
    if (S_ISLNK(record_.mode)) check_symlink();
    if (record_.size_bytes > kFileSizeMaxBytes) error(fmt::format("has {} bytes", record_.size_bytes));
    if (S_ISDIR(record_.mode) && record_.size_bytes % kBlockSize != 0) {
      error(fmt::format("is a directory of {} bytes", record_.size_bytes));
    }
    const bool is_file =
        S_ISREG(record_.mode) && number_ >= kFirstFreeInode.value && (record_.flags & kInodeFlagAttributes) == 0;
    if (!is_file && reserve_of(record_) != 0) error("has blocks kept for it, which is for regular files");
    check_times();
    check_attributes();
  }

 private:
  bool inline_target() const { return S_ISLNK(record_.mode) && record_.layout == kInodeInlineTarget; }

  void error(std::string_view what) {
    state_.log.error(ProblemKind::kInode, InodeNumber{number_}, std::nullopt,
                     fmt::format("inode {} {}", number_, what));
  }

  void check_type() {
    const bool device = S_ISCHR(record_.mode) || S_ISBLK(record_.mode);
    if (!device && record_.device != 0) error("is no device file but has a device number");
    const bool special = device || S_ISFIFO(record_.mode) || S_ISSOCK(record_.mode);
    if (special && has_tree_fields(record_)) error("is a special file but has blocks or a size");
    if (!S_ISDIR(record_.mode) && record_.entry_count != 0) error("is no directory but has a count of entries");
    if (number_ == kRootDirectory.value && !S_ISDIR(record_.mode)) error("is the root directory but no directory");
    if (number_ == kOrphanFile.value && !S_ISREG(record_.mode)) error("is the orphan file but no regular file");
    if (number_ == kShareFile.value && !S_ISREG(record_.mode)) error("is the share map but no regular file");
    if (number_ > kShareFile.value && number_ < kFirstFreeInode.value) {
      state_.log.warning(ProblemKind::kInode, InodeNumber{number_}, std::nullopt,
                         fmt::format("inode {} is in use but reserved for later versions", number_));
    }
  }

  void check_symlink() {
    const std::uint64_t limit = inline_target() ? kInlineSymlinkMaxBytes : kSymlinkTargetBytesMax;
    if (record_.size_bytes == 0 || record_.size_bytes > limit) {
      error(fmt::format("is a symlink with a target of {} bytes", record_.size_bytes));
    }
    if (inline_target() && (record_.block_count != 0 || record_.height != 0)) {
      error("has its symlink target in the inode but also blocks");
    }
  }

  void check_times() {
    const std::uint32_t most = std::max(
        {record_.atime_nanoseconds, record_.mtime_nanoseconds, record_.ctime_nanoseconds, record_.btime_nanoseconds});
    if (most >= 1000000000U) error(fmt::format("has a time with {} nanoseconds", most));
    if ((record_.flags & ~kKnownFlags) != 0) {
      state_.log.warning(ProblemKind::kInode, InodeNumber{number_}, std::nullopt,
                         fmt::format("inode {} has unknown flags {:#x}", number_, record_.flags & ~kKnownFlags));
    }
  }

  void check_attributes() {
    if ((record_.flags & kInodeFlagAttributes) == 0) return;
    if (record_.mode != (S_IFREG | 0600U) || record_.xattr_inode != 0 || number_ < kFirstFreeInode.value) {
      state_.log.error(ProblemKind::kAttributes, InodeNumber{number_}, std::nullopt,
                       fmt::format("attribute inode {} has mode {:o} and attribute inode {}", number_, record_.mode,
                                   record_.xattr_inode));
    }
  }

  CheckState& state_;
  const std::uint64_t number_;
  const InodeRecord& record_;
};

}  // namespace

void check_inode_fields(CheckState& state, std::uint64_t number, const InodeRecord& record) {
  FieldCheck(state, number, record).run();
}

}  // namespace tarnfs::check
