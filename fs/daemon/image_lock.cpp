#include "fs/daemon/image_lock.h"

#include <fcntl.h>
#include <sys/time.h>

#include <cerrno>
#include <csignal>

#include "fs/control/mount_table.h"
#include "fs/control/unix_socket.h"

namespace tarnfs {
namespace {

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
    if (device.ok() || device.error().code() != ErrorCode::kBusy) return device;
    if (const auto mounted = tarnfs_mount_of(read_mount_table(), path)) {
      return Error(ErrorCode::kBusy, path + " is mounted on " + mounted->mountpoint + "; unmount it first");
    }
    if (std::chrono::steady_clock::now() >= deadline) return device;
    wait_for_lock(path, mode, deadline);
  }
}

}  // namespace tarnfs
