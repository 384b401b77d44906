#include "fs/fuse/device_requests.h"

#include <linux/fuse.h>
#include <unistd.h>

#include <cstring>

namespace tarnfs {
namespace {

thread_local RequestExtras extras_of_thread;

// In the second half of INIT's flags: idmapped mounts (Linux 6.12), which the system's header need not know.
constexpr std::uint32_t kAllowIdmap = 1U << 8;

template <class T>
bool copy_body(T& body, const void* buffer, std::size_t size) {
  if (size < sizeof(fuse_in_header) + sizeof(T)) return false;
  std::memcpy(&body, static_cast<const std::byte*>(buffer) + sizeof(fuse_in_header), sizeof(T));
  return true;
}

void note_init(DeviceConnection& connection, const fuse_in_header& header, const void* buffer, std::size_t size) {
  fuse_init_in body{};
  if (!copy_body(body, buffer, size)) return;
  connection.init_request = header.unique;
  connection.privileges_offered = (body.flags & FUSE_HANDLE_KILLPRIV_V2) != 0;
  connection.idmap_offered = (body.flags & FUSE_INIT_EXT) != 0 && (body.flags2 & kAllowIdmap) != 0;
}

void note_request(DeviceConnection& connection, void* buffer, std::size_t size) {
  extras_of_thread = RequestExtras{};
  fuse_in_header header{};
  if (size < sizeof header) return;
  std::memcpy(&header, buffer, sizeof header);
  if (header.opcode == FUSE_WRITE) {
    fuse_write_in body{};
    extras_of_thread.drop_privileges =
        copy_body(body, buffer, size) && (body.write_flags & FUSE_WRITE_KILL_SUIDGID) != 0;
  } else if (header.opcode == FUSE_TMPFILE) {
    extras_of_thread.unnamed = true;
    header.opcode = FUSE_CREATE;
    std::memcpy(buffer, &header, sizeof header);
  } else if (header.opcode == FUSE_INIT) {
    note_init(connection, header, buffer, size);
  }
}

// Adds what libfuse cannot ask for.
void extend_init_reply(DeviceConnection& connection, iovec* parts, int count) {
  fuse_out_header header{};
  if (count < 2 || parts[0].iov_len != sizeof header || parts[1].iov_len < sizeof(fuse_init_out)) return;
  std::memcpy(&header, parts[0].iov_base, sizeof header);
  if (header.unique != connection.init_request || header.error != 0) return;
  fuse_init_out body{};
  std::memcpy(&body, parts[1].iov_base, sizeof body);
  if (connection.privileges_offered) body.flags |= FUSE_HANDLE_KILLPRIV_V2;
  if (connection.idmap_offered) {
    body.flags |= FUSE_INIT_EXT;
    body.flags2 |= kAllowIdmap;
  }
  std::memcpy(parts[1].iov_base, &body, sizeof body);
  connection.init_answered.store(true, std::memory_order_release);
}

}  // namespace

const RequestExtras& request_extras() {
  return extras_of_thread;
}

ssize_t read_request(DeviceConnection& connection, int descriptor, void* buffer, std::size_t size) {
  const ssize_t count = ::read(descriptor, buffer, size);
  if (count > 0) note_request(connection, buffer, static_cast<std::size_t>(count));
  return count;
}

ssize_t write_reply(DeviceConnection& connection, int descriptor, iovec* parts, int count) {
  if (!connection.init_answered.load(std::memory_order_acquire)) extend_init_reply(connection, parts, count);
  return ::writev(descriptor, parts, count);
}

}  // namespace tarnfs
