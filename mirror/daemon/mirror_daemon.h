// The mirror process: receiver, read-only volume, mount, senders to mirrors of its own and control socket, joined.
//
// Invariants:
//   1. The image is locked before the port is taken, and both before anything is mounted.
//   2. The volume is opened on what the receiver shows, after an interrupted publish was finished.
//   3. Senders are told of roots by the receiver, and read what the volume shows: they end after the one and before the
//      other.
//
// Thread safety: main thread only.
// Ownership: parts are destroyed in the reverse order of their making; see stop().
// Errors: kBusy when another process has the image or the port, kInvalid for an unusable address or mountpoint,
// kRefused for an address that needs keys, and those of mirror/channel/key_directory.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/result.h"

namespace tarnfs {

struct MirrorDaemonOptions {
  std::string listen_url;
  std::string image;                            // absolute
  std::string mountpoint;                       // absolute; empty: not mounted
  std::string control_socket;                   // empty: the default one for this image
  std::string keys_directory;                   // absolute; empty: listens on loopback, and connects to it, only
  std::vector<std::string> mirrors;             // URLs of mirrors of this mirror
  std::optional<std::uint64_t> pin_size_bytes;  // most that is kept of states that are sent on; none: the default
  std::uint64_t ping_interval_ms = 1000;
  std::uint64_t dead_after_ms = 5000;  // a primary that is silent for so long is gone
};

class MirrorDaemon {
 public:
  // Serves when it returns: the port is open and the mount shows the published state.
  static Result<std::unique_ptr<MirrorDaemon>> start(const MirrorDaemonOptions& options);
  virtual ~MirrorDaemon() = default;
  // Finishes what is decided, unmounts and lets the image go. Idempotent; the destructor calls it.
  virtual void stop() = 0;
};

}  // namespace tarnfs
