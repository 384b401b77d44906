#include "fs/fuse/read_ahead.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <fstream>

namespace tarnfs {

void set_read_ahead(const std::string& mountpoint, unsigned bytes) {
  struct statx found {};
  // The kernel sends this request only when it has dealt with the answer to INIT, which sets the figure too.
  ::statx(AT_FDCWD, mountpoint.c_str(), AT_NO_AUTOMOUNT | AT_STATX_FORCE_SYNC, STATX_MODE, &found);
  // Its device number is known whatever the answer was.
  if (::statx(AT_FDCWD, mountpoint.c_str(), AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, 0, &found) != 0) return;
  const std::string device = std::to_string(found.stx_dev_major) + ":" + std::to_string(found.stx_dev_minor);
  std::fstream file("/sys/class/bdi/" + device + "/read_ahead_kb");
  unsigned kib = 0;
  if (!(file >> kib) || kib >= bytes / 1024) return;
  file.clear();
  file.seekp(0);
  file << bytes / 1024 << std::flush;
}

}  // namespace tarnfs
