// What is mounted, as /proc/self/mountinfo tells it.
//
// Thread safety: plain functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tarnfs {

// What the mount table shows: of an image in a file, and of a block device that root has mounted.
inline constexpr std::string_view kFileMountType = "fuse.tarnfs";
inline constexpr std::string_view kBlockDeviceMountType = "fuseblk.tarnfs";

struct MountEntry {
  std::string mountpoint;
  std::string type;
  std::string source;   // the device
  std::string root;     // what of the file system is seen there: "/" is all of it
  std::string options;  // those of the file system, which are the same wherever it is seen
};

// In the order of mounting: of several at one place the last one is seen.
std::vector<MountEntry> parse_mount_table(std::string_view text);
std::vector<MountEntry> read_mount_table();
// The tarnfs mount of this image, or at this place.
std::optional<MountEntry> tarnfs_mount_of(const std::vector<MountEntry>& table, const std::string& image);
std::optional<MountEntry> tarnfs_mount_at(const std::vector<MountEntry>& table, const std::string& mountpoint);
// Whether what is seen at `mountpoint` is this image; both paths are canonical.
bool is_mounted_at(const std::string& image, const std::string& mountpoint);

}  // namespace tarnfs
