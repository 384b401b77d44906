#include "mirror/channel/zmq_channel.h"

#include "mirror/channel/zmq_socket.h"

namespace tarnfs {
namespace {

struct ClientKeys {
  SecretKey own;
  PublicKey mirror;
};

class ZmqChannel final : public Channel {
 public:
  // May throw zmq::error_t.
  ZmqChannel(std::string url, const ZmqOptions& options, const std::optional<ClientKeys>& keys)
      : url_(std::move(url)), encrypted_(keys.has_value()), socket_(shared_zmq_context(), ZMQ_DEALER, options) {
    if (keys) be_curve_client(socket_.socket(), keys->own, keys->mirror);
    socket_.socket().set(zmq::sockopt::ipv6, true);  // a name may have addresses of both kinds
    socket_.socket().connect(url_);
  }

  Status send(Message message) override {
    if (broken_) return disconnected();
    bool gone = false;
    if (socket_.send_frames(std::nullopt, std::move(message), &gone)) return {};
    broken_ = true;
    if (gone) return disconnected();
    return Error(ErrorCode::kBusy, "the connection to " + url_ + " takes no more messages");
  }

  Result<std::optional<Message>> receive(std::chrono::nanoseconds timeout) override {
    try {
      bool waited = false;
      for (;;) {
        bool overflow = false;
        if (auto frames = socket_.receive_frames(1 + kPayloadFramesMax, &overflow)) {
          TARNFS_ASSIGN(Message message, message_of_frames(*std::move(frames), 0, overflow));
          return std::optional<Message>(std::move(message));
        }
        // Only when all that had arrived was taken does the end of the connection count.
        if (broken_) return disconnected();
        if (note_events()) continue;
        if (waited) return std::optional<Message>();
        waited = socket_.wait(timeout) != Waited::kReady;
      }
    } catch (const zmq::error_t& error) {
      if (error.num() == EINTR) return std::optional<Message>();
      broken_ = true;
      return zmq_failure("receive from " + url_, error);
    }
  }

  void wake() override { socket_.wake(); }

 private:
  // True when the connection turned out to be gone.
  bool note_events() {
    while (auto event = socket_.next_event()) {
      if (event->kind == ZMQ_EVENT_CONNECTED) {
        connected_ = true;
      } else if (event->kind == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
        let_in_ = true;
      } else {
        // The first tells why; what follows is that the connection is closed.
        if (!broken_) first_failure_ = *event;
        broken_ = true;
      }
    }
    return broken_;
  }

  Error disconnected() const {
    std::string text = "the connection to " + url_ + " broke";
    if (!connected_) {
      text = "cannot connect to " + url_ + "; check that tarn-mirrord runs there";
    } else if (!let_in_) {
      text = "the mirror at " + url_ + " " + why_not_let_in();
    }
    return Error(ErrorCode::kDisconnected, text);
  }

  std::string why_not_let_in() const {
    if (first_failure_.kind == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH) {
      return "does not let this machine in: copy its public.key into the mirror's DIR/peers";
    }
    if (first_failure_.kind == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL &&
        first_failure_.value == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH) {
      return encrypted_ ? "works without keys: give it --keys DIR" : "requires keys: mount with keys=DIR";
    }
    // It may have closed the connection before its side of the handshake was read here.
    if (!encrypted_) return "ended the handshake: if it requires keys, mount with keys=DIR";
    return "ended the handshake: check that it was given --keys, and that the key in DIR/peers here is its public.key";
  }

  const std::string url_;
  const bool encrypted_;
  ZmqSocket socket_;
  bool connected_ = false;
  bool let_in_ = false;
  SocketEvent first_failure_;
  bool broken_ = false;
};

Result<ClientKeys> read_client_keys(const std::string& url, const std::string& directory) {
  ClientKeys keys;
  TARNFS_ASSIGN(keys.own, read_secret_key(directory));
  TARNFS_ASSIGN(keys.mirror, read_mirror_key(directory, url));
  return keys;
}

}  // namespace

Result<ChannelFactory> zmq_channel_factory(const std::string& url, const ZmqOptions& options) {
  TARNFS_TRY(check_connect_url(url));
  TARNFS_TRY(check_keys(url, options.keys_directory));
  if (!options.keys_directory.empty()) {
    TARNFS_ASSIGN([[maybe_unused]] const ClientKeys usable, read_client_keys(url, options.keys_directory));
  }
  return ChannelFactory([url, options]() -> Result<std::unique_ptr<Channel>> {
    std::optional<ClientKeys> keys;
    if (!options.keys_directory.empty()) {
      // At each connection anew: keys are exchanged without a new mount.
      TARNFS_ASSIGN(keys, read_client_keys(url, options.keys_directory));
    }
    try {
      return std::unique_ptr<Channel>(std::make_unique<ZmqChannel>(url, options, keys));
    } catch (const zmq::error_t& error) {
      return zmq_failure("connect to " + url, error);
    }
  });
}

}  // namespace tarnfs
