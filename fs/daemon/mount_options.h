// The options behind -o, as people and /etc/fstab write them.
//
// Thread safety: plain functions.
// Errors: kUsage with the option that is wrong and why.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"
#include "fs/engine/durable_changes.h"
#include "fs/fuse/mount.h"

namespace tarnfs {

// What becomes of changes while a mirror is away.
enum class OnDisconnect { kDegrade, kBlock, kReadOnly };

struct MountOptions {
  bool read_only = false;
  bool replay_journal = true;        // norecovery: false
  std::vector<std::string> mirrors;  // URLs
  std::string keys_directory;        // empty: mirrors on loopback only
  std::uint64_t cp_interval_ms = 5000;
  std::uint64_t dirty_limit_bytes = 256ULL << 20;
  std::uint64_t cache_limit_bytes = 128ULL << 20;
  bool access_times = true;                     // false: noatime was given last
  std::uint64_t close_wait_ms = 5000;           // how long connected mirrors may take to publish the last state
  std::optional<std::uint64_t> pin_size_bytes;  // most that is kept for a mirror; none: VolumeOptions' default
  std::uint64_t pin_age_ms = 0;                 // how long at most; 0: no limit
  OnDisconnect on_disconnect = OnDisconnect::kDegrade;
  std::uint64_t ping_interval_ms = 1000;
  std::uint64_t dead_after_ms = 5000;  // a mirror that is silent for so long is gone
  IoUring io_uring = IoUring::kAuto;
  bool checks_opens = false;                // chattr=strict; else where files are immutable or append-only
  std::string control_path;                 // empty: the usual place
  std::optional<DurableScope> durable;      // what is durable when it is answered: dirsync, sync; none: on request
  std::vector<std::string> kernel_options;  // for FUSE: allow_other, suid, ...
};

// `list` is separated by commas; a backslash takes the next character as it is. For root, allow_other is the default.
Result<MountOptions> parse_mount_options(std::string_view list, bool is_root);

// As mount(8) does for the kernel's own file systems: what cannot be written is mounted read-only, and who asked for
// more is told. Returns whether that is so. kReadOnly where mirrors would wait for changes that cannot be, kUsage for
// norecovery of what is read-write.
Result<bool> fall_back_to_read_only(MountOptions& options, bool write_protected);

}  // namespace tarnfs
