#include "common/staging_place.h"

#include <array>
#include <cstring>
#include <fstream>

#include "common/format.h"

namespace tarnfs {

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
