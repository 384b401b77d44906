#include "mirror/channel/zap_handler.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <utility>
#include <vector>

#include "common/log.h"
#include "mirror/channel/key_directory.h"
#include "mirror/channel/zap_decision.h"

namespace tarnfs {
namespace {

constexpr const char* kZapAddress = "inproc://zeromq.zap.01";
constexpr std::size_t kFramesMax = 16;

std::vector<std::string> take_request(zmq::socket_t& socket) {
  std::vector<std::string> frames;
  zmq::message_t frame;
  while (socket.recv(frame, zmq::recv_flags::dontwait)) {
    if (frames.size() < kFramesMax) frames.push_back(frame.to_string());
    if (!frame.more()) break;
  }
  return frames;
}

}  // namespace

ZapHandler::ZapHandler(std::shared_ptr<zmq::context_t> context, std::string keys_directory,
                       std::shared_ptr<RefusalLog> refusals)
    : context_(std::move(context)),
      keys_directory_(std::move(keys_directory)),
      refusals_(std::move(refusals)),
      questions_(*context_, ZMQ_REP),
      stop_descriptor_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (stop_descriptor_ < 0) throw zmq::error_t();
  questions_.set(zmq::sockopt::linger, 0);
  questions_.bind(kZapAddress);
  thread_ = std::thread([this] { run(); });
}

ZapHandler::~ZapHandler() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(stop_descriptor_, &one, sizeof one);
  thread_.join();
  ::close(stop_descriptor_);
}

void ZapHandler::run() {
  for (;;) {
    std::array<zmq_pollitem_t, 2> items{};
    items[0].socket = questions_.handle();
    items[1].fd = stop_descriptor_;
    for (zmq_pollitem_t& item : items) item.events = ZMQ_POLLIN;
    const int ready = zmq_poll(items.data(), static_cast<int>(items.size()), -1);
    if (ready < 0 && zmq_errno() != EINTR) {
      log_error(std::string("peers cannot be let in any more: ") + zmq_strerror(zmq_errno()));
      return;
    }
    if (ready < 0) continue;
    if ((items[1].revents & ZMQ_POLLIN) != 0) return;
    try {
      answer();
    } catch (const zmq::error_t& error) {
      // Whoever asked is refused, by the end of its handshake time; the next question comes.
      log_warning(std::string("a peer could not be let in: ") + error.what());
    }
  }
}

void ZapHandler::answer() {
  const std::vector<std::string> request = take_request(questions_);
  if (request.empty()) return;
  const ZapDecision decision = decide(request, read_peer_keys(keys_directory_));
  if (!decision.allowed) refusals_->note(decision.address, decision.reason);
  const std::vector<std::string> reply = reply_of(decision);
  for (std::size_t i = 0; i < reply.size(); ++i) {
    const auto flags = i + 1 < reply.size() ? zmq::send_flags::sndmore : zmq::send_flags::none;
    questions_.send(zmq::buffer(reply[i]), flags);
  }
}

}  // namespace tarnfs
