// A FileSystem mounted through FUSE.
//
// Purpose: everything that the programs need of libfuse, whose headers stay inside this folder.
//
// Invariants:
//   1. mount() returns only once the kernel has accepted the session, so the mount is usable.
//   2. The session ends when the mount is taken away, by umount(8) or by unmount(), and never before: what the kernel
//      still holds dirty is written before that.
//   3. Every lookup that could not be delivered to the kernel is given back to the FileSystem.
//   4. No reply and no notification is sent while a lock is held.
//
// Thread safety: all functions may be called from any thread that does not serve requests of this mount.
// Ownership: the FileSystem must outlive the mount. The destructor ends the session and waits for its threads.
// Errors: kInvalid for a mountpoint that is none, kIo and kNotPermitted with what mount(2) said, kUnsupported for
// io_uring where it cannot be had and must.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"
#include "fs/engine/file_system.h"
#include "fs/engine/view_change.h"

namespace tarnfs {

enum class IoUring { kAuto, kOn, kOff };

struct FuseMountOptions {
  std::string mountpoint;
  std::string source;      // shown as the device: the path of the image
  bool read_only = false;  // as the kernel sees it
  // The source is a block device, and the caller root: the kernel claims it for the time of the mount, sync(2) and
  // syncfs(2) wait for a consistency point where the library passes them on, and unmounting waits for on_unmount.
  bool on_block_device = false;
  // The file system changes by itself (a mirror), and says so to view_listener().
  bool changes_by_itself = false;
  // How long it waits for the kernel to give up what a change makes untrue; none: KernelCache::kWaitMax.
  std::optional<std::chrono::milliseconds> kernel_wait_max;
  bool checks_opens = false;  // the kernel asks for each open, and what is immutable or append-only is protected
  std::vector<std::string> kernel_options;  // allow_other, dev, suid, noexec, ...: what mount(2) or libfuse knows
  IoUring io_uring = IoUring::kAuto;        // kAuto: where this libfuse and this kernel have it
  unsigned threads_max = 32;                // at least twice what the kernel does in the background (session.cpp)
};

// What the mount tells its owner, from threads of its own. wait() and the destructor return after on_end, so neither
// may call them. Both may be empty.
struct FuseMountEvents {
  // With on_block_device, once, when the kernel has nothing more to write: unmounting waits until it has returned. Not
  // when the mount ends in another way.
  std::function<void()> on_unmount;
  std::function<void()> on_end;  // once, after the session's last request
};

// Of a mount whose file system changes by itself.
struct KernelCacheStatus {
  std::uint64_t asked_count = 0;  // requests for what the kernel keeps: lookups, attributes, listings, reads
  std::uint64_t late_count = 0;   // changes that were shown before the kernel had dropped all that they made untrue
};

class FuseMount {
 public:
  static Result<std::unique_ptr<FuseMount>> mount(FileSystem& file_system, const FuseMountOptions& options,
                                                  FuseMountEvents events);
  // Whether the mountpoint and the transport that `options` ask for are there.
  static Status check(const FuseMountOptions& options);
  virtual ~FuseMount() = default;

  // Takes the mount away. kBusy when files on it are in use, unless `lazily`: then it vanishes from the tree at once
  // and the session ends with the last user. Does nothing when the session has ended.
  virtual Status unmount(bool lazily) = 0;
  // Ends the session at once: users get ENOTCONN, and what the kernel holds dirty is lost.
  virtual void abort() = 0;
  // Waits until the session has ended and no request is being served.
  virtual void wait() = 0;
  virtual bool ended() const = 0;
  // How requests come, as it was agreed with the kernel: "io_uring" or "classic".
  virtual std::string_view transport() const = 0;
  // Who is to be told of a file system's changes; null unless it changes by itself. Good as long as the mount.
  virtual ViewListener* view_listener() = 0;
  virtual KernelCacheStatus kernel_cache_status() const = 0;
};

}  // namespace tarnfs
