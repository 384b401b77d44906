// Every inode of the inode file, and the blocks of all but directories.
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "fs/check/check_state.h"

namespace tarnfs::check {
namespace {

// Data that is verified but not understood: files, symlinks, extended attributes.
class DataVisitor final : public TreeVisitor {
 public:
  DataVisitor(BlockReader& reader, TreeOwner owner) : reader_(reader), owner_(owner) {}
  void on_block(std::uint64_t index, const BlockPointer& pointer) override {
    reader_.verify_later(pointer, owner_, index);
  }
  void on_lost(std::uint64_t, std::uint64_t) override {}

 private:
  BlockReader& reader_;
  const TreeOwner owner_;
};

class InodeFileVisitor final : public TreeVisitor {
 public:
  explicit InodeFileVisitor(CheckState& state) : state_(state) {}
  void on_block(std::uint64_t index, const BlockPointer& pointer) override;
  void on_lost(std::uint64_t first, std::uint64_t count) override {
    if (first == 0) state_.shares.add_lost(0, share_pages_of(state_.size_blocks));
    state_.lost_inodes.add(first * kInodesPerBlock, count * kInodesPerBlock);
    state_.trees_complete = false;
    state_.names_complete = false;
  }
  void finish();

 private:
  void check_inode(std::uint64_t number, const InodeRecord& record, Cp birth_max);
  void add_to_table(std::uint64_t number, const InodeRecord& record);
  void walk_tree(std::uint64_t number, const InodeRecord& record, Cp birth_max);

  CheckState& state_;
  std::uint64_t highest_ = 0;
  std::uint64_t counted_inodes_ = 0;    // as RootBlock::inode_count counts
  std::uint64_t protected_inodes_ = 0;  // as RootBlock::protected_inodes counts
  std::uint64_t reserve_blocks_ = 0;    // as RootBlock::reserve_blocks counts
  bool root_directory_found_ = false;
};

void InodeFileVisitor::on_block(std::uint64_t index, const BlockPointer& pointer) {
  const TreeOwner owner{TreeOwner::kInodeFile};
  const PageRef page = state_.reader.read_verified(pointer, owner, fmt::format("block {}", index));
  if (!page) return on_lost(index, 1);
  bool empty = true;
  bool directories = false;
  for (std::size_t i = 0; i < kInodesPerBlock; ++i) {
    InodeRecord record;
    std::memcpy(static_cast<void*>(&record), page.data() + i * sizeof record, sizeof record);
    if (record.mode == 0) continue;
    empty = false;
    directories = directories || S_ISDIR(record.mode);
    check_inode(index * kInodesPerBlock + i, record, Cp{pointer.birth_cp});
  }
  if (directories) state_.directory_blocks.push_back({index, pointer.address, pointer.birth_cp});
  if (empty) {
    state_.log.error(ProblemKind::kTreeShape, std::nullopt, Address{pointer.address},
                     fmt::format("block {} of the inode file has no inode in use but is no hole", index));
  }
}

void InodeFileVisitor::check_inode(std::uint64_t number, const InodeRecord& record, Cp birth_max) {
  ++state_.report.counters.inodes;
  highest_ = std::max(highest_, number);
  if (record.number != number) {
    state_.log.error(ProblemKind::kInodeNumber, InodeNumber{number}, std::nullopt,
                     fmt::format("inode {} says that its number is {}", number, record.number));
  }
  if (number == 0) {
    state_.log.error(ProblemKind::kInodeNumber, InodeNumber{0}, std::nullopt, "inode 0 is in use, which none may be");
  }
  check_inode_fields(state_, number, record);
  add_to_table(number, record);
  if (!S_ISDIR(record.mode)) walk_tree(number, record, birth_max);
}

void InodeFileVisitor::add_to_table(std::uint64_t number, const InodeRecord& record) {
  CheckCounters& counters = state_.report.counters;
  const bool attributes = (record.flags & kInodeFlagAttributes) != 0;
  std::uint8_t state = kTypeUnknown;
  switch (record.mode & S_IFMT) {
    case S_IFREG:
      ++(attributes ? counters.attribute_inodes : counters.regular_files);
      break;
    case S_IFDIR:
      ++counters.directories;
      break;
    case S_IFLNK:
      ++counters.symlinks;
      break;
    default:
      ++counters.special_files;
  }
  if (const std::uint32_t type = (record.mode & S_IFMT) >> 12; type != 0) state = static_cast<std::uint8_t>(type);
  if (attributes) {
    state |= kIsAttributes;
    state_.attribute_inodes.push_back({number, record.parent});
  }
  if (record.xattr_inode != 0) state_.attribute_claims.push_back({record.xattr_inode, number});
  state_.inodes.add(number, record.link_count, state, record.parent);
  if (!attributes && (number >= kFirstFreeInode.value || number == kRootDirectory.value)) ++counted_inodes_;
  if ((record.flags & kProtectingFlags) != 0) ++protected_inodes_;
  reserve_blocks_ += reserve_of(record);
  root_directory_found_ = root_directory_found_ || (number == kRootDirectory.value && S_ISDIR(record.mode));
}

void InodeFileVisitor::walk_tree(std::uint64_t number, const InodeRecord& record, Cp birth_max) {
  if (number == kOrphanFile.value) return check_orphan_file(state_, record, birth_max);
  if (number == kShareFile.value) return check_share_map(state_, record, birth_max);
  if (S_ISLNK(record.mode) && record.layout == kInodeInlineTarget) return;
  if (!S_ISREG(record.mode) && !S_ISLNK(record.mode)) {
    // No tree belongs here; if pointers stand here all the same, nobody knows what they lead to.
    for (const BlockPointer& pointer : record.pointers) state_.trees_complete &= pointer.is_hole();
    return;
  }
  DataVisitor visitor(state_.reader, TreeOwner{number});
  const bool is_file =
      S_ISREG(record.mode) && number >= kFirstFreeInode.value && (record.flags & kInodeFlagAttributes) == 0;
  const WalkedTree tree = state_.walker.walk(TreeOwner{number}, record, birth_max, visitor, is_file);
  state_.count(tree);
  const std::uint64_t size_blocks = record.size_bytes / kBlockSize + (record.size_bytes % kBlockSize != 0 ? 1 : 0);
  if (!S_ISREG(record.mode) && tree.end_index > size_blocks) {
    state_.log.error(ProblemKind::kTreeShape, InodeNumber{number}, std::nullopt,
                     fmt::format("symlink {} has blocks beyond its {} bytes", number, record.size_bytes));
  }
}

void InodeFileVisitor::finish() {
  const RootBlock& root = state_.root;
  if (highest_ >= root.next_inode && state_.report.counters.inodes > 0) {
    state_.log.error(
        ProblemKind::kNextInode, InodeNumber{highest_}, std::nullopt,
        fmt::format("inode {} is in use, but the root block says that all are below {}", highest_, root.next_inode));
  }
  if (state_.lost_inodes.empty() && counted_inodes_ != root.inode_count) {
    state_.log.error(
        ProblemKind::kInodeCount, std::nullopt, std::nullopt,
        fmt::format("{} inodes are in use, but the root block says {}", counted_inodes_, root.inode_count));
  }
  if (state_.lost_inodes.empty() && protected_inodes_ != root.protected_inodes) {
    state_.log.error(ProblemKind::kInodeCount, std::nullopt, std::nullopt,
                     fmt::format("{} inodes are immutable or append-only, but the root block says {}",
                                 protected_inodes_, root.protected_inodes));
  }
  if (state_.lost_inodes.empty() && reserve_blocks_ != root.reserve_blocks) {
    state_.log.error(
        ProblemKind::kReserve, std::nullopt, std::nullopt,
        fmt::format("{} blocks are kept for inodes, but the root block says {}", reserve_blocks_, root.reserve_blocks));
  }
  if (state_.lost_inodes.contains(kOrphanFile.value)) state_.orphans_complete = false;
  if (!root_directory_found_ && !state_.lost_inodes.contains(kRootDirectory.value)) {
    state_.log.error(ProblemKind::kInode, kRootDirectory, std::nullopt, "there is no root directory (inode 1)");
    state_.names_complete = false;
  }
}

// Collects the blocks of the orphan file.
class OrphanVisitor final : public TreeVisitor {
 public:
  OrphanVisitor(CheckState& state, std::uint64_t count) : state_(state), count_(count) {}
  void on_block(std::uint64_t index, const BlockPointer& pointer) override;
  void on_lost(std::uint64_t, std::uint64_t) override { complete_ = false; }
  std::uint64_t found() const { return found_; }
  bool complete() const { return complete_; }

 private:
  CheckState& state_;
  const std::uint64_t count_;
  std::uint64_t found_ = 0;
  bool complete_ = true;
};

void OrphanVisitor::on_block(std::uint64_t index, const BlockPointer& pointer) {
  const PageRef page =
      state_.reader.read_verified(pointer, TreeOwner{kOrphanFile.value}, fmt::format("data block {}", index));
  if (!page) return on_lost(index, 1);
  constexpr std::uint64_t kPerBlock = kBlockSize / sizeof(std::uint64_t);
  for (std::uint64_t i = 0; i < kPerBlock && index * kPerBlock + i < count_; ++i) {
    std::uint64_t number;
    std::memcpy(&number, page.data() + i * sizeof number, sizeof number);
    state_.orphans.push_back(number);
    ++found_;
  }
}

}  // namespace

void check_orphan_file(CheckState& state, const InodeRecord& record, Cp birth_max) {
  OrphanVisitor visitor(state, record.size_bytes / sizeof(std::uint64_t));
  const WalkedTree tree = state.walker.walk(TreeOwner{kOrphanFile.value}, record, birth_max, visitor);
  state.count(tree);
  state.orphans_complete = visitor.complete();
  const bool plain = record.mode == (S_IFREG | 0600U) && record.size_bytes % sizeof(std::uint64_t) == 0;
  if (!plain || (visitor.complete() && visitor.found() != record.size_bytes / sizeof(std::uint64_t))) {
    state.log.error(ProblemKind::kOrphan, kOrphanFile, std::nullopt,
                    fmt::format("the orphan file has mode {:o}, {} bytes and {} numbers", record.mode,
                                record.size_bytes, visitor.found()));
  }
}

namespace {

class ShareMapVisitor final : public TreeVisitor {
 public:
  ShareMapVisitor(CheckState& state, std::uint64_t page_count) : state_(state), page_count_(page_count) {}
  void on_block(std::uint64_t index, const BlockPointer& pointer) override;
  void on_lost(std::uint64_t first, std::uint64_t count) override { state_.shares.add_lost(first, count); }

 private:
  CheckState& state_;
  const std::uint64_t page_count_;
};

void ShareMapVisitor::on_block(std::uint64_t index, const BlockPointer& pointer) {
  const auto error = [&](std::string_view what) {
    state_.log.error(ProblemKind::kShareMap, kShareFile, Address{pointer.address},
                     fmt::format("page {} of the share map {}", index, what));
  };
  const PageRef page = state_.reader.read_verified(pointer, TreeOwner{kShareFile.value}, fmt::format("page {}", index));
  if (!page) return on_lost(index, 1);
  if (index >= page_count_) return error("is beyond its end");
  if (is_all_zero(page.bytes())) error("is zero but no hole");
  SharePage counts;
  std::memcpy(counts.data(), page.data(), kBlockSize);
  state_.shares.add_page(index, counts);
}

}  // namespace

void check_share_map(CheckState& state, const InodeRecord& record, Cp birth_max) {
  const std::uint64_t page_count = record.size_bytes / kBlockSize;
  ShareMapVisitor visitor(state, page_count);
  state.count(state.walker.walk(TreeOwner{kShareFile.value}, record, birth_max, visitor));
  const bool has_possible_size =
      record.size_bytes % kBlockSize == 0 && page_count > 0 && page_count <= share_pages_of(state.size_blocks);
  if (record.mode == (S_IFREG | 0600U) && has_possible_size) return;
  state.log.error(ProblemKind::kShareMap, kShareFile, std::nullopt,
                  fmt::format("the share map has mode {:o} and {} bytes", record.mode, record.size_bytes));
}

void check_shares(CheckState& state) {
  state.shares.finish(state.trees_complete);
}

void check_inodes(CheckState& state) {
  state.phase = "inodes";
  InodeFileVisitor visitor(state);
  const WalkedTree tree =
      state.walker.walk(TreeOwner{TreeOwner::kInodeFile}, state.root.inode_file, Cp{state.root.cp}, visitor);
  state.count(tree);
  visitor.finish();
  state.reader.finish();
}

}  // namespace tarnfs::check
