// mkfs.tarnfs: makes a volume.
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "common/clock.h"
#include "common/file_block_device.h"
#include "fs/control/command_line.h"
#include "fs/control/text.h"
#include "fs/storage/format_volume.h"
#include "fs/tools/known_content.h"

namespace {

using namespace tarnfs;

constexpr const char* kProgram = "mkfs.tarnfs";
constexpr std::size_t kLabelMaxBytes = 63;

struct Arguments {
  std::string size;
  std::string label;
  std::string journal_size;
  bool force = false;
  bool keeps_storage = false;
  std::string image;
};

// Blocks of 4096 bytes: as asked for, or all that is there. 0 for a block device means all of it.
Result<std::uint64_t> size_blocks_of(const Arguments& arguments, const struct stat* existing) {
  if (!arguments.size.empty()) {
    TARNFS_ASSIGN(const std::uint64_t size_bytes, parse_size(arguments.size));
    const std::uint64_t blocks = size_bytes / kBlockSize;
    if (blocks >= kVolumeBlocksMin && blocks <= kVolumeBlocksMax) return blocks;
    return Error(ErrorCode::kUsage, "a volume of " + arguments.size + " cannot be made; give from " +
                                        format_size(kVolumeBlocksMin * kBlockSize) + " to " +
                                        format_size(kVolumeBlocksMax * kBlockSize));
  }
  if (existing == nullptr) {
    return Error(ErrorCode::kUsage, arguments.image + " does not exist; give its size with -s");
  }
  if (S_ISBLK(existing->st_mode)) return std::uint64_t{0};
  const std::uint64_t blocks = static_cast<std::uint64_t>(existing->st_size) / kBlockSize;
  if (blocks >= kVolumeBlocksMin) return blocks;
  return Error(ErrorCode::kInvalid, arguments.image + " has " + format_size(blocks * kBlockSize) +
                                        ", which is too small; give a size with -s");
}

Status make_room(const Arguments& arguments) {
  TARNFS_ASSIGN(const auto content, known_content_of(arguments.image));
  if (!content) return {};
  if (!arguments.force) {
    return Error(ErrorCode::kExists,
                 arguments.image + " holds " + *content + "; give -f to replace it, and lose what is in it");
  }
  return forget_known_content(arguments.image);
}

Status make_volume(const Arguments& arguments) {
  struct stat found {};
  const bool exists = ::stat(arguments.image.c_str(), &found) == 0;
  if (exists && !S_ISREG(found.st_mode) && !S_ISBLK(found.st_mode)) {
    return Error(ErrorCode::kInvalid, arguments.image + " is neither a regular file nor a block device");
  }
  TARNFS_ASSIGN(const std::uint64_t size_blocks, size_blocks_of(arguments, exists ? &found : nullptr));
  TARNFS_TRY(make_room(arguments));
  TARNFS_ASSIGN(const auto device, FileBlockDevice::create(arguments.image, size_blocks));
  // Where storage cannot be given back the volume is as good without it.
  if (exists && !arguments.keeps_storage) (void)device->discard(Address{0}, device->size_blocks());
  FormatOptions options;
  options.label = arguments.label;
  options.root_uid = ::geteuid();
  options.root_gid = ::getegid();
  if (!arguments.journal_size.empty()) {
    TARNFS_ASSIGN(const std::uint64_t journal_bytes, parse_size(arguments.journal_size));
    options.journal_blocks = journal_bytes / kBlockSize;
  }
  const auto made = format_volume(*device, options, system_clock());
  if (!made.ok()) {
    if (!exists) ::unlink(arguments.image.c_str());
    return made.error().in("make a volume in " + arguments.image);
  }
  std::printf("%s: volume %s, %s\n", arguments.image.c_str(), volume_of(*made).to_string().c_str(),
              format_size(made->size_blocks * kBlockSize).c_str());
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CommandLine line(kProgram, "Makes an empty volume in IMAGE, a file or block device.");
  line.option("-s,--size", arguments.size, "SIZE", "of the volume; takes K, M, G and T; needed for a new file");
  line.option("-L,--label", arguments.label, "LABEL", "a name for people, at most 63 bytes");
  line.option("-J,--journal", arguments.journal_size, "SIZE", "of the journal, 256K to 64M, or 0 for none");
  line.flag("-f,--force", arguments.force, "replace a file system or other known content");
  line.flag("-K,--nodiscard", arguments.keeps_storage, "keep the storage below that IMAGE has taken before");
  line.argument("IMAGE", arguments.image, "a file or block device; a file is created sparse");
  if (const auto code = line.parse(argc, argv)) return *code;
  if (arguments.label.size() > kLabelMaxBytes) {
    return tell_failure(kProgram, Error(ErrorCode::kUsage, "the label has more than 63 bytes"));
  }
  const Status made = make_volume(arguments);
  return made.ok() ? kExitDone : tell_failure(kProgram, made.error());
}
