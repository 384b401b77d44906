// umount.fuse.tarnfs: called by umount(8). Returns when the daemon has taken its last consistency point and gone.
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "fs/control/client.h"
#include "fs/control/command_line.h"
#include "fs/control/daemon_process.h"
#include "fs/control/mount_table.h"
#include "fs/tools/mount_helper.h"

namespace {

using namespace tarnfs;

constexpr const char* kProgram = "umount.fuse.tarnfs";

struct Arguments {
  std::string target;
  std::string type;
  std::string name_space;
  bool force = false;
  bool lazy = false;
  bool no_table = false;
  bool read_only = false;
  bool verbose = false;
};

Result<MountEntry> find_mount(const std::string& target) {
  TARNFS_ASSIGN(const std::string path, canonical_path(target));
  const auto table = read_mount_table();
  if (auto entry = tarnfs_mount_at(table, path)) return std::move(*entry);
  if (auto entry = tarnfs_mount_of(table, path)) return std::move(*entry);
  return Error(ErrorCode::kInvalid, target + ": no tarnfs volume is mounted there");
}

// What tells that the daemon is gone; none when it stays, as that of a mirror does. No daemon is asked: until umount(2)
// whoever mounts the volume again hears that it is mounted.
Descriptor daemon_to_wait_for(const MountEntry& entry) {
  constexpr const char* kDaemon = "tarnfs";
  for (DaemonProcess& daemon : daemon_processes(default_control_directory())) {
    if (daemon.pid == 0 || !has_open(daemon.pid, entry.source)) continue;
    return is_program(daemon.pid, kDaemon) ? std::move(daemon.process) : Descriptor();
  }
  return process_with_open_file(kDaemon, entry.source);
}

// Whoever is not root unmounts what is his through a program that is; it tells its own errors.
Status call_fusermount(const MountEntry& entry, bool lazily) {
  TARNFS_ASSIGN(const int code, run_and_wait({"fusermount3", lazily ? "-uz" : "-u", "--", entry.mountpoint}));
  if (code == 0) return {};
  return Error(ErrorCode::kNotPermitted, entry.mountpoint + ": fusermount3 did not unmount it");
}

Status take_away(const MountEntry& entry, const Arguments& arguments) {
  const int flags = UMOUNT_NOFOLLOW | (arguments.lazy ? MNT_DETACH : 0) | (arguments.force ? MNT_FORCE : 0);
  if (::umount2(entry.mountpoint.c_str(), flags) == 0) return {};
  const int number = errno;
  if (number == EPERM && ::geteuid() != 0) return call_fusermount(entry, arguments.lazy);
  const std::string advice = number == EBUSY ? "; close what is open there, or give -l" : "";
  return Error(number == EBUSY ? ErrorCode::kBusy : ErrorCode::kNotPermitted,
               entry.mountpoint + ": " + std::strerror(number) + advice);
}

Status unmount(const Arguments& arguments) {
  TARNFS_ASSIGN(const MountEntry entry, find_mount(arguments.target));
  // Looked for first: afterwards it may be gone at any moment.
  const Descriptor process = arguments.lazy ? Descriptor() : daemon_to_wait_for(entry);
  TARNFS_TRY(take_away(entry, arguments));
  // Another place of it keeps the daemon.
  if (!process || tarnfs_mount_of(read_mount_table(), entry.source)) return {};
  return wait_for_events(process, POLLIN, Deadline::max());
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CommandLine line(kProgram, "Called by umount(8): unmounts the volume at DIRECTORY and waits for its daemon to end.");
  line.argument("DIRECTORY", arguments.target, "the mountpoint, or the image");
  line.flag("-l", arguments.lazy, "detach now and do not wait");
  line.flag("-f", arguments.force, "abandon what is under way");
  line.flag("-n", arguments.no_table, "ignored");
  line.flag("-r", arguments.read_only, "ignored");
  line.flag("-v", arguments.verbose, "ignored");
  line.option("-N", arguments.name_space, "NAMESPACE", "ignored");
  line.option("-t", arguments.type, "TYPE", "ignored");
  if (const auto code = line.parse(argc, argv)) return *code;
  const Status done = unmount(arguments);
  return done.ok() ? kExitDone : tell_failure(kProgram, done.error());
}
