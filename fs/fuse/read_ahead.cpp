#include "fs/fuse/read_ahead.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <thread>

namespace tarnfs {
namespace {

// Asks on a thread with a table of descriptors of its own. When this process is killed while it waits for itself, the
// session's descriptor is closed all the same, and with it the request ends. Else nothing could end the two. (Over
// io_uring that would not be enough: a ring holds on to the descriptor as long as any thread has the ring's memory.)
void send_request(const std::string& mountpoint) {
  const auto send = [&mountpoint] {
    if (::close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_UNSHARE) != 0) return;
    struct statx found {};
    ::statx(AT_FDCWD, mountpoint.c_str(), AT_NO_AUTOMOUNT | AT_STATX_FORCE_SYNC, STATX_MODE, &found);
  };
  std::thread(send).join();
}

}  // namespace

void set_read_ahead(const std::string& mountpoint, unsigned bytes, bool on_block_device, bool init_is_answered) {
  // The kernel sends it only when it has dealt with the answer to INIT, which sets the figure too.
  if (!init_is_answered) send_request(mountpoint);
  struct statx found {};
  // Its device number is known whatever the answer was.
  if (::statx(AT_FDCWD, mountpoint.c_str(), AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, 0, &found) != 0) return;
  // Somebody may have unmounted it: what is below has figures of its own.
  if ((found.stx_attributes & STATX_ATTR_MOUNT_ROOT) == 0) return;
  const std::string device = std::to_string(found.stx_dev_major) + ":" + std::to_string(found.stx_dev_minor);
  // A mount of the fuseblk kind shows the number of its block device, which has figures of its own.
  std::fstream file("/sys/class/bdi/" + device + (on_block_device ? "-fuseblk" : "") + "/read_ahead_kb");
  unsigned kib = 0;
  if (!(file >> kib) || kib >= bytes / 1024) return;
  file.clear();
  file.seekp(0);
  file << bytes / 1024 << std::flush;
}

}  // namespace tarnfs
