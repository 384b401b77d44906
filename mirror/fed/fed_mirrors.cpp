#include "mirror/fed/fed_mirrors.h"

#include <fmt/format.h>

#include <algorithm>

#include "fs/control/protocol.h"
#include "mirror/fed/peer_report.h"

namespace tarnfs {

Status FedMirrors::make(const FedMirrorsOptions& options) {
  when_none_ = options.when_none;
  encrypted_ = !options.channel.keys_directory.empty();
  for (const std::string& url : options.urls) {
    SenderOptions sender = options.sender;
    sender.url = url;
    sender.ping_interval_ms = static_cast<std::uint64_t>(options.channel.heartbeat_interval.count());
    sender.dead_ms = static_cast<std::uint64_t>(options.channel.heartbeat_timeout.count());
    TARNFS_ASSIGN(sender.connect, zmq_channel_factory(url, options.channel));
    senders_.push_back(Sender::create(std::move(sender)));
    fan_out_.add(*senders_.back());
  }
  return {};
}

void FedMirrors::start(ReplicationSource& source) {
  for (const auto& sender : senders_) sender->start(source);
}

void FedMirrors::stop() {
  for (const auto& sender : senders_) sender->stop();
}

Status FedMirrors::check_any() const {
  if (!senders_.empty()) return {};
  return Error(ErrorCode::kInvalid, when_none_);
}

bool FedMirrors::any_away() const {
  return std::any_of(senders_.begin(), senders_.end(), [](const auto& sender) {
    const SenderState state = sender->status().state;
    return !is_connected(state) && state != SenderState::kPaused;
  });
}

Status FedMirrors::wait_published(Cp cp, std::chrono::milliseconds timeout, const std::function<bool()>& given_up) {
  for (const auto& sender : senders_) {
    const Status published = sender->wait_published(cp, timeout, given_up);
    if (!published.ok()) return published.error().in("mirror " + sender->status().url);
  }
  return {};
}

void FedMirrors::add_commands(std::map<std::string, ControlCommand>& commands) {
  commands["pause"].run = [this](const ControlRequest&) { return answer_pause(true); };
  commands["resume"].run = [this](const ControlRequest&) { return answer_pause(false); };
  commands["limit"].run = [this](const ControlRequest& request) { return answer_limit(request); };
}

// Does not wait for the senders: whoever waits for a mirror to publish something is to be let go by this.
Result<std::string> FedMirrors::answer_pause(bool pause) {
  TARNFS_TRY(check_any());
  for (const auto& sender : senders_) {
    if (pause) {
      sender->pause();
    } else {
      sender->resume();
    }
  }
  return std::string("{}");
}

Result<std::string> FedMirrors::answer_limit(const ControlRequest& request) {
  TARNFS_TRY(check_any());
  TARNFS_ASSIGN(const std::uint64_t bytes_per_second, bytes_in(request, "rate", 0));
  for (const auto& sender : senders_) sender->limit(bytes_per_second);
  return fmt::format("{{\"limit_bytes_per_second\":{}}}", bytes_per_second);
}

std::vector<PeerReport> FedMirrors::report() const {
  std::vector<PeerReport> peers;
  for (const auto& sender : senders_) peers.push_back(peer_report_of(sender->status(), encrypted_));
  return peers;
}

}  // namespace tarnfs
