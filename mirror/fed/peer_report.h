// What `tarn status` says of a mirror that is fed from here, for both daemons that feed some.
//
// Thread safety: plain functions.
#pragma once

#include "fs/control/status_report.h"
#include "mirror/sender/sender.h"

namespace tarnfs {

// `encrypted`: the connection has keys.
PeerReport peer_report_of(const SenderStatus& status, bool encrypted);

}  // namespace tarnfs
