#include "fs/daemon/image_lock.h"

#include <fcntl.h>
#include <sys/time.h>

#include <cerrno>
#include <csignal>
#include <thread>

#include "common/staging_place.h"
#include "fs/control/mount_table.h"
#include "fs/control/unix_socket.h"

namespace tarnfs {
namespace {

constexpr std::chrono::milliseconds kBetweenTries{5};

// Interrupts a call that waits, again and again, for a signal that comes before the call is lost.
class Alarm {
 public:
  Alarm() {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    ::sigaction(SIGALRM, &action, &before_);
    set(std::chrono::milliseconds(50));
  }
  ~Alarm() {
    set(std::chrono::milliseconds(0));
    ::sigaction(SIGALRM, &before_, nullptr);
  }
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;

 private:
  static void set(std::chrono::microseconds interval) {
    itimerval timer{};
    timer.it_value.tv_usec = interval.count();
    timer.it_interval.tv_usec = interval.count();
    ::setitimer(ITIMER_REAL, &timer, nullptr);
  }

  struct sigaction before_ {};
};

// Waits until the lock can be had, and lets it go again.
void wait_for_lock(const std::string& path, DeviceMode mode, Deadline deadline) {
  const bool writable = mode == DeviceMode::kReadWrite;
  const Descriptor descriptor(::open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC));
  if (!descriptor) return;
  struct flock lock {};
  lock.l_type = writable ? F_WRLCK : F_RDLCK;
  lock.l_whence = SEEK_SET;
  const Alarm alarm;
  while (std::chrono::steady_clock::now() < deadline) {
    if (::fcntl(descriptor.number(), F_OFD_SETLKW, &lock) == 0 || errno != EINTR) return;
  }
}

}  // namespace

Result<std::unique_ptr<FileBlockDevice>> open_image(const std::string& path, DeviceMode mode,
                                                    std::chrono::milliseconds patience) {
  const Deadline deadline = std::chrono::steady_clock::now() + patience;
  for (;;) {
    auto device = FileBlockDevice::open(path, mode);
    if (device.ok()) TARNFS_TRY(check_nothing_is_staged(**device, path));
    if (device.ok() || device.error().code() != ErrorCode::kBusy) return device;
    for (const MountEntry& entry : read_mount_table()) {
      if (entry.source != path) continue;
      return Error(ErrorCode::kBusy, path + " is mounted on " + entry.mountpoint + " already; unmount it first");
    }
    if (std::chrono::steady_clock::now() >= deadline) return device;
    wait_for_lock(path, mode, deadline);
    // A block device is given back a moment after the lock, and of that the kernel tells nobody.
    std::this_thread::sleep_for(kBetweenTries);
  }
}

}  // namespace tarnfs
