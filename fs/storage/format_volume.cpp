#include "fs/storage/format_volume.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/checksum.h"

namespace tarnfs {
namespace {

constexpr std::uint64_t kBitsPerPage = kBlockSize * 8;

// Puts the blocks of an empty volume at the start of the data area, one after another.
class FirstBlocks {
 public:
  FirstBlocks(BlockDevice& device, Cp cp, std::uint64_t first_block) : device_(device), cp_(cp), next_(first_block) {}

  Result<BlockPointer> write(const PageRef& page) {
    BlockPointer pointer;
    pointer.address = next_++;
    pointer.birth_cp = cp_.value;
    pointer.checksum = checksum_of(page.bytes());
    TARNFS_TRY(device_.write(Address{pointer.address}, std::span(&page, 1)));
    return pointer;
  }
  std::uint64_t next() const { return next_; }

 private:
  BlockDevice& device_;
  const Cp cp_;
  std::uint64_t next_;
};

InodeRecord root_directory(const FormatOptions& options, Timestamp now) {
  InodeRecord record;
  record.number = kRootDirectory.value;
  record.parent = kRootDirectory.value;
  record.mode = S_IFDIR | 0755;
  record.link_count = 2;
  record.uid = options.root_uid;
  record.gid = options.root_gid;
  record.atime_seconds = record.mtime_seconds = record.ctime_seconds = record.btime_seconds = now.seconds;
  record.atime_nanoseconds = record.mtime_nanoseconds = now.nanoseconds;
  record.ctime_nanoseconds = record.btime_nanoseconds = now.nanoseconds;
  return record;
}

unsigned map_height(std::uint64_t size_blocks) {
  const std::uint64_t pages = (size_blocks + kBitsPerPage - 1) / kBitsPerPage;
  unsigned height = 0;
  while ((kPointersPerInode << (kNodeShift * height)) < pages) ++height;
  return height;
}

// The free map of a volume whose only blocks are the journal, the inode block and the map's own.
Status write_free_map(FirstBlocks& blocks, RootBlock& root) {
  const unsigned height = map_height(root.size_blocks);
  root.used_blocks = (blocks.next() - kFirstDataBlock) + 1 + height;
  PageRef page = PageRef::zeroed();
  for (std::uint64_t bit = kFirstDataBlock; bit < kFirstDataBlock + root.used_blocks; ++bit) {
    page.mutable_bytes()[bit / 8] |= static_cast<std::byte>(1U << (bit % 8));
  }
  TARNFS_ASSIGN(BlockPointer pointer, blocks.write(page));
  for (unsigned level = 1; level <= height; ++level) {
    TreeNode node{};
    node[0] = pointer;
    TARNFS_ASSIGN(pointer, blocks.write(page_of(node)));
  }
  root.free_map.mode = S_IFREG | 0600;
  root.free_map.link_count = 1;
  root.free_map.height = static_cast<std::uint8_t>(height);
  root.free_map.block_count = 1 + height;
  root.free_map.size_bytes = (root.size_blocks + kBitsPerPage - 1) / kBitsPerPage * kBlockSize;
  root.free_map.pointers[0] = pointer;
  return {};
}

// The journal gets its storage now, as blocks of zeros: a commit then changes nothing in the file system below but
// their content, and cannot fail for want of space.
Status write_empty_journal(BlockDevice& device, const Superblock& superblock) {
  constexpr std::uint64_t kBlocksAtOnce = 256;
  const std::vector<PageRef> zeros(kBlocksAtOnce, PageRef::zeroed());
  for (std::uint64_t done = 0; done < superblock.journal_blocks; done += kBlocksAtOnce) {
    const auto count = std::min(kBlocksAtOnce, superblock.journal_blocks - done);
    TARNFS_TRY(device.write(Address{superblock.journal_first + done}, std::span(zeros).first(count)));
  }
  return {};
}

Result<std::uint64_t> journal_blocks_for(const FormatOptions& options, std::uint64_t size_blocks) {
  const std::uint64_t blocks =
      options.journal_blocks.value_or(std::clamp(size_blocks / 16, kJournalBlocksMin, kJournalBlocksMax));
  if (blocks == 0 || (blocks >= kJournalBlocksMin && blocks <= std::min(kJournalBlocksMax, size_blocks / 4))) {
    return blocks;
  }
  return Error(ErrorCode::kInvalid, "a journal of " + std::to_string(blocks * kBlockSize) +
                                        " bytes is not possible; it takes 256 KiB to 64 MiB and at most a quarter of "
                                        "the volume, or 0 for none");
}

}  // namespace

Result<Superblock> format_volume(BlockDevice& device, const FormatOptions& options, Clock& clock) {
  const std::uint64_t size_blocks = device.size_blocks();
  if (size_blocks < kVolumeBlocksMin || size_blocks > kVolumeBlocksMax) {
    return Error(ErrorCode::kInvalid, device.name() + " has " + std::to_string(size_blocks * kBlockSize) +
                                          " bytes; a volume needs at least 4 MiB and at most 4 PiB");
  }
  Superblock superblock;
  if (options.label.size() >= superblock.label.size()) {
    return Error(ErrorCode::kInvalid, "the label is longer than 63 bytes");
  }
  const Timestamp now = clock.now();
  superblock.size_blocks = size_blocks;
  superblock.volume = options.volume.is_zero() ? clock.random_id().bytes : options.volume.bytes;
  std::copy(options.label.begin(), options.label.end(), superblock.label.begin());
  superblock.created_seconds = now.seconds;
  superblock.name_hash_seed = clock.random();
  superblock.journal_first = kFirstDataBlock;
  TARNFS_ASSIGN(superblock.journal_blocks, journal_blocks_for(options, size_blocks));
  seal(superblock);

  // Roots of an older volume must not win: the ring is cleared first.
  const PageRef empty = PageRef::zeroed();
  for (std::uint64_t slot = 0; slot < kRootSlots; ++slot) {
    TARNFS_TRY(device.write(root_slot_of(Cp{slot}, size_blocks), std::span(&empty, 1)));
  }
  TARNFS_TRY(write_empty_journal(device, superblock));
  TARNFS_TRY(device.flush());

  RootBlock root;
  root.volume = superblock.volume;
  root.epoch = clock.random_id().bytes;
  root.cp = 1;
  root.time_seconds = now.seconds;
  root.time_nanoseconds = now.nanoseconds;
  root.size_blocks = size_blocks;
  root.inode_count = 1;
  root.next_inode = kFirstFreeInode.value;
  FirstBlocks blocks(device, Cp{root.cp}, superblock.journal_first + superblock.journal_blocks);
  InodeBlock inodes{};
  inodes[kRootDirectory.value] = root_directory(options, now);
  root.inode_file.mode = S_IFREG | 0600;
  root.inode_file.link_count = 1;
  root.inode_file.size_bytes = kBlockSize;
  root.inode_file.block_count = 1;
  TARNFS_ASSIGN(root.inode_file.pointers[0], blocks.write(page_of(inodes)));
  TARNFS_TRY(write_free_map(blocks, root));
  root.allocation_cursor = blocks.next();
  seal(root);
  TARNFS_TRY(write_superblock(device, superblock));
  TARNFS_TRY(publish_root(device, root));
  return superblock;
}

}  // namespace tarnfs
