#include "mirror/fed/peer_report.h"

#include <string>

namespace tarnfs {

PeerReport peer_report_of(const SenderStatus& status, bool encrypted) {
  PeerReport peer;
  peer.encrypted = encrypted;
  peer.url = status.url;
  peer.state = std::string(name_of(status.state));
  peer.mode = status.mode;
  peer.error = status.last_error;
  peer.published_cp = status.published_cp.value;
  peer.lag_cps = status.lag_cps;
  peer.lag_bytes = status.lag_bytes;
  peer.lag_seconds = status.lag_seconds;
  peer.limit_bytes_per_second = status.limit_bytes_per_second;
  peer.held_bytes = status.held_bytes;
  peer.pins_lost = status.pins_lost;
  peer.compare_due = status.compare_due;
  peer.sent_bytes = status.sent_bytes;
  peer.wire_bytes = status.wire_bytes;
  peer.compression_ratio = status.compression_ratio;
  peer.rtt_ms = status.rtt_ms;
  if (status.state == SenderState::kCatchingUp) {
    peer.copy = CopyProgress{status.bytes_done, status.bytes_total, status.eta_seconds};
  }
  return peer;
}

}  // namespace tarnfs
