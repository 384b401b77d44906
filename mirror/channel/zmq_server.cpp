#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "common/log.h"
#include "mirror/channel/key_directory.h"
#include "mirror/channel/refusal_log.h"
#include "mirror/channel/zap_handler.h"
#include "mirror/channel/zmq_channel.h"
#include "mirror/channel/zmq_socket.h"

namespace tarnfs {
namespace {

// Identities of connections that are gone, kept because their last messages may still come.
constexpr std::size_t kGoneMax = 1024;
// Connections that the kernel holds for us until ZeroMQ takes them.
constexpr int kBacklog = 64;

using Instant = std::chrono::steady_clock::time_point;

// The network address at the other end. For texts only: the descriptor may be another's by now.
std::string peer_address_of(int descriptor) {
  sockaddr_storage storage = {};
  socklen_t size = sizeof storage;
  std::array<char, INET6_ADDRSTRLEN> text{};
  const void* address = nullptr;
  if (::getpeername(descriptor, reinterpret_cast<sockaddr*>(&storage), &size) == 0) {
    if (storage.ss_family == AF_INET) address = &reinterpret_cast<const sockaddr_in&>(storage).sin_addr;
    if (storage.ss_family == AF_INET6) address = &reinterpret_cast<const sockaddr_in6&>(storage).sin6_addr;
  }
  if (address == nullptr || ::inet_ntop(storage.ss_family, address, text.data(), text.size()) == nullptr) {
    return "an unknown address";
  }
  return text.data();
}

// The property of a message in which ZeroMQ keeps the user that the ZAP handler named; its macro is in the draft API.
constexpr const char* kUserId = "User-Id";

// The peer's key, which the ZAP handler has set; empty without CURVE.
std::string user_id_of(zmq::message_t& frame) {
  const char* text = zmq_msg_gets(frame.handle(), kUserId);
  return text == nullptr ? std::string() : text;
}

// With keys a context of its own: a context has one ZAP handler.
std::shared_ptr<zmq::context_t> context_for(const ZmqOptions& options) {
  return options.keys_directory.empty() ? shared_zmq_context() : std::make_shared<zmq::context_t>(1);
}

// ZeroMQ names a peer by a routing id that it never uses twice, and tells the end of a connection by its descriptor,
// which the kernel does use again. An event of a connection comes before the messages of a later connection with the
// same descriptor, so all events are taken before a new peer's first message is believed.
//
// A connection is loose until its peer's first message, and again when the peer was dropped. The oldest loose one is
// closed when there are too many, so that those who only connect take neither memory nor descriptors from the peer that
// is served.
class ZmqServer final : public ServerChannel {
 public:
  // May throw zmq::error_t.
  ZmqServer(const std::string& url, const ZmqOptions& options, const std::optional<SecretKey>& key)
      : options_(options),
        context_(context_for(options)),
        refusals_(std::make_shared<RefusalLog>()),
        socket_(context_, ZMQ_ROUTER, options) {
    if (key) {
      zap_ = std::make_unique<ZapHandler>(context_, options.keys_directory, refusals_);
      be_curve_server(socket_.socket(), *key);
    }
    socket_.socket().set(zmq::sockopt::backlog, kBacklog);
    socket_.socket().set(zmq::sockopt::router_mandatory, true);
    // Only where it is meant: an IPv4 address stays one.
    socket_.socket().set(zmq::sockopt::ipv6, url.find('[') != std::string::npos || url.find('*') != std::string::npos);
    socket_.socket().bind(url);
    address_ = socket_.socket().get(zmq::sockopt::last_endpoint);
  }

  std::string address() const override { return address_; }

  Status send(PeerId peer, Message message) override {
    const auto found = peers_.find(peer);
    if (found == peers_.end() || found->second.dropped) return Error(ErrorCode::kDisconnected, "the peer is gone");
    bool gone = false;
    if (socket_.send_frames(found->second.routing_id, std::move(message), &gone)) return {};
    if (gone) return Error(ErrorCode::kDisconnected, "the peer is gone");
    return Error(ErrorCode::kBusy, "the peer takes no more messages");
  }

  Result<std::optional<ServerEvent>> receive(std::chrono::nanoseconds timeout) override {
    const Instant start = std::chrono::steady_clock::now();
    try {
      bool waited = false;
      for (;;) {
        note_events();
        end_revoked();
        if (auto event = take_pending()) return event;
        bool overflow = false;
        if (auto frames = socket_.receive_frames(2 + kPayloadFramesMax, &overflow)) {
          note_events();
          note_message(*std::move(frames), overflow);
          continue;
        }
        if (waited) return std::optional<ServerEvent>();
        waited = wait(timeout, start);
      }
    } catch (const zmq::error_t& error) {
      if (error.num() == EINTR) return std::optional<ServerEvent>();
      return zmq_failure("receive on " + address_, error);
    }
  }

  void drop(PeerId peer) override {
    const auto found = peers_.find(peer);
    if (found == peers_.end() || found->second.dropped) return;
    found->second.dropped = true;
    make_loose(found->second.descriptor);
  }

  void wake() override { socket_.wake(); }

 private:
  struct Peer {
    std::string routing_id;
    int descriptor = -1;
    bool dropped = false;
    std::string key;  // Z85; empty without CURVE
  };
  struct Connection {
    std::uint64_t number = 0;  // never used twice
    std::string address;
    std::uint64_t loose_order = 0;  // its place in loose_; 0: it is not there
    bool spoke = false;
  };

  // True when receive() is over: the timeout ran out, or wake() was called.
  bool wait(std::chrono::nanoseconds timeout, Instant start) {
    const auto spent = std::chrono::steady_clock::now() - start;
    const auto left = std::max<std::chrono::nanoseconds>(timeout - spent, std::chrono::nanoseconds(0));
    const bool in_parts = zap_ && !peers_.empty() && left > options_.revocation_interval;
    const Waited waited = socket_.wait(in_parts ? options_.revocation_interval : left);
    return waited == Waited::kWoken || (waited == Waited::kTimeout && !in_parts);
  }

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
    take_events();
    while (loose_.size() > options_.loose_connections_max) {
      const int descriptor = loose_.begin()->second;
      refusals_->note(open_.at(descriptor).address, "too many connections that are not let in");
      end_connection(descriptor);
    }
  }

  void take_events() {
    while (auto event = socket_.next_event()) {
      if (event->kind == ZMQ_EVENT_ACCEPTED) note_accepted(event->value);
      if (event->kind == ZMQ_EVENT_DISCONNECTED) note_disconnected(event->value);
    }
  }

  void note_accepted(int descriptor) {
    Connection& connection = open_[descriptor];
    make_fast(connection);
    connection = Connection{.number = next_connection_++, .address = peer_address_of(descriptor)};
    make_loose(descriptor);
  }

  void make_loose(int descriptor) {
    const auto found = open_.find(descriptor);
    if (found == open_.end() || found->second.loose_order != 0) return;
    found->second.loose_order = next_loose_++;
    loose_[found->second.loose_order] = descriptor;
  }

  void make_fast(Connection& connection) {
    loose_.erase(connection.loose_order);
    connection.loose_order = 0;
  }

  // Closes a connection from our side; that it is gone is told as always. ZeroMQ tells that a connection is gone before
  // it closes the descriptor: if nothing is told after our copy was made, the copy is this connection's.
  void end_connection(int descriptor) {
    const std::uint64_t number = open_.at(descriptor).number;
    make_fast(open_.at(descriptor));
    const int copy = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
    take_events();
    const auto found = open_.find(descriptor);
    if (copy >= 0 && found != open_.end() && found->second.number == number) ::shutdown(copy, SHUT_RDWR);
    if (copy >= 0) ::close(copy);
  }

  // Ends the sessions of peers whose key is no longer there.
  void end_revoked() {
    if (!zap_ || peers_.empty()) return;
    const Instant now = std::chrono::steady_clock::now();
    if (now < next_revocation_) return;
    next_revocation_ = now + options_.revocation_interval;
    const auto keys = read_peer_keys(options_.keys_directory);
    if (!keys.ok() && keys.error().code() == ErrorCode::kIo) {
      log_warning("cannot look for revoked keys: " + keys.error().describe());
      return;
    }
    std::set<std::string> allowed;
    if (keys.ok()) {
      for (const PeerKey& peer : keys->keys) allowed.insert(to_z85(peer.key));
    }
    std::vector<PeerId> revoked;
    for (const auto& [id, peer] : peers_) {
      if (!peer.dropped && !allowed.contains(peer.key)) revoked.push_back(id);
    }
    for (const PeerId id : revoked) end_revoked_peer(id);
  }

  void end_revoked_peer(PeerId id) {
    const auto found = peers_.find(id);
    if (found == peers_.end()) return;  // gone while another one was ended
    log_warning("the key " + found->second.key + " is no longer among the peers' keys: its connection is ended");
    found->second.dropped = true;
    ServerEvent event;
    event.kind = ServerEvent::Kind::kGone;
    event.peer = id;
    pending_.push_back(std::move(event));
    end_connection(found->second.descriptor);
  }

  void note_disconnected(int descriptor) {
    if (const auto connection = open_.find(descriptor); connection != open_.end()) {
      if (!connection->second.spoke) {
        refusals_->note(connection->second.address, "it ended, or was ended, before it was let in");
      }
      make_fast(connection->second);
      open_.erase(connection);
    }
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
    std::string key = user_id_of(frame);
    // ZeroMQ lets everybody in when it finds no handler to ask; we do not.
    if (zap_ && key.empty()) return std::nullopt;
    const PeerId id = next_peer_++;
    open_.at(descriptor).spoke = true;
    make_fast(open_.at(descriptor));
    peers_[id] = Peer{routing_id, descriptor, false, std::move(key)};
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

  const ZmqOptions options_;
  const std::shared_ptr<zmq::context_t> context_;
  const std::shared_ptr<RefusalLog> refusals_;
  std::unique_ptr<ZapHandler> zap_;  // with keys; ends after the socket
  ZmqSocket socket_;
  std::string address_;
  PeerId next_peer_ = 1;
  std::map<PeerId, Peer> peers_;
  std::unordered_map<std::string, PeerId> by_routing_id_;
  std::unordered_map<int, PeerId> by_descriptor_;
  std::unordered_map<int, Connection> open_;  // by descriptor: the connections that stand
  std::map<std::uint64_t, int> loose_;        // their descriptors, the oldest first
  std::uint64_t next_connection_ = 1;
  std::uint64_t next_loose_ = 1;
  Instant next_revocation_{};
  std::unordered_set<std::string> gone_;
  std::deque<std::string> gone_order_;
  std::deque<ServerEvent> pending_;
};

}  // namespace

Result<std::unique_ptr<ServerChannel>> listen_zmq(const std::string& url, const ZmqOptions& options) {
  TARNFS_TRY(check_listen_url(url));
  TARNFS_TRY(check_keys(url, options.keys_directory));
  std::optional<SecretKey> key;
  if (!options.keys_directory.empty()) {
    TARNFS_ASSIGN(key, read_secret_key(options.keys_directory));
  }
  try {
    return std::unique_ptr<ServerChannel>(std::make_unique<ZmqServer>(url, options, key));
  } catch (const zmq::error_t& error) {
    return zmq_failure("listen on " + url, error);
  }
}

}  // namespace tarnfs
