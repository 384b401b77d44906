// Where a mirror keeps blocks of a state that it is about to publish: beside its image. PROTOCOL.md has the layout.
//
// Purpose: from the moment when such a state is decided until its blocks have been copied, the image alone is a mixture
// of two states. Only tarn-mirrord knows how to finish that, so that others must not take the image for a volume.
//
// Thread safety: plain functions.
// Errors: kRefused for an image that is not finished.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "common/block_device.h"
#include "common/format.h"
#include "common/result.h"

namespace tarnfs {

inline constexpr std::uint64_t kStagingMagic = 0x47415453'4e524154ULL;  // "TARNSTAG" in bytes; begins a decided file
inline constexpr std::size_t kStagingVolumeOffset = 16;                 // the volume's id, behind the magic

inline constexpr std::uint64_t kPublishMarkMagic = 0x4b52414d'4e524154ULL;  // "TARNMARK" in bytes

// A block in the mirror's image, in a slot of the ring of roots at its front that neither of the two roots has. There
// are two of them: `prepared` says that everything of the new root but itself and what the staging file has is in the
// image, which shows the base. `decided` says that the staging file is committed: from now on the image may be a
// mixture without it, until it has the new root. PROTOCOL.md.
struct PublishMark {
  enum Kind : std::uint64_t { kPrepared = 0, kDecided = 1 };

  std::uint64_t magic = kPublishMarkMagic;
  std::uint64_t kind = kPrepared;
  std::array<std::uint8_t, 16> volume{};
  std::uint64_t cp = 0;
  std::uint64_t root_checksum = 0;
  std::uint64_t base_cp = 0;
  std::uint64_t base_checksum = 0;
  std::array<std::uint8_t, kBlockSize - 64 - 8> reserved2{};
  std::uint64_t checksum = 0;  // of the bytes before it
};
static_assert(sizeof(PublishMark) == kBlockSize && offsetof(PublishMark, checksum) == kBlockSize - 8);

// Sealed.
PublishMark mark_of(PublishMark::Kind kind, const RootBlock& root, const StateName& base);
Address place_of(const PublishMark& mark);
// Whether the block is a whole mark of this volume.
bool is_publish_mark(std::span<const std::byte, kBlockSize> block, const std::array<std::uint8_t, 16>& volume);
// The root in a slot of the ring, or why it is not valid. Nothing where the slot is empty or has a mark, which is of no
// use when its staging file is gone, or where an older volume in the same image left its root.
Result<std::optional<RootBlock>> read_root_slot(BlockDevice& device, const Superblock& superblock, Address slot);
// Whether no publish was cut off in the image behind its decision: for one that has no staging file.
Status check_no_publish_is_open(BlockDevice& image, const Superblock& superblock);

std::string staging_path_of(const std::string& image);

// Whether `image`, which was opened from `path`, is whole without its staging file.
Status check_nothing_is_staged(BlockDevice& image, const std::string& path);

}  // namespace tarnfs
