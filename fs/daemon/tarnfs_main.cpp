// tarnfs: mounts a volume.
#include <unistd.h>

#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "common/file_block_device.h"
#include "common/log.h"
#include "fs/control/background.h"
#include "fs/control/client.h"
#include "fs/control/command_line.h"
#include "fs/daemon/mount_options.h"
#include "fs/daemon/primary.h"

namespace {

using namespace tarnfs;

constexpr const char* kProgram = "tarnfs";

struct Arguments {
  bool foreground = false;
  std::vector<std::string> options;
  std::string image;
  std::string mountpoint;
};

std::string joined(const std::vector<std::string>& lists) {
  std::string all;
  for (const std::string& list : lists) all += (all.empty() ? "" : ",") + list;
  return all;
}

int serve(Background& background, const std::string& image, const std::string& mountpoint,
          const MountOptions& options) {
  const auto signals = prepare_daemon_process();
  if (!signals.ok()) return background.failed(signals.error());
  Primary primary(image, mountpoint, options);
  const Status started = primary.start();
  if (!started.ok()) return background.failed(started.error());
  background.ready();
  const Status ended = primary.run(*signals);
  if (ended.ok()) {
    log_info("closed " + image);
    return kExitDone;
  }
  log_error(ended.error().describe());
  return kExitFailed;
}

int mount_volume(const Arguments& arguments) {
  auto options = parse_mount_options(joined(arguments.options), ::geteuid() == 0);
  if (!options.ok()) return tell_failure(kProgram, options.error());
  if (!options->keys_directory.empty()) {
    // The daemon's working directory is not the user's.
    const auto keys = canonical_path(options->keys_directory);
    if (!keys.ok()) return tell_failure(kProgram, keys.error().in("option keys"));
    options->keys_directory = *keys;
  }
  const auto image = canonical_path(arguments.image);
  if (!image.ok()) return tell_failure(kProgram, image.error().in("open image"));
  const auto mountpoint = canonical_path(arguments.mountpoint);
  if (!mountpoint.ok()) return tell_failure(kProgram, mountpoint.error().in("mount on"));
  const auto write_protected = is_write_protected(*image);
  if (!write_protected.ok()) return tell_failure(kProgram, write_protected.error());
  const auto fell_back = fall_back_to_read_only(*options, *write_protected);
  if (!fell_back.ok()) return tell_failure(kProgram, fell_back.error().in(*image));
  if (*fell_back) std::cerr << kProgram << ": warning: " << *image << " is write-protected, mounted read-only\n";
  auto background = Background::enter(arguments.foreground, kProgram);
  if (!background.ok()) return tell_failure(kProgram, background.error());
  return serve(*background, *image, *mountpoint, *options);
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CommandLine line(kProgram, "Mounts the volume in IMAGE on the directory MOUNTPOINT.");
  line.flag("-f,--foreground", arguments.foreground, "stay in the foreground and log to standard error");
  line.list(
      "-o", arguments.options, "OPTIONS",
      "separated by commas: ro, norecovery, mirror=tcp://HOST:PORT, keys=DIR, cp_interval=SECONDS, dirty_limit=SIZE, "
      "cache=SIZE, pin_size=SIZE, pin_age=SECONDS, close_wait=SECONDS, io_uring=auto|on|off, chattr=auto|strict, "
      "control=SOCKET and those of mount(8)");
  line.argument("IMAGE", arguments.image, "a file or block device made by mkfs.tarnfs");
  line.argument("MOUNTPOINT", arguments.mountpoint, "a directory");
  if (const auto code = line.parse(argc, argv)) return *code;
  return mount_volume(arguments);
}
