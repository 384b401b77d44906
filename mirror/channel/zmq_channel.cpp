#include "mirror/channel/zmq_channel.h"

#include "mirror/channel/zmq_socket.h"

namespace tarnfs {
namespace {

class ZmqChannel final : public Channel {
 public:
  // May throw zmq::error_t.
  ZmqChannel(std::string url, const ZmqOptions& options)
      : url_(std::move(url)), socket_(shared_zmq_context(), ZMQ_DEALER, options) {
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
        waited = !socket_.wait(timeout);
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
      } else {
        broken_ = true;
      }
    }
    return broken_;
  }

  Error disconnected() const {
    return Error(ErrorCode::kDisconnected, connected_
                                               ? "the connection to " + url_ + " broke"
                                               : "cannot connect to " + url_ + "; check that tarn-mirrord runs there");
  }

  const std::string url_;
  ZmqSocket socket_;
  bool connected_ = false;
  bool broken_ = false;
};

}  // namespace

Result<ChannelFactory> zmq_channel_factory(const std::string& url, const ZmqOptions& options) {
  TARNFS_TRY(check_connect_url(url));
  return ChannelFactory([url, options]() -> Result<std::unique_ptr<Channel>> {
    try {
      return std::unique_ptr<Channel>(std::make_unique<ZmqChannel>(url, options));
    } catch (const zmq::error_t& error) {
      return zmq_failure("connect to " + url, error);
    }
  });
}

}  // namespace tarnfs
