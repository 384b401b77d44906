// What both kinds of ZeroMQ channels need: a socket with its monitor and a way to be woken up.
//
// Thread safety: all functions belong to the socket's thread, but for wake().
// Ownership: closes the monitor before the socket.
// Included by the .cpp files of this folder only: it brings in zmq.hpp.
#pragma once

#include <zmq.hpp>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/channel.h"
#include "mirror/channel/key_directory.h"
#include "mirror/channel/zmq_channel.h"

namespace tarnfs {

struct SocketEvent {
  int kind = 0;   // ZMQ_EVENT_*
  int value = 0;  // a descriptor, or what the kind says
};

enum class Waited { kReady, kTimeout, kWoken };

class ZmqSocket {
 public:
  // May throw zmq::error_t.
  ZmqSocket(std::shared_ptr<zmq::context_t> context, int type, const ZmqOptions& options);
  ~ZmqSocket();
  ZmqSocket(const ZmqSocket&) = delete;
  ZmqSocket& operator=(const ZmqSocket&) = delete;

  zmq::socket_t& socket() { return socket_; }
  // The next event of the connections below, if there is one.
  std::optional<SocketEvent> next_event();
  // The frames of the next message, if there is one. What exceeds `frames_max` is thrown away, and *overflow set.
  std::optional<std::vector<zmq::message_t>> receive_frames(std::size_t frames_max, bool* overflow);
  // False when the queue of the peer is full or there is no such peer; *gone tells which.
  bool send_frames(const std::optional<std::string>& routing_id, Message message, bool* gone);
  // Waits until there may be a message or an event.
  Waited wait(std::chrono::nanoseconds timeout);
  void wake();

 private:
  std::shared_ptr<zmq::context_t> context_;
  zmq::socket_t socket_;
  zmq::socket_t monitor_;
  int wake_descriptor_ = -1;
};

// CURVE, as the server that asks the context's ZapHandler, or as a client of the server with that key. Before bind or
// connect. May throw zmq::error_t.
void be_curve_server(zmq::socket_t& socket, const SecretKey& own);
void be_curve_client(zmq::socket_t& socket, const SecretKey& own, const PublicKey& server);

// The process's context, made at the first call; lives as long as somebody holds it.
std::shared_ptr<zmq::context_t> shared_zmq_context();

// Turns received frames into a message, from `first` on.
Result<Message> message_of_frames(std::vector<zmq::message_t> frames, std::size_t first, bool overflow);

Error zmq_failure(const std::string& what, const zmq::error_t& error);

}  // namespace tarnfs
