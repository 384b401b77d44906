#include "fs/fuse/transport.h"

#include <fstream>
#include <utility>

#include "fs/fuse/ring_thread.h"
#include "fs/fuse/waiting_pool.h"

namespace tarnfs {
namespace {

Error unavailable(const std::string& why) {
  return Error(ErrorCode::kUnsupported, "io_uring=on: " + why);
}

#ifdef FUSE_SESSION_HAS_SAFE_URING
constexpr const char* kModuleParameter = "/sys/module/fuse/parameters/enable_uring";

Status check_kernel() {
  std::ifstream parameter(kModuleParameter);
  char answer = 0;
  if (!(parameter >> answer)) {
    return unavailable("this kernel has no FUSE over io_uring (Linux 6.14 and later do); mount with io_uring=auto");
  }
  if (answer != 'Y') return unavailable(std::string("the kernel has it off; write Y to ") + kModuleParameter);
  return {};
}
#else
Status check_kernel() {
  return unavailable("tarnfs was built with a libfuse without it; run packaging/libfuse/build and build tarnfs again");
}
#endif

}  // namespace

Result<bool> choose_io_uring(IoUring wanted) {
  if (wanted == IoUring::kOff) return false;
  const Status possible = check_kernel();
  if (!possible.ok() && wanted == IoUring::kOn) return possible.error();
  return possible.ok();
}

#ifdef FUSE_SESSION_HAS_SAFE_URING

bool on_session_ready(fuse_session* session, void (*ready)(void* user_data, bool over_io_uring)) {
  fuse_session_on_ready(session, ready);
  return true;
}

void stop_rings(fuse_session* session) {
  fuse_session_stop_uring(session);
}

bool is_over_io_uring(fuse_req_t request) {
  return fuse_req_is_uring(request);
}

std::span<std::byte> reply_buffer(fuse_req_t request, std::size_t size) {
  char* payload = nullptr;
  std::size_t payload_bytes = 0;
  if (fuse_req_get_payload(request, &payload, &payload_bytes, nullptr) != 0 || payload_bytes < size) {
    return thread_buffer(size);
  }
  return std::as_writable_bytes(std::span<char>(payload, size));
}

#else

bool on_session_ready(fuse_session* /*session*/, void (* /*ready*/)(void* user_data, bool over_io_uring)) {
  return false;
}

void stop_rings(fuse_session* /*session*/) {}

bool is_over_io_uring(fuse_req_t /*request*/) {
  return false;
}

std::span<std::byte> reply_buffer(fuse_req_t /*request*/, std::size_t size) {
  return thread_buffer(size);
}

#endif

bool run_elsewhere(fuse_req_t request, std::function<void()> answer) {
  RingThread::note_handed_over();
  WaitingPool* const pool = front_end_of(request).waiting_pool;
  return pool != nullptr && pool->run(std::move(answer));
}

}  // namespace tarnfs
