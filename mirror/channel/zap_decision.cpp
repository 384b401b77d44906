#include "mirror/channel/zap_decision.h"

#include <algorithm>
#include <cstring>

namespace tarnfs {
namespace {

constexpr const char* kVersion = "1.0";
constexpr std::size_t kRequestFrames = 7;  // with CURVE's one credential

ZapDecision refused(ZapDecision decision, std::string reason) {
  decision.allowed = false;
  decision.reason = std::move(reason);
  return decision;
}

}  // namespace

ZapDecision decide(const std::vector<std::string>& frames, const Result<PeerKeys>& peers) {
  ZapDecision decision;
  if (frames.size() > 1) decision.request_id = frames[1];
  if (frames.size() > 3) decision.address = frames[3];
  if (frames.size() != kRequestFrames || frames[0] != kVersion) return refused(decision, "its request cannot be read");
  if (frames[5] != "CURVE" || frames[6].size() != kKeyBytes) return refused(decision, "it has no key");
  PublicKey key;
  std::memcpy(key.bytes.data(), frames[6].data(), kKeyBytes);
  const std::string text = to_z85(key);
  if (!peers.ok()) return refused(decision, "no key can be looked up: " + peers.error().describe());
  const bool known = std::any_of(peers->keys.begin(), peers->keys.end(), [&](auto& peer) { return peer.key == key; });
  if (!known) {
    std::string reason = "its key " + text + " is not among the peers' keys";
    if (!peers->problems.empty()) reason += "; not read: " + peers->problems.front();
    return refused(decision, reason);
  }
  decision.allowed = true;
  decision.user_id = text;
  return decision;
}

std::vector<std::string> reply_of(const ZapDecision& decision) {
  return {kVersion,
          decision.request_id,
          decision.allowed ? "200" : "400",
          decision.allowed ? "OK" : "No access",
          decision.user_id,
          ""};
}

}  // namespace tarnfs
