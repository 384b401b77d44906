#include <deque>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "mirror/channel/zmq_channel.h"
#include "mirror/channel/zmq_socket.h"

namespace tarnfs {
namespace {

// Identities of connections that are gone, kept because their last messages may still come.
constexpr std::size_t kGoneMax = 1024;

// ZeroMQ names a peer by a routing id that it never uses twice, and tells the end of a connection by its descriptor,
// which the kernel does use again. An event of a connection comes before the messages of a later connection with the
// same descriptor, so all events are taken before a new peer's first message is believed.
class ZmqServer final : public ServerChannel {
 public:
  // May throw zmq::error_t.
  ZmqServer(const std::string& url, const ZmqOptions& options) : socket_(shared_zmq_context(), ZMQ_ROUTER, options) {
    socket_.socket().set(zmq::sockopt::router_mandatory, true);
    // Only where it is meant: an IPv4 address stays one.
    socket_.socket().set(zmq::sockopt::ipv6, url.find('[') != std::string::npos || url.find('*') != std::string::npos);
    socket_.socket().bind(url);
    address_ = socket_.socket().get(zmq::sockopt::last_endpoint);
  }

  std::string address() const override { return address_; }

  Status send(PeerId peer, Message message) override {
    const auto found = peers_.find(peer);
    if (found == peers_.end()) return Error(ErrorCode::kDisconnected, "the peer is gone");
    bool gone = false;
    if (socket_.send_frames(found->second.routing_id, std::move(message), &gone)) return {};
    if (gone) return Error(ErrorCode::kDisconnected, "the peer is gone");
    return Error(ErrorCode::kBusy, "the peer takes no more messages");
  }

  Result<std::optional<ServerEvent>> receive(std::chrono::nanoseconds timeout) override {
    try {
      bool waited = false;
      for (;;) {
        note_events();
        if (auto event = take_pending()) return event;
        bool overflow = false;
        if (auto frames = socket_.receive_frames(2 + kPayloadFramesMax, &overflow)) {
          note_events();
          note_message(*std::move(frames), overflow);
          continue;
        }
        if (waited) return std::optional<ServerEvent>();
        waited = !socket_.wait(timeout);
      }
    } catch (const zmq::error_t& error) {
      if (error.num() == EINTR) return std::optional<ServerEvent>();
      return zmq_failure("receive on " + address_, error);
    }
  }

  void drop(PeerId peer) override {
    if (const auto found = peers_.find(peer); found != peers_.end()) found->second.dropped = true;
  }

  void wake() override { socket_.wake(); }

 private:
  struct Peer {
    std::string routing_id;
    int descriptor = -1;
    bool dropped = false;
  };

  std::optional<ServerEvent> take_pending() {
    while (!pending_.empty()) {
      ServerEvent event = std::move(pending_.front());
      pending_.pop_front();
      const auto found = peers_.find(event.peer);
      if (event.kind != ServerEvent::Kind::kGone && (found == peers_.end() || found->second.dropped)) continue;
      return event;
    }
    return std::nullopt;
  }

  void note_events() {
    while (auto event = socket_.next_event()) {
      if (event->kind == ZMQ_EVENT_ACCEPTED) open_.insert(event->descriptor);
      if (event->kind == ZMQ_EVENT_DISCONNECTED) note_disconnected(event->descriptor);
    }
  }

  void note_disconnected(int descriptor) {
    open_.erase(descriptor);
    const auto found = by_descriptor_.find(descriptor);
    if (found == by_descriptor_.end()) return;
    const PeerId id = found->second;
    by_descriptor_.erase(found);
    const auto peer = peers_.find(id);
    remember_gone(peer->second.routing_id);
    if (!peer->second.dropped) {
      ServerEvent event;
      event.kind = ServerEvent::Kind::kGone;
      event.peer = id;
      pending_.push_back(std::move(event));
    }
    by_routing_id_.erase(peer->second.routing_id);
    peers_.erase(peer);
  }

  void remember_gone(const std::string& routing_id) {
    if (!gone_.insert(routing_id).second) return;
    gone_order_.push_back(routing_id);
    if (gone_order_.size() <= kGoneMax) return;
    gone_.erase(gone_order_.front());
    gone_order_.pop_front();
  }

  // The peer that a message came from, if its connection still stands.
  std::optional<PeerId> peer_of(const std::string& routing_id, zmq::message_t& frame) {
    if (const auto found = by_routing_id_.find(routing_id); found != by_routing_id_.end()) return found->second;
    if (gone_.contains(routing_id)) return std::nullopt;
    const int descriptor = zmq_msg_get(frame.handle(), ZMQ_SRCFD);
    if (!open_.contains(descriptor)) {
      remember_gone(routing_id);
      return std::nullopt;
    }
    const PeerId id = next_peer_++;
    peers_[id] = Peer{routing_id, descriptor, false};
    by_routing_id_[routing_id] = id;
    by_descriptor_[descriptor] = id;
    return id;
  }

  void note_message(std::vector<zmq::message_t> frames, bool overflow) {
    if (frames.size() < 2) return;  // a routing id and nothing else
    const auto peer = peer_of(frames[0].to_string(), frames[1]);
    if (!peer) return;
    ServerEvent event;
    event.peer = *peer;
    auto message = message_of_frames(std::move(frames), 1, overflow);
    if (message.ok()) {
      event.message = *std::move(message);
    } else {
      event.kind = ServerEvent::Kind::kGarbage;
      event.reason = message.error().message();
    }
    pending_.push_back(std::move(event));
  }

  ZmqSocket socket_;
  std::string address_;
  PeerId next_peer_ = 1;
  std::map<PeerId, Peer> peers_;
  std::unordered_map<std::string, PeerId> by_routing_id_;
  std::unordered_map<int, PeerId> by_descriptor_;
  std::set<int> open_;  // descriptors of the connections that stand
  std::unordered_set<std::string> gone_;
  std::deque<std::string> gone_order_;
  std::deque<ServerEvent> pending_;
};

}  // namespace

Result<std::unique_ptr<ServerChannel>> listen_zmq(const std::string& url, const ZmqOptions& options) {
  TARNFS_TRY(check_listen_url(url));
  try {
    return std::unique_ptr<ServerChannel>(std::make_unique<ZmqServer>(url, options));
  } catch (const zmq::error_t& error) {
    return zmq_failure("listen on " + url, error);
  }
}

}  // namespace tarnfs
