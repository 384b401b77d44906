// Who may connect: the answer to a request of ZeroMQ's authentication protocol (ZAP, RFC 27).
//
// Thread safety: plain functions on values.
// Errors: every request that is not exactly as it must be is refused.
#pragma once

#include <string>
#include <vector>

#include "common/result.h"
#include "mirror/channel/key_directory.h"

namespace tarnfs {

struct ZapDecision {
  bool allowed = false;
  std::string request_id;
  std::string address;  // of the peer, as ZeroMQ tells it
  std::string user_id;  // the peer's key in Z85, when it is allowed
  std::string reason;   // when it is not
};

// `frames` is the request: version, request id, domain, address, routing id, mechanism, credentials. Allowed is exactly
// who proved, by CURVE, to have a key of `peers`.
ZapDecision decide(const std::vector<std::string>& frames, const Result<PeerKeys>& peers);
std::vector<std::string> reply_of(const ZapDecision& decision);

}  // namespace tarnfs
