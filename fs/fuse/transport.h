// How requests come from the kernel: classic, read from /dev/fuse, or over io_uring.
//
// Purpose: everything that differs between libfuse 3.14, a newer one, and the one that packaging/libfuse builds. Over
// io_uring goes only with the last: its patches make replies from other threads and the end of a session safe.
//
// Invariants:
//   1. Over io_uring a request is handled on its queue's thread. What often waits goes through may_wait().
//
// Thread safety: the functions on requests may be called from any thread, by one thread at a time for each request.
// Errors: kUnsupported with what is missing, where io_uring is asked for and cannot be had.
#pragma once

#include <functional>
#include <span>
#include <string_view>

#include "common/clock.h"
#include "fs/fuse/front_end.h"
#include "fs/fuse/mount.h"

namespace tarnfs {

// libfuse passes on all that tarnfs needs to know. Where it does not, fs/fuse/device_requests.h looks at what it reads.
template <class FileInfo>
inline constexpr bool kDecodesPrivilegesOf = requires(FileInfo file) {
  file.kill_suidgid;
};
inline constexpr bool kLibraryDecodesAll = kDecodesPrivilegesOf<fuse_file_info>;

// A WRITE by somebody whose writes take set-user-id away.
template <class FileInfo>
bool drops_privileges(const FileInfo& file) {
  if constexpr (kDecodesPrivilegesOf<FileInfo>) {
    return file.kill_suidgid != 0;
  } else {
    return request_extras().drop_privileges;
  }
}

// Whether to ask for io_uring.
Result<bool> choose_io_uring(IoUring wanted);

// Has `ready` called with the session's user data, when the kernel has accepted the session, on a thread that serves
// it. False: this library cannot, and the init operation must do.
bool on_session_ready(fuse_session* session, void (*ready)(void* user_data, bool over_io_uring));

// After the loop, and when all requests are answered.
void stop_rings(fuse_session* session);

bool is_over_io_uring(fuse_req_t request);

// At least `size` bytes, 4096-aligned, for the reply to this request: over io_uring the memory that the kernel takes it
// from, so that nothing is copied; else thread_buffer().
std::span<std::byte> reply_buffer(fuse_req_t request, std::size_t size);

// False: there is no other thread any more.
bool run_elsewhere(fuse_req_t request, std::function<void()> answer);

// Runs `answer`, which answers the request: on this thread, or on another one where it is expected to hold up others.
// `estimate` is that of its kind, and learns from it.
template <class Answer>
void may_wait(fuse_req_t request, WaitEstimate& estimate, const Answer& answer) {
  if (!is_over_io_uring(request)) {
    answer();
    return;
  }
  const auto timed_answer = [&estimate, answer] { estimate.timed(system_clock(), answer); };
  if (estimate.is_short() || !run_elsewhere(request, timed_answer)) timed_answer();
}

}  // namespace tarnfs
