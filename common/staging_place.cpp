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

PublishMark mark_of(const RootBlock& root, Cp base, std::uint64_t base_checksum) {
  PublishMark mark;
  mark.volume = root.volume;
  mark.cp = root.cp;
  mark.root_checksum = root.checksum;
  mark.base_cp = base.value;
  mark.base_checksum = base_checksum;
  mark.checksum = seal_of(mark);
  return mark;
}

Address place_of_mark(const RootBlock& root, Cp base) {
  const Address next = root_slot_of(Cp{root.cp + 1}, root.size_blocks);
  if (next != root_slot_of(base, root.size_blocks)) return next;
  return root_slot_of(Cp{root.cp + 2}, root.size_blocks);
}

bool is_publish_mark(std::span<const std::byte, kBlockSize> block, const std::array<std::uint8_t, 16>& volume) {
  PublishMark mark;
  std::memcpy(static_cast<void*>(&mark), block.data(), kBlockSize);
  return mark.magic == kPublishMarkMagic && mark.volume == volume && mark.checksum == seal_of(mark);
}

std::string staging_path_of(const std::string& image) {
  return image + ".staging";
}

Status check_nothing_is_staged(BlockDevice& image, const std::string& path) {
  std::ifstream file(staging_path_of(path), std::ios::binary);
  std::array<char, kStagingVolumeOffset + sizeof(VolumeId::bytes)> head{};
  if (!file.read(head.data(), head.size())) return {};
  std::uint64_t magic = 0;
  std::memcpy(&magic, head.data(), sizeof magic);
  const auto superblock = read_superblock(image);
  if (magic != kStagingMagic || !superblock.ok()) return {};
  if (std::memcmp(head.data() + kStagingVolumeOffset, superblock->volume.data(), superblock->volume.size()) != 0) {
    return {};  // of what was here before
  }
  return Error(ErrorCode::kRefused,
               path + " is a mirror that was stopped while it took over a new state, part of which is in " +
                   staging_path_of(path) + "; start tarn-mirrord on it once, which finishes that");
}

}  // namespace tarnfs
