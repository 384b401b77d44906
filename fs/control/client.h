// The other end of control sockets: finding a daemon and asking it.
//
// Thread safety: plain functions.
// Errors: kNotFound when no daemon serves a target, kDisconnected and kTimeout when one does not answer, and what the
// daemon itself answers.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "common/result.h"
#include "fs/control/daemon_process.h"
#include "fs/control/protocol.h"
#include "fs/control/status_report.h"
#include "fs/control/unix_socket.h"

namespace tarnfs {

// Where sockets are unless told otherwise: /run/tarnfs for root.
std::string default_control_directory();
// `role` is "primary" or "mirror".
std::string control_path_of(const std::string& directory, const std::string& volume_uuid, const std::string& role);

// Sends one request and returns the JSON text of the answer.
Result<std::string> ask_daemon(const std::string& socket_path, const ControlRequest& request,
                               std::chrono::milliseconds timeout);

struct FoundDaemon : DaemonProcess {
  std::string status_json;
  StatusReport status;
};

// Asks the daemon behind a socket for its status.
Result<FoundDaemon> daemon_at(const std::string& socket_path);
// All daemons with a socket in `directory` that answer; others are left out.
std::vector<FoundDaemon> all_daemons(const std::string& directory);
// The daemon of a mountpoint, an image or a socket. Who has the image open is asked before others, which may hang.
Result<FoundDaemon> daemon_of(const std::string& target, const std::string& directory);

// The absolute path without symbolic links, found without asking a file system that is mounted there. kNotFound.
Result<std::string> canonical_path(const std::string& path);

}  // namespace tarnfs
