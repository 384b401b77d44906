#include "mirror/receiver/network_loop.h"

#include <algorithm>

#include "common/failpoint.h"
#include "common/log.h"

namespace tarnfs {
namespace {

constexpr std::uint64_t kNsPerMs = 1'000'000;
constexpr std::chrono::seconds kIdleWait{60};

Message message_of(const wire::AnyMessage& message) {
  Message encoded;
  encoded.header = wire::encode(message);
  return encoded;
}

}  // namespace

void NetworkLoop::run() {
  while (!stopping_.load()) {
    flush_outbox();
    auto event = channel_.receive(time_left());
    if (!event.ok()) {
      // The socket itself failed: nothing can be served any more.
      observer_.on_error(event.error().describe());
      log_error("the mirror's network stopped: " + event.error().describe());
      break;
    }
    if (*event) on_event(**std::move(event));
    const std::uint64_t silence_ns = options_.clock->monotonic_ns() - last_heard_ns_;
    if (peer_ && silence_ns >= options_.silence_max_ms * kNsPerMs) end_session("the primary is silent");
  }
  if (peer_) end_session("the mirror stops");
}

std::chrono::nanoseconds NetworkLoop::time_left() const {
  if (!peer_) return kIdleWait;
  const std::uint64_t deadline_ns = last_heard_ns_ + options_.silence_max_ms * kNsPerMs;
  const std::uint64_t now_ns = options_.clock->monotonic_ns();
  return std::chrono::nanoseconds(deadline_ns > now_ns ? deadline_ns - now_ns : 0);
}

void NetworkLoop::on_event(ServerEvent event) {
  switch (event.kind) {
    case ServerEvent::Kind::kMessage:
      on_message(event.peer, std::move(event.message));
      break;
    case ServerEvent::Kind::kGone:
      if (peer_ == event.peer) end_session("the connection broke");
      break;
    case ServerEvent::Kind::kGarbage:
      refuse(event.peer, wire::RefuseCode::kProtocol, event.reason);
      break;
  }
}

void NetworkLoop::on_message(PeerId peer, Message message) {
  auto decoded = wire::decode(message.header);
  if (!decoded.ok()) {
    const bool version = decoded.error().code() == ErrorCode::kIncompatible;
    refuse(peer, version ? wire::RefuseCode::kVersion : wire::RefuseCode::kProtocol, decoded.error().message());
    return;
  }
  if (peer_ == peer) {
    last_heard_ns_ = options_.clock->monotonic_ns();
    observer_.on_received(message.size_bytes());
    on_session_message(*std::move(decoded), std::move(message));
  } else if (std::holds_alternative<wire::Hello>(*decoded)) {
    on_hello(peer, *std::move(decoded));
  } else {
    refuse(peer, wire::RefuseCode::kProtocol, "a primary begins with Hello");
  }
}

void NetworkLoop::on_hello(PeerId peer, wire::AnyMessage hello) {
  const Id128 sender = std::get<wire::Hello>(hello).sender;
  if (sender == options_.own_id && !sender.is_zero()) {
    refuse(peer, wire::RefuseCode::kFailed, "this mirror does not feed itself; give it the address of another one");
    return;
  }
  // A process has one connection at a time: when it makes a new one the old one is broken, whether we heard or not.
  if (peer_ && sender == sender_ && !sender.is_zero()) end_session("the primary connected anew");
  if (peer_) {
    refuse(peer, wire::RefuseCode::kBusy, "this mirror already serves a primary; disconnect that one first");
    return;
  }
  peer_ = peer;
  sender_ = sender;
  ++session_;
  last_heard_ns_ = options_.clock->monotonic_ns();
  Work work;
  work.session = session_;
  work.message = std::move(hello);
  queue_.push(std::move(work));
}

void NetworkLoop::on_session_message(wire::AnyMessage message, Message raw) {
  if (const auto* ping = std::get_if<wire::Ping>(&message)) {
    if (!channel_.send(*peer_, message_of(wire::Pong{ping->stamp})).ok()) end_session("the connection broke");
    return;
  }
  if (std::holds_alternative<wire::Bye>(message)) {
    end_session("the primary said goodbye");
    return;
  }
  std::uint64_t size_bytes = 0;
  if (const auto* blocks = std::get_if<wire::Blocks>(&message)) {
    size_bytes = std::max<std::uint64_t>(blocks->raw_bytes, raw.size_bytes());
  } else if (std::holds_alternative<wire::Offer>(message)) {
    size_bytes = raw.size_bytes();
  } else if (!std::holds_alternative<wire::Root>(message)) {
    refuse(*peer_, wire::RefuseCode::kProtocol, "a primary does not send " + std::string(wire::name_of(message)));
    return;
  }
  // Headers and padding may exceed the raw bytes by a little, so a window is granted twice.
  if (queue_.waiting_bytes() + size_bytes > 2 * options_.window_bytes + kFrameMaxBytes) {
    refuse(*peer_, wire::RefuseCode::kProtocol, "the primary sent more than the window allows");
    return;
  }
  Work work;
  work.session = session_;
  work.message = std::move(message);
  work.payload = std::move(raw.payload);
  work.size_bytes = size_bytes;
  queue_.push(std::move(work));
}

void NetworkLoop::flush_outbox() {
  while (auto answer = queue_.pop_answer()) {
    if (!peer_ || answer->session != session_) continue;  // of a session that is over
    if (const auto* welcome = std::get_if<wire::Welcome>(&answer->message)) {
      observer_.on_connected(true);
      log_info("a primary connected; it is sent from cp " + std::to_string(welcome->cp.value));
    }
    const bool published = std::holds_alternative<wire::Published>(answer->message);
    if (published) TARNFS_FAILPOINT("mirror: before Published");
    const Status sent = channel_.send(*peer_, message_of(answer->message));
    if (published) TARNFS_FAILPOINT("mirror: after Published");
    if (!answer->end_reason.empty()) {
      observer_.on_refused();
      end_session(answer->end_reason);
    } else if (!sent.ok()) {
      end_session(sent.error().describe());
    }
  }
}

void NetworkLoop::end_session(const std::string& reason) {
  channel_.drop(*peer_);
  peer_.reset();
  queue_.end_session(session_);
  observer_.on_connected(false);
  log_info("the session with the primary ended: " + reason);
}

void NetworkLoop::refuse(PeerId peer, wire::RefuseCode code, const std::string& text) {
  // Best effort: a peer that is gone needs no answer.
  if (!channel_.send(peer, message_of(wire::Refuse{code, text})).ok()) log_info("a refused peer is gone already");
  observer_.on_refused();
  observer_.on_error(text);
  if (peer_ == peer) {
    end_session(text);
    return;
  }
  channel_.drop(peer);
  log_warning("refused a peer: " + text);
}

}  // namespace tarnfs
