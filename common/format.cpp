#include "common/format.h"

#include <algorithm>
#include <array>
#include <bitset>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "common/checksum.h"
#include "common/log.h"

namespace tarnfs {
namespace {

template <class T>
std::span<const std::byte> bytes_before_checksum(const T& block) {
  return std::as_bytes(std::span<const T, 1>(&block, 1)).first(offsetof(T, checksum));
}

template <class T>
T decode(std::span<const std::byte, kBlockSize> block) {
  T decoded;
  std::memcpy(static_cast<void*>(&decoded), block.data(), kBlockSize);
  return decoded;
}

Status check_version(std::uint32_t version) {
  if (version >= kFormatVersionOldest && version <= kFormatVersion) return {};
  return Error(ErrorCode::kIncompatible, "the volume has format version " + std::to_string(version) +
                                             ", this program knows versions " + std::to_string(kFormatVersionOldest) +
                                             " to " + std::to_string(kFormatVersion) +
                                             "; use a matching release of tarnfs");
}

bool is_journal_possible(const Superblock& superblock) {
  if (superblock.journal_blocks == 0) return true;
  const std::uint64_t end = end_of_data_blocks(superblock.size_blocks);
  return superblock.journal_blocks >= kJournalBlocksMin && superblock.journal_blocks <= kJournalBlocksMax &&
         superblock.journal_first >= kFirstDataBlock && superblock.journal_first <= end &&
         superblock.journal_blocks <= end - superblock.journal_first;
}

}  // namespace

std::string_view label_of(const Superblock& superblock) {
  const auto end = std::find(superblock.label.begin(), superblock.label.end(), '\0');
  return {superblock.label.data(), static_cast<std::size_t>(end - superblock.label.begin())};
}

VolumeId volume_of(const Superblock& superblock) {
  VolumeId id;
  id.bytes = superblock.volume;
  return id;
}

StateName state_of(const RootBlock& root) {
  StateName name;
  name.volume.bytes = root.volume;
  name.epoch.bytes = root.epoch;
  name.cp = Cp{root.cp};
  name.root_checksum = root.checksum;
  return name;
}

void seal(Superblock& superblock) {
  superblock.checksum = checksum_of(bytes_before_checksum(superblock));
}

void seal(RootBlock& root) {
  root.checksum = checksum_of(bytes_before_checksum(root));
}

Result<Superblock> check_superblock(std::span<const std::byte, kBlockSize> block) {
  const auto superblock = decode<Superblock>(block);
  if (superblock.magic != kSuperblockMagic) return Error(ErrorCode::kInvalid, "no tarnfs volume");
  // The version comes before the checksum: a newer format may keep its checksum elsewhere.
  TARNFS_TRY(check_version(superblock.format_version));
  if (superblock.checksum != checksum_of(bytes_before_checksum(superblock))) {
    return Error(ErrorCode::kCorrupt, "the superblock has a wrong checksum");
  }
  if (superblock.block_size_bytes != kBlockSize || superblock.size_blocks < kVolumeBlocksMin ||
      superblock.size_blocks > kVolumeBlocksMax) {
    return Error(ErrorCode::kCorrupt, "the superblock has impossible sizes");
  }
  if (!is_journal_possible(superblock)) return Error(ErrorCode::kCorrupt, "the superblock has an impossible journal");
  return superblock;
}

Result<RootBlock> check_root_block(std::span<const std::byte, kBlockSize> block) {
  const auto root = decode<RootBlock>(block);
  if (root.magic != kRootMagic) return Error(ErrorCode::kCorrupt, "no root block");
  TARNFS_TRY(check_version(root.format_version));
  if (root.checksum != checksum_of(bytes_before_checksum(root))) {
    return Error(ErrorCode::kCorrupt, "a root block has a wrong checksum");
  }
  if (root.cp == 0 || root.history_count > kHistoryMax || root.inode_file.height > kTreeHeightMax ||
      root.free_map.height > kTreeHeightMax || root.size_blocks < kVolumeBlocksMin ||
      root.size_blocks > kVolumeBlocksMax || root.used_blocks > root.size_blocks) {
    return Error(ErrorCode::kCorrupt, "a root block has impossible fields");
  }
  return root;
}

Status check_pointer(const BlockPointer& pointer, std::uint64_t size_blocks, Cp newest) {
  if (pointer.is_hole()) return {};
  if (!is_data_address(Address{pointer.address}, size_blocks) || pointer.flags != 0 || pointer.birth_cp == 0 ||
      pointer.birth_cp > newest.value) {
    return Error(ErrorCode::kCorrupt, "a block pointer has impossible fields (address " +
                                          std::to_string(pointer.address) + ", cp " + std::to_string(pointer.birth_cp) +
                                          ")");
  }
  return {};
}

namespace {

Result<Superblock> read_superblock_at(BlockDevice& device, Address address) {
  PageRef page = PageRef::uninitialised();
  TARNFS_TRY(device.read(address, page.mutable_bytes()));
  return check_superblock(page.bytes());
}

// A root belongs where its own size says.
Result<RootBlock> read_root_at(BlockDevice& device, Address slot) {
  PageRef page = PageRef::uninitialised();
  TARNFS_TRY(device.read(slot, page.mutable_bytes()));
  TARNFS_ASSIGN(const RootBlock root, check_root_block(page.bytes()));
  if (root_slot_of(Cp{root.cp}, root.size_blocks) == slot) return root;
  return Error(ErrorCode::kCorrupt, "the root of cp " + std::to_string(root.cp) + " does not belong there");
}

// A copy of the superblock of `volume` at the end of `size_blocks`, a number that nobody vouches for.
Result<Superblock> read_copy_behind(BlockDevice& device, const std::array<std::uint8_t, 16>& volume,
                                    std::uint64_t size_blocks) {
  if (size_blocks < kVolumeBlocksMin || size_blocks > device.size_blocks()) return Error(ErrorCode::kCorrupt);
  TARNFS_ASSIGN(const Superblock copy, read_superblock_at(device, Address{size_blocks - 1}));
  if (copy.volume != volume || copy.size_blocks != size_blocks) return Error(ErrorCode::kCorrupt);
  return copy;
}

// The copy of the superblock whose front, `damaged`, has a wrong checksum. The image may be longer than the volume, so
// what is left of the front says where it is, which is right also when it is torn, or else the newest root at the
// front. Without them it can only be at the end of the image.
Result<Superblock> read_superblock_copy(BlockDevice& device, const Superblock& damaged) {
  if (damaged.magic == kSuperblockMagic) {
    auto copy = read_copy_behind(device, damaged.volume, damaged.size_blocks);
    if (copy.ok()) return copy;
  }
  std::optional<RootBlock> newest;
  for (std::uint64_t block = 1; block <= kRootSlotsPerEnd; ++block) {
    const auto root = read_root_at(device, Address{block});
    if (root.ok() && root->size_blocks <= device.size_blocks() && (!newest || root->cp > newest->cp)) newest = *root;
  }
  if (newest) {
    auto copy = read_copy_behind(device, newest->volume, newest->size_blocks);
    if (copy.ok()) return copy;
  }
  return read_superblock_at(device, Address{device.size_blocks() - 1});
}

Error truncated(const BlockDevice& device, std::uint64_t size_blocks) {
  return Error(ErrorCode::kCorrupt, device.name() + " is truncated: the volume has " + std::to_string(size_blocks) +
                                        " blocks, the image only " + std::to_string(device.size_blocks()) +
                                        "; restore the whole image");
}

}  // namespace

Result<Superblock> read_superblock(BlockDevice& device) {
  if (device.size_blocks() < kVolumeBlocksMin) {
    return Error(ErrorCode::kInvalid, device.name() + " is too small to hold a tarnfs volume (" +
                                          std::to_string(device.size_blocks() * kBlockSize) + " bytes)");
  }
  PageRef page = PageRef::uninitialised();
  TARNFS_TRY(device.read(Address{0}, page.mutable_bytes()));
  auto front = check_superblock(page.bytes());
  if (!front.ok() && front.error().code() != ErrorCode::kIncompatible) {
    if (auto copy = read_superblock_copy(device, decode<Superblock>(page.bytes())); copy.ok()) front = std::move(copy);
  }
  if (!front.ok()) return front.error().in(device.name());
  if (front->size_blocks > device.size_blocks()) return truncated(device, front->size_blocks);
  return front;
}

Status write_superblock(BlockDevice& device, const Superblock& superblock) {
  const PageRef page = page_of(superblock);
  TARNFS_TRY(device.write(Address{0}, std::span(&page, 1)));
  return device.write(Address{superblock.size_blocks - 1}, std::span(&page, 1));
}

Status renew_superblock(BlockDevice& device, const Superblock& superblock) {
  for (const Address address : {Address{0}, Address{superblock.size_blocks - 1}}) {
    const auto there = read_superblock_at(device, address);
    const bool is_damaged =
        there.ok() ? there->checksum != superblock.checksum : there.error().code() == ErrorCode::kCorrupt;
    if (!is_damaged) continue;
    log_warning(device.name() + ": the superblock in block " + std::to_string(address.value) +
                " is damaged; it is written again from its copy");
    const PageRef page = page_of(superblock);
    TARNFS_TRY(device.write(address, std::span(&page, 1)));
  }
  return {};
}

Superblock grown(const Superblock& superblock, std::uint64_t size_blocks) {
  Superblock larger = superblock;
  larger.size_blocks = size_blocks;
  seal(larger);
  return larger;
}

Status prepare_grown_end(BlockDevice& device, const Superblock& larger) {
  TARNFS_TRY(device.grow(larger.size_blocks));
  const std::vector<PageRef> slots(kRootSlotsPerEnd, PageRef::zeroed());
  TARNFS_TRY(device.write(Address{end_of_data_blocks(larger.size_blocks)}, slots));
  const PageRef copy = page_of(larger);
  TARNFS_TRY(device.write(Address{larger.size_blocks - 1}, std::span(&copy, 1)));
  return device.flush();
}

Status finish_growth(BlockDevice& device, const Superblock& larger, std::uint64_t old_size_blocks) {
  const PageRef front = page_of(larger);
  TARNFS_TRY(device.write(Address{0}, std::span(&front, 1)));
  TARNFS_TRY(device.flush());
  const PageRef nothing = PageRef::zeroed();
  return device.write(Address{old_size_blocks - 1}, std::span(&nothing, 1));
}

Result<RootBlock> read_newest_root(BlockDevice& device, const Superblock& superblock) {
  std::optional<RootBlock> newest;
  std::optional<Error> incompatible;
  std::bitset<kRootSlots> unreadable;
  for (std::uint64_t slot = 0; slot < kRootSlots; ++slot) {
    const auto root = read_root_at(device, root_slot_of(Cp{slot}, superblock.size_blocks));
    if (!root.ok()) {
      // An unreadable slot is like a damaged one, as long as another holds the newest root.
      const ErrorCode code = root.error().code();
      unreadable[slot] = code != ErrorCode::kCorrupt && code != ErrorCode::kIncompatible;
      if (code == ErrorCode::kIncompatible) incompatible = root.error();
      continue;
    }
    if (root->volume == superblock.volume && (!newest || root->cp > newest->cp)) newest = *root;
  }
  if (!newest && incompatible) return incompatible->in(device.name());
  if (!newest)
    return Error(ErrorCode::kCorrupt, device.name() + " has no valid root block; restore it from its mirror");
  // What follows the newest root that could be read may be a newer one: to go back to the older would lose what was
  // acknowledged since, and write over it.
  const std::uint64_t next = (newest->cp + 1) % kRootSlots;
  if (unreadable[next]) {
    return Error(ErrorCode::kIo,
                 device.name() + ": block " + std::to_string(root_slot_of(Cp{next}, superblock.size_blocks).value) +
                     " cannot be read, and may hold the newest state; try again, or restore it from its mirror");
  }
  if (newest->size_blocks > device.size_blocks()) return truncated(device, newest->size_blocks);
  if (newest->size_blocks < superblock.size_blocks) {
    return Error(ErrorCode::kCorrupt, device.name() + ": the newest root block is of a smaller volume than the " +
                                          "superblock; run fsck.tarnfs");
  }
  return *newest;
}

Result<RootBlock> read_root(BlockDevice& device, const Superblock& superblock, Cp cp) {
  TARNFS_ASSIGN(const RootBlock root, read_root_at(device, root_slot_of(cp, superblock.size_blocks)));
  if (root.volume == superblock.volume && root.cp == cp.value) return root;
  return Error(ErrorCode::kCorrupt, "the root of cp " + std::to_string(cp.value) + " is not in the ring");
}

Status publish_root(BlockDevice& device, const RootBlock& root) {
#ifndef TARNFS_PLANT_EARLY_ROOT  // a test plants this bug: the root before its blocks
  TARNFS_TRY(device.flush());
#endif
  const PageRef page = page_of(root);
  TARNFS_TRY(device.write(root_slot_of(Cp{root.cp}, root.size_blocks), std::span(&page, 1)));
  return device.flush();
}

Result<PageRef> read_block(BlockDevice& device, const BlockPointer& pointer) {
  TARNFS_ASSERT(!pointer.is_hole());
  PageRef page = PageRef::uninitialised();
  TARNFS_TRY(device.read(Address{pointer.address}, page.mutable_bytes()));
  if (checksum_of(page.bytes()) == pointer.checksum) return page;
  for (std::size_t i = 0; device.read_other_copy(Address{pointer.address}, i, page.mutable_bytes()).ok(); ++i) {
    if (checksum_of(page.bytes()) == pointer.checksum) return page;
  }
  return Error(ErrorCode::kCorrupt,
               device.name() + ": block " + std::to_string(pointer.address) + " has a wrong checksum; run fsck.tarnfs");
}

}  // namespace tarnfs
