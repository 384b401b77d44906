#include "common/staging_place.h"

#include <cstring>
#include <fstream>

#include "common/checksum.h"

namespace tarnfs {
namespace {

std::uint64_t seal_of(const PublishMark& mark) {
  return checksum_of(std::as_bytes(std::span(&mark, 1)).first(offsetof(PublishMark, checksum)));
}

}  // namespace

PublishMark mark_of(PublishMark::Kind kind, const RootBlock& root, const StateName& base) {
  PublishMark mark;
  mark.kind = kind;
  mark.volume = root.volume;
  mark.cp = root.cp;
  mark.root_checksum = root.checksum;
  mark.base_cp = base.cp.value;
  mark.base_checksum = base.root_checksum;
  mark.checksum = seal_of(mark);
  return mark;
}

// At the front, which stays where it is when the volume grows: there are the slots of odd cps.
Address place_of(const PublishMark& mark) {
  const auto is_taken = [&](std::uint64_t cp) {
    const auto is_slot_of = [&](std::uint64_t root_cp) { return root_cp % kRootSlots == cp % kRootSlots; };
    return is_slot_of(mark.cp) || is_slot_of(mark.base_cp);
  };
  std::uint64_t to_skip = mark.kind;
  for (std::uint64_t cp = mark.cp | 1;; cp += 2) {
    if (is_taken(cp)) continue;
    if (to_skip == 0) return root_slot_of(Cp{cp}, kVolumeBlocksMin);
    --to_skip;
  }
}

bool is_publish_mark(std::span<const std::byte, kBlockSize> block, const std::array<std::uint8_t, 16>& volume) {
  PublishMark mark;
  std::memcpy(static_cast<void*>(&mark), block.data(), kBlockSize);
  return mark.magic == kPublishMarkMagic && mark.volume == volume && mark.checksum == seal_of(mark);
}

Result<std::optional<RootBlock>> read_root_slot(BlockDevice& device, const Superblock& superblock, Address slot) {
  PageRef page = PageRef::uninitialised();
  TARNFS_TRY(device.read(slot, page.mutable_bytes()));
  if (is_all_zero(page.bytes()) || is_publish_mark(page.bytes(), superblock.volume)) return std::optional<RootBlock>();
  TARNFS_ASSIGN(const RootBlock root, check_root_block(page.bytes()));
  if (root.volume != superblock.volume) return std::optional<RootBlock>();
  if (root_slot_of(Cp{root.cp}, root.size_blocks) == slot) return std::optional(root);
  return Error(ErrorCode::kCorrupt, "the root of cp " + std::to_string(root.cp) + " does not belong there");
}

std::string staging_path_of(const std::string& image) {
  return image + ".staging";
}

Status check_no_publish_is_open(BlockDevice& image, const Superblock& superblock) {
  const auto newest = read_newest_root(image, superblock);
  if (!newest.ok() && newest.error().code() != ErrorCode::kCorrupt) return {};  // who opens it is told
  const std::uint64_t newest_cp = newest.ok() ? newest->cp : 0;
  PageRef page = PageRef::uninitialised();
  for (std::uint64_t slot = 0; slot < kRootSlotsPerEnd; ++slot) {
    if (!image.read(Address{1 + slot}, page.mutable_bytes()).ok()) continue;  // as a damaged root is passed over
    if (!is_publish_mark(page.bytes(), superblock.volume)) continue;
    PublishMark mark;
    std::memcpy(static_cast<void*>(&mark), page.data(), kBlockSize);
    if (mark.kind != PublishMark::kDecided || mark.cp <= newest_cp) continue;
    return Error(ErrorCode::kRefused, image.name() + " was cut off while it took over cp " + std::to_string(mark.cp) +
                                          " as a mirror, and its staging file with the rest of that is missing; put " +
                                          "it back and start tarn-mirrord, or remove the image to copy it anew");
  }
  return {};
}

Status check_nothing_is_staged(BlockDevice& image, const std::string& path) {
  const auto superblock = read_superblock(image);
  if (!superblock.ok()) return {};
  std::ifstream file(staging_path_of(path), std::ios::binary);
  std::array<char, kStagingVolumeOffset + sizeof(VolumeId::bytes)> head{};
  std::uint64_t magic = 0;
  if (file.read(head.data(), head.size())) std::memcpy(&magic, head.data(), sizeof magic);
  // One of another volume is of what was here before.
  const bool is_of_this_volume =
      std::memcmp(head.data() + kStagingVolumeOffset, superblock->volume.data(), superblock->volume.size()) == 0;
  if (magic != kStagingMagic || !is_of_this_volume) return check_no_publish_is_open(image, *superblock);
  return Error(ErrorCode::kRefused,
               path + " is a mirror that was stopped while it took over a new state, part of which is in " +
                   staging_path_of(path) + "; start tarn-mirrord on it once, which finishes that");
}

}  // namespace tarnfs
