#include "fs/tools/known_content.h"

#include <blkid.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "common/descriptor.h"
#include "common/file_block_device.h"
#include "common/format.h"

namespace tarnfs {
namespace {

constexpr int kWipesMax = 64;

struct FreeProbe {
  void operator()(blkid_probe probe) const { blkid_free_probe(probe); }
};
using Probe = std::unique_ptr<std::remove_pointer_t<blkid_probe>, FreeProbe>;

Error probe_error(const std::string& path) {
  return Error(ErrorCode::kIo, "look for a file system in " + path + ": " + std::strerror(errno));
}

Result<Probe> probe_of(const Descriptor& descriptor, const std::string& path) {
  Probe probe(blkid_new_probe());
  if (!probe) return probe_error(path);
  // An empty or tiny file cannot be set up, and holds nothing.
  if (blkid_probe_set_device(probe.get(), descriptor.number(), 0, 0) != 0) return Probe();
  blkid_probe_enable_superblocks(probe.get(), 1);
  blkid_probe_set_superblocks_flags(probe.get(), BLKID_SUBLKS_TYPE | BLKID_SUBLKS_MAGIC);
  blkid_probe_enable_partitions(probe.get(), 1);
  blkid_probe_set_partitions_flags(probe.get(), BLKID_PARTS_MAGIC);
  return probe;
}

std::optional<std::string> value_of(const Probe& probe, const char* name) {
  const char* value = nullptr;
  if (blkid_probe_lookup_value(probe.get(), name, &value, nullptr) != 0) return std::nullopt;
  return std::string(value);
}

std::string with_article(const std::string& noun) {
  const bool vowel = !noun.empty() && std::strchr("aeiou", noun.front()) != nullptr;
  return (vowel ? "an " : "a ") + noun;
}

Result<bool> is_tarnfs(const std::string& path) {
  const auto device = FileBlockDevice::open(path, DeviceMode::kReadOnly);
  if (!device.ok()) return device.error();
  if ((*device)->size_blocks() < kVolumeBlocksMin) return false;
  const auto superblock = read_superblock(**device);
  return superblock.ok() || superblock.error().code() == ErrorCode::kIncompatible;
}

}  // namespace

Result<std::optional<std::string>> known_content_of(const std::string& path) {
  const Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!descriptor) {
    if (errno == ENOENT) return std::optional<std::string>();
    return probe_error(path);
  }
  TARNFS_ASSIGN(const bool ours, is_tarnfs(path));
  if (ours) return std::optional<std::string>("a tarnfs volume");
  TARNFS_ASSIGN(const Probe probe, probe_of(descriptor, path));
  if (!probe) return std::optional<std::string>();
  const int found = blkid_do_safeprobe(probe.get());
  if (found == -2) return std::optional<std::string>("more than one file system");
  if (found == 1) return std::optional<std::string>();
  if (found != 0) return probe_error(path);
  if (const auto type = value_of(probe, "TYPE"))
    return std::optional<std::string>(with_article(*type + " file system"));
  const auto table = value_of(probe, "PTTYPE");
  return std::optional<std::string>(with_article(table.value_or("unknown") + " partition table"));
}

Status forget_known_content(const std::string& path) {
  const Descriptor descriptor(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!descriptor) return probe_error(path);
  TARNFS_ASSIGN(const Probe probe, probe_of(descriptor, path));
  if (!probe) return {};
  for (int i = 0; i < kWipesMax && blkid_do_probe(probe.get()) == 0; ++i) {
    if (blkid_do_wipe(probe.get(), 0) != 0) return probe_error(path);
  }
  if (::fsync(descriptor.number()) != 0) return probe_error(path);
  return {};
}

}  // namespace tarnfs
