// What the kernel says on /dev/fuse and libfuse 3.14 does not pass on. Newer ones do, and then nothing here is used.
//
// Purpose: libfuse lets a session bring its own read and write functions. These look at each request before libfuse
// decodes it, and at the answer to INIT before it is sent, so that three things work that this libfuse does not know:
//   - FUSE_HANDLE_KILLPRIV_V2: the file system drops set-user-id bits itself where the kernel says so. Without it the
//     kernel asks for security.capability before every single write.
//   - FUSE_TMPFILE: O_TMPFILE, which has request and answer of FUSE_CREATE, but no name.
//   - FUSE_ALLOW_IDMAP: mounts that show other owners than those in the volume.
//
// Invariants:
//   1. A request is decoded on the thread that read it, before that thread reads the next one, so what was seen here
//      is kept by thread.
//
// Thread safety: the functions run on all threads of a session; INIT is answered before other requests come.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace tarnfs {

struct DeviceConnection {
  std::uint64_t init_request = 0;
  bool privileges_offered = false;  // the kernel knows FUSE_HANDLE_KILLPRIV_V2; set before INIT is decoded
  bool idmap_offered = false;       // and FUSE_ALLOW_IDMAP
  std::atomic<bool> init_answered{false};
};

// What libfuse left out of the request that this thread serves.
struct RequestExtras {
  bool drop_privileges = false;  // a WRITE by somebody whose writes take set-user-id away
  bool unnamed = false;          // a CREATE that is a TMPFILE
};

const RequestExtras& request_extras();
// In place of read(2) and writev(2) on the device.
ssize_t read_request(DeviceConnection& connection, int descriptor, void* buffer, std::size_t size);
ssize_t write_reply(DeviceConnection& connection, int descriptor, iovec* parts, int count);

}  // namespace tarnfs
