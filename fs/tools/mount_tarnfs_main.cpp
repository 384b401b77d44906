// mount.tarnfs and mount.fuse.tarnfs: called by mount(8), calls tarnfs unless the volume is mounted already.
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "fs/control/client.h"
#include "fs/control/command_line.h"
#include "fs/control/mount_table.h"
#include "fs/tools/mount_helper.h"
#include "fs/tools/remount.h"

namespace {

using namespace tarnfs;

constexpr const char* kProgram = "mount.tarnfs";

struct Arguments {
  std::string image;
  std::string directory;
  std::vector<std::string> options;
  std::string type;
  std::string name_space;
  bool sloppy = false;
  bool fake = false;
  bool no_table = false;
  bool verbose = false;
};

int tell(const Status& done) {
  return done.ok() ? kExitDone : tell_failure(kProgram, done.error());
}

int call_tarnfs(const Arguments& arguments, const std::string& given) {
  const std::string options = options_for_mount(given, arguments.sloppy);
  for (const std::string& path : candidates_for("tarnfs")) {
    std::vector<const char*> words = {
        path.c_str(), "-o", options.c_str(), "--", arguments.image.c_str(), arguments.directory.c_str(), nullptr};
    ::execv(path.c_str(), const_cast<char**>(words.data()));
    if (errno != ENOENT)
      return tell_failure(kProgram, Error(ErrorCode::kIo, "run " + path + ": " + std::strerror(errno)));
  }
  return tell_failure(kProgram,
                      Error(ErrorCode::kNotFound, "tarnfs is not installed; put it next to " + std::string(kProgram)));
}

int mount(const Arguments& arguments) {
  std::string given;
  for (const std::string& list : arguments.options) given += (given.empty() ? "" : ",") + list;
  if (has_mount_option(given, "remount")) return tell(remount(arguments.directory, given));
  const auto mounted = shareable_mount_of(arguments.image);
  const auto place = canonical_path(arguments.directory);
  // Whether it is still mounted at the same place tarnfs sees, later: who just called umount(8) gives it that time.
  if (!mounted || (place.ok() && is_mounted_at(mounted->source, *place))) return call_tarnfs(arguments, given);
  return tell(mount_again(*mounted, arguments.directory, given));
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CommandLine line(kProgram, "Called by mount(8): mounts the volume in IMAGE on DIRECTORY.");
  line.argument("IMAGE", arguments.image, "a file or block device made by mkfs.tarnfs");
  line.argument("DIRECTORY", arguments.directory, "the mountpoint");
  line.list("-o", arguments.options, "OPTIONS", "as those of tarnfs");
  line.option("-t", arguments.type, "TYPE", "ignored");
  line.option("-N", arguments.name_space, "NAMESPACE", "ignored");
  line.flag("-s", arguments.sloppy, "ignore unknown options");
  line.flag("-f", arguments.fake, "do nothing");
  line.flag("-n", arguments.no_table, "ignored");
  line.flag("-v", arguments.verbose, "ignored");
  if (const auto code = line.parse(argc, argv)) return *code;
  return arguments.fake ? kExitDone : mount(arguments);
}
