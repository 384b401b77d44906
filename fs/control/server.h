// The control socket of a daemon: commands by name, one JSON line each way.
//
// Invariants:
//   1. A request is at most kControlRequestMaxBytes long; whoever sends more, or nothing for 30 seconds, is cut off.
//   2. Each command that waits runs on a thread of its own, which others use after it: `status` always answers, and a
//      trim does not wait for a mirror that somebody else's `cp` waits for.
//   3. At most 64 clients are connected; more wait in the socket's backlog.
//
// Thread safety: start() and the destructor from one thread. Handlers run on the server's threads, under no lock; those
// that wait beside each other and themselves.
// One that waits without an end looks at ControlRequest::is_abandoned().
// Ownership: owns the socket file. The destructor waits for handlers that run, so they must be made to end before.
// Errors: those of listen_at().
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "common/result.h"
#include "fs/control/protocol.h"

namespace tarnfs {

struct ControlCommand {
  std::function<Result<std::string>(const ControlRequest&)> run;  // returns a JSON text
  bool waits = false;                                             // for a disk or a peer
};

class ControlServer {
 public:
  // Listens at `path`; its directory is made with mode 0700 when it is missing.
  static Result<std::unique_ptr<ControlServer>> start(const std::string& path,
                                                      std::map<std::string, ControlCommand> commands);
  virtual ~ControlServer() = default;
  virtual const std::string& path() const = 0;
};

}  // namespace tarnfs
