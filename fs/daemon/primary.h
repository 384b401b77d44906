// A volume that is mounted: device, engine, mirrors, control socket and mount, put together and taken apart in order.
//
// Invariants:
//   1. What start() built is taken apart in the opposite order, on every path.
//   2. Once the kernel has nothing more to write, a last consistency point is taken, connected mirrors get a bounded
//      time to publish it, the volume is closed, and only then the image is let go. On a block device umount(2) waits
//      for that.
//
// Thread safety: start() and run() from one thread, whose process has no other threads before start().
// Errors: each with what failed, on what and why.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/file_block_device.h"
#include "common/mutex.h"
#include "fs/control/server.h"
#include "fs/control/unix_socket.h"
#include "fs/daemon/mount_options.h"
#include "fs/engine/durable_changes.h"
#include "fs/engine/volume.h"
#include "fs/fuse/mount.h"
#include "mirror/fed/fed_mirrors.h"

namespace tarnfs {

class Primary {
 public:
  // Paths are canonical.
  Primary(std::string image, std::string mountpoint, MountOptions options);
  ~Primary();
  Primary(const Primary&) = delete;
  Primary& operator=(const Primary&) = delete;

  // Until the mount can be used.
  Status start();
  // Until the mount is gone, by umount(8) or because of a signal, and everything is closed.
  Status run(const Descriptor& signals);

 private:
  Status check_place() const;
  Status make_mirrors();
  Status open_volume();
  Status start_control();
  Status start_mount();
  Status mount(FuseMountOptions& mount_options);
  FileSystem& served();
  void wait_for_end(const Descriptor& signals);
  void obey_signal(const Descriptor& signals);
  Status close();
  void finish();
  Status take_last_state();
  Result<std::string> answer_status();
  Result<std::string> answer_cp(const ControlRequest& request);
  Result<std::string> answer_remount(const ControlRequest& request);
  Status make_writable() TARNFS_EXCLUDES(remount_mutex_);
  void apply_policy() TARNFS_EXCLUDES(policy_mutex_);
  void give_up_policy() TARNFS_EXCLUDES(policy_mutex_);
  Result<std::string> answer_trim(const ControlRequest& request);
  Result<std::string> answer_resize(const ControlRequest& request);

  const std::string image_;
  const std::string mountpoint_;
  const MountOptions options_;
  std::atomic<bool> read_only_;   // changed by a thread of the control server
  const Descriptor mount_ended_;  // an eventfd
  std::atomic<bool> closing_{false};
  std::atomic<bool> over_io_uring_{false};

  Mutex remount_mutex_;  // of who makes it writable, one at a time

  Mutex policy_mutex_;
  bool policy_given_up_ TARNFS_GUARDED_BY(policy_mutex_) = false;
  Changes changes_ TARNFS_GUARDED_BY(policy_mutex_) = Changes::kTaken;

  Mutex finish_mutex_;
  bool finished_ TARNFS_GUARDED_BY(finish_mutex_) = false;
  Status finished_status_ TARNFS_GUARDED_BY(finish_mutex_);

  // Made by start() and taken away by close(); finish() ends what they do, on a thread of the mount when the kernel
  // waits for it.
  std::unique_ptr<FileBlockDevice> device_;
  FedMirrors mirrors_;
  std::unique_ptr<Volume> volume_;
  std::optional<DurableChanges> durable_;  // before the volume, with dirsync and sync
  std::unique_ptr<ControlServer> control_;
  std::unique_ptr<FuseMount> mount_;
};

}  // namespace tarnfs
