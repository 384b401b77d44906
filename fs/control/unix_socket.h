// Unix sockets with deadlines.
//
// Thread safety: the functions may be called from any thread.
// Errors: kInvalid for a path that is too long, kDisconnected when nobody listens, kTimeout.
#pragma once

#include <poll.h>

#include <chrono>
#include <string>

#include "common/descriptor.h"
#include "common/result.h"

namespace tarnfs {

using Deadline = std::chrono::steady_clock::time_point;

// A listening socket at `path` that only its owner may connect to. Takes the place of one that nobody listens on any
// more; kBusy when somebody does.
Result<Descriptor> listen_at(const std::string& path);
Result<Descriptor> connect_to(const std::string& path);
// Milliseconds for poll(2), at least 0.
int milliseconds_until(Deadline deadline);
// Waits until one of `events` is there. kTimeout after the deadline.
Status wait_for_events(const Descriptor& descriptor, short events, Deadline deadline);

}  // namespace tarnfs
