#include "fs/tools/remount.h"

#include <fcntl.h>
#include <sys/mount.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "fs/control/client.h"
#include "fs/control/unix_socket.h"
#include "fs/tools/mount_helper.h"

namespace tarnfs {
namespace {

constexpr std::chrono::minutes kWaitMax{10};

struct Option {
  std::string_view name;
  unsigned long flag;
  bool sets;
};

constexpr std::array<Option, 18> kOptions = {{
    {"ro", MS_RDONLY, true},
    {"rw", MS_RDONLY, false},
    {"nosuid", MS_NOSUID, true},
    {"suid", MS_NOSUID, false},
    {"nodev", MS_NODEV, true},
    {"dev", MS_NODEV, false},
    {"noexec", MS_NOEXEC, true},
    {"exec", MS_NOEXEC, false},
    {"sync", MS_SYNCHRONOUS, true},
    {"async", MS_SYNCHRONOUS, false},
    {"noatime", MS_NOATIME, true},
    {"atime", MS_NOATIME, false},
    {"relatime", MS_RELATIME, true},
    {"norelatime", MS_RELATIME, false},
    {"dirsync", MS_DIRSYNC, true},
    {"strictatime", MS_STRICTATIME, true},
    {"nodiratime", MS_NODIRATIME, true},
    {"diratime", MS_NODIRATIME, false},
}};

template <class Use>
void for_each_option(const std::string& options, const Use& use) {
  std::size_t start = 0;
  while (start <= options.size()) {
    const std::size_t end = std::min(options.find(',', start), options.size());
    use(std::string_view(options).substr(start, end - start));
    start = end + 1;
  }
}

Status call_mount(const std::string& directory, unsigned long flags) {
  if (::mount("none", directory.c_str(), nullptr, flags, nullptr) == 0) return {};
  const int number = errno;
  const ErrorCode code = number == EPERM   ? ErrorCode::kNotPermitted
                         : number == EBUSY ? ErrorCode::kBusy
                                           : ErrorCode::kIo;
  const std::string advice = number == EBUSY ? "; close what is open there for writing" : "";
  return Error(code, directory + ": " + std::strerror(number) + advice);
}

// What the kernel does not: making a volume writable that was opened for reading, and who notes access times.
Status tell_daemon(const FoundDaemon& daemon, unsigned long flags) {
  if (daemon.status.role != "primary") return Error(ErrorCode::kReadOnly, "a mirror cannot be made read-write");
  const bool writable = (flags & MS_RDONLY) == 0;
  ControlRequest request{.command = "remount", .arguments = {}};
  if (writable) request.arguments["writable"] = "true";
  if (writable && (flags & MS_NOATIME) == 0) request.arguments["access_times"] = "true";
  const auto told = ask_daemon(daemon.socket_path, request, kWaitMax);
  return told.ok() ? Status() : Status(told.error());
}

constexpr std::uint64_t kAttributesOfOnePlace =
    MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

// Of mount_setattr(2).
std::uint64_t mount_attributes_of(unsigned long flags) {
  std::uint64_t attributes = 0;
  if ((flags & MS_RDONLY) != 0) attributes |= MOUNT_ATTR_RDONLY;
  if ((flags & MS_NOSUID) != 0) attributes |= MOUNT_ATTR_NOSUID;
  if ((flags & MS_NODEV) != 0) attributes |= MOUNT_ATTR_NODEV;
  if ((flags & MS_NOEXEC) != 0) attributes |= MOUNT_ATTR_NOEXEC;
  return attributes;
}

}  // namespace

bool has_mount_option(const std::string& options, std::string_view option) {
  bool found = false;
  for_each_option(options, [&](std::string_view each) { found = found || each == option; });
  return found;
}

unsigned long mount_flags_of(const std::string& options) {
  unsigned long flags = 0;
  for_each_option(options, [&](std::string_view each) {
    for (const Option& known : kOptions) {
      if (each == known.name) flags = known.sets ? flags | known.flag : flags & ~known.flag;
    }
  });
  return flags;
}

Result<unsigned long> remount_flags_of(const std::string& options, const std::string& mounted) {
  const unsigned long flags = mount_flags_of(options);
  const unsigned long kept = mount_flags_of(mounted) & (MS_SYNCHRONOUS | MS_DIRSYNC);
  const bool is_sync = (kept & MS_SYNCHRONOUS) != 0;
  const bool wants_sync = (flags & MS_SYNCHRONOUS) != 0;
  std::string refused;
  if (wants_sync && !is_sync) {
    refused = "sync";
  } else if ((flags & MS_DIRSYNC) != 0 && kept == 0) {
    refused = "dirsync";
  } else if (is_sync && !wants_sync && has_mount_option(options, "async")) {
    refused = "async";
  }
  if (refused.empty()) return flags | kept;
  return Error(ErrorCode::kUnsupported,
               "option " + refused + ": a mounted volume cannot change it; unmount it, and mount it with that option");
}

std::optional<MountEntry> shareable_mount_of(const std::string& image) {
  const auto path = canonical_path(image);
  if (!path.ok()) return std::nullopt;
  const auto table = read_mount_table();
  for (const MountEntry& entry : table) {
    if (entry.source != *path || entry.root != "/") continue;
    auto seen = tarnfs_mount_at(table, entry.mountpoint);
    if (seen && seen->source == *path && seen->root == "/") return seen;
  }
  return std::nullopt;
}

Status mount_again(const MountEntry& mounted, const std::string& directory, const std::string& options) {
  TARNFS_ASSIGN(const std::string path, canonical_path(directory));
  if (const auto kept = remount_flags_of(options, mounted.options); !kept.ok()) return kept.error().in(path);
  // A copy that belongs to nobody takes part in no propagation: what is mounted below one place is not below the other.
  const Descriptor copy(
      ::open_tree(AT_FDCWD, mounted.mountpoint.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW));
  struct mount_attr attributes {};
  attributes.attr_set = mount_attributes_of(mount_flags_of(options));
  attributes.attr_clr = kAttributesOfOnePlace & ~attributes.attr_set;
  attributes.propagation = MS_PRIVATE;
  if (!copy || ::mount_setattr(copy.number(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) != 0 ||
      ::move_mount(copy.number(), "", AT_FDCWD, path.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0) {
    return Error(ErrorCode::kIo,
                 path + ": show what is mounted on " + mounted.mountpoint + ": " + std::strerror(errno));
  }
  // Without an option that mount(8) notes, umount(8) would not call its helper (fs/daemon/umount_registration.h).
  TARNFS_TRY(run_and_wait(
      {"mount", "-i", "-f", "--no-canonicalize", "-t", mounted.type, "-o", "x-tarnfs", "--", mounted.source, path}));
  return {};
}

Status remount(const std::string& directory, const std::string& options) {
  TARNFS_ASSIGN(const std::string path, canonical_path(directory));
  const auto entry = tarnfs_mount_at(read_mount_table(), path);
  if (!entry) return Error(ErrorCode::kInvalid, directory + ": no tarnfs volume is mounted there");
  const auto wanted = remount_flags_of(options, entry->options);
  if (!wanted.ok()) return wanted.error().in(path);
  const unsigned long flags = *wanted;
  const auto daemon = daemon_of(entry->source, default_control_directory());
  if ((flags & MS_RDONLY) == 0) {
    const Status told = daemon.ok() ? tell_daemon(*daemon, flags) : Status();
    return told.ok() ? call_mount(path, MS_REMOUNT | flags) : Status(told.error().in(path));
  }
  TARNFS_TRY(call_mount(path, MS_REMOUNT | flags));
  if (!daemon.ok() || daemon->status.read_only) return {};
  Status done = tell_daemon(*daemon, flags);
  if (done.ok()) {
    const auto taken = ask_daemon(daemon->socket_path, ControlRequest{.command = "cp", .arguments = {}}, kWaitMax);
    if (!taken.ok()) done = taken.error();
  }
  if (!done.ok()) return done.error().in(path + " is read-only now, but its last changes are not in the image");
  return {};
}

}  // namespace tarnfs
