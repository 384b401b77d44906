#include "mirror/channel/zmq_socket.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "common/mutex.h"

namespace tarnfs {
namespace {

constexpr int kWatchedEvents = ZMQ_EVENT_CONNECTED | ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED |
                               ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                               ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;

void set_options(zmq::socket_t& socket, const ZmqOptions& options) {
  socket.set(zmq::sockopt::linger, 0);
  socket.set(zmq::sockopt::sndhwm, options.queued_messages_max);
  socket.set(zmq::sockopt::rcvhwm, options.queued_messages_max);
  socket.set(zmq::sockopt::maxmsgsize, static_cast<std::int64_t>(kFrameMaxBytes));
  socket.set(zmq::sockopt::reconnect_ivl, -1);
  socket.set(zmq::sockopt::heartbeat_ivl, static_cast<int>(options.heartbeat_interval.count()));
  socket.set(zmq::sockopt::heartbeat_timeout, static_cast<int>(options.heartbeat_timeout.count()));
  socket.set(zmq::sockopt::handshake_ivl, static_cast<int>(options.handshake_timeout.count()));
  socket.set(zmq::sockopt::connect_timeout, static_cast<int>(options.handshake_timeout.count()));
}

std::string unique_monitor_address() {
  static std::atomic<std::uint64_t> next{1};
  return "inproc://monitor-" + std::to_string(next.fetch_add(1));
}

// What a frame keeps alive while libzmq has its bytes. libzmq hands it to its I/O thread with ordering of its own; the
// atomic repeats that where the compiler, and a tool that cannot look into libzmq, see it.
struct SharedFrame {
  std::shared_ptr<const void> owner;
  std::atomic<bool> handed_over{false};
};

void release_frame(void* /*bytes*/, void* hint) {
  auto* shared = static_cast<SharedFrame*>(hint);
  TARNFS_ASSERT(shared->handed_over.load(std::memory_order_acquire));
  delete shared;
}

zmq::message_t share(const Frame& frame) {
  auto* shared = new SharedFrame{.owner = frame.owner};
  shared->handed_over.store(true, std::memory_order_release);
  return {const_cast<std::byte*>(frame.bytes.data()), frame.bytes.size(), &release_frame, shared};
}

}  // namespace

ZmqSocket::ZmqSocket(std::shared_ptr<zmq::context_t> context, int type, const ZmqOptions& options)
    : context_(std::move(context)), socket_(*context_, type), monitor_(*context_, ZMQ_PAIR) {
  set_options(socket_, options);
  const std::string address = unique_monitor_address();
  if (zmq_socket_monitor(socket_.handle(), address.c_str(), kWatchedEvents) != 0) throw zmq::error_t();
  monitor_.set(zmq::sockopt::linger, 0);
  monitor_.connect(address);
  wake_descriptor_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_descriptor_ < 0) throw zmq::error_t();
}

ZmqSocket::~ZmqSocket() {
  zmq_socket_monitor(socket_.handle(), nullptr, 0);
  if (wake_descriptor_ >= 0) ::close(wake_descriptor_);
}

std::optional<SocketEvent> ZmqSocket::next_event() {
  zmq::message_t frame;
  if (!monitor_.recv(frame, zmq::recv_flags::dontwait)) return std::nullopt;
  // The first frame: 16 bits of event, 32 bits of value; the second the address.
  SocketEvent event;
  std::uint16_t kind = 0;
  std::int32_t value = 0;
  if (frame.size() >= sizeof kind + sizeof value) {
    std::memcpy(&kind, frame.data(), sizeof kind);
    std::memcpy(&value, frame.data<std::byte>() + sizeof kind, sizeof value);
  }
  event.kind = kind;
  event.value = value;
  while (frame.more() && monitor_.recv(frame, zmq::recv_flags::dontwait)) {
  }
  return event;
}

std::optional<std::vector<zmq::message_t>> ZmqSocket::receive_frames(std::size_t frames_max, bool* overflow) {
  *overflow = false;
  std::vector<zmq::message_t> frames;
  zmq::message_t frame;
  // ZeroMQ delivers whole messages only: when the first frame is here, the others are.
  while (socket_.recv(frame, zmq::recv_flags::dontwait)) {
    const bool more = frame.more();
    if (frames.size() < frames_max) {
      frames.push_back(std::move(frame));
    } else {
      *overflow = true;
    }
    if (!more) return frames;
    frame = zmq::message_t();
  }
  return std::nullopt;
}

bool ZmqSocket::send_frames(const std::optional<std::string>& routing_id, Message message, bool* gone) {
  *gone = false;
  const auto flags_for = [](bool more) {
    return more ? zmq::send_flags::dontwait | zmq::send_flags::sndmore : zmq::send_flags::dontwait;
  };
  try {
    // Only the first frame can be refused: a message is taken whole.
    if (routing_id) {
      zmq::message_t name(routing_id->data(), routing_id->size());
      if (!socket_.send(name, flags_for(true))) return false;
    }
    zmq::message_t header(message.header.data(), message.header.size());
    if (!socket_.send(header, flags_for(!message.payload.empty()))) return false;
    for (std::size_t i = 0; i < message.payload.size(); ++i) {
      zmq::message_t frame = share(message.payload[i]);
      if (!socket_.send(frame, flags_for(i + 1 < message.payload.size()))) return false;
    }
  } catch (const zmq::error_t&) {
    *gone = true;
    return false;
  }
  return true;
}

Waited ZmqSocket::wait(std::chrono::nanoseconds timeout) {
  std::array<zmq_pollitem_t, 3> items{};
  items[0].socket = socket_.handle();
  items[1].socket = monitor_.handle();
  items[2].fd = wake_descriptor_;
  for (zmq_pollitem_t& item : items) item.events = ZMQ_POLLIN;
  // Rounded up, so that a short wait does not become a busy loop.
  const auto wait_ms = std::chrono::ceil<std::chrono::milliseconds>(std::max(timeout, std::chrono::nanoseconds(0)));
  const int ready = zmq_poll(items.data(), static_cast<int>(items.size()), static_cast<long>(wait_ms.count()));
  if (ready <= 0) return Waited::kTimeout;
  if ((items[2].revents & ZMQ_POLLIN) != 0) {
    std::uint64_t count = 0;
    if (::read(wake_descriptor_, &count, sizeof count) == sizeof count) return Waited::kWoken;
  }
  return Waited::kReady;
}

void ZmqSocket::wake() {
  // It can only fail when the counter is full, and then the thread is woken anyway.
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_descriptor_, &one, sizeof one);
}

void be_curve_server(zmq::socket_t& socket, const SecretKey& own) {
  socket.set(zmq::sockopt::curve_server, true);
  socket.set(zmq::sockopt::curve_secretkey, zmq::buffer(own.bytes));
  socket.set(zmq::sockopt::zap_domain, "tarnfs");
}

void be_curve_client(zmq::socket_t& socket, const SecretKey& own, const PublicKey& server) {
  std::array<char, 41> secret_text{};
  std::array<char, 41> public_text{};
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(own.bytes.data());
  if (zmq_z85_encode(secret_text.data(), bytes, own.bytes.size()) == nullptr) throw zmq::error_t();
  const int derived = zmq_curve_public(public_text.data(), secret_text.data());
  secret_text.fill('\0');
  if (derived != 0) throw zmq::error_t();
  socket.set(zmq::sockopt::curve_serverkey, zmq::buffer(server.bytes));
  socket.set(zmq::sockopt::curve_publickey, std::string(public_text.data()));
  socket.set(zmq::sockopt::curve_secretkey, zmq::buffer(own.bytes));
}

std::shared_ptr<zmq::context_t> shared_zmq_context() {
  static Mutex mutex;
  static std::weak_ptr<zmq::context_t> current;
  MutexLock lock(mutex);
  auto context = current.lock();
  if (!context) {
    context = std::make_shared<zmq::context_t>(1);
    current = context;
  }
  return context;
}

Result<Message> message_of_frames(std::vector<zmq::message_t> frames, std::size_t first, bool overflow) {
  if (overflow) return Error(ErrorCode::kCorrupt, "the peer sent a message of too many frames");
  if (frames.size() <= first) return Error(ErrorCode::kCorrupt, "the peer sent an empty message");
  Message message;
  const auto* header = frames[first].data<std::byte>();
  message.header.assign(header, header + frames[first].size());
  for (std::size_t i = first + 1; i < frames.size(); ++i) {
    auto kept = std::make_shared<zmq::message_t>(std::move(frames[i]));
    const std::span<const std::byte> bytes(kept->data<std::byte>(), kept->size());
    message.payload.push_back({std::move(kept), bytes});
  }
  return message;
}

Error zmq_failure(const std::string& what, const zmq::error_t& error) {
  ErrorCode code = ErrorCode::kIo;
  if (error.num() == EADDRINUSE) code = ErrorCode::kBusy;
  if (error.num() == EACCES || error.num() == EPERM) code = ErrorCode::kNotPermitted;
  if (error.num() == EINVAL || error.num() == EADDRNOTAVAIL || error.num() == ENODEV) code = ErrorCode::kInvalid;
  return Error(code, what + ": " + error.what());
}

}  // namespace tarnfs
