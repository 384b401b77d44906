// The receiver's network thread: who has the session, and what goes to the worker.
//
// Thread safety: run() is the thread; stop() may be called from any other.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "common/channel.h"
#include "mirror/receiver/receiver.h"
#include "mirror/receiver/work_queue.h"

namespace tarnfs {

// What the network thread tells the status.
class NetworkObserver {
 public:
  virtual ~NetworkObserver() = default;
  virtual void on_connected(bool connected) = 0;
  virtual void on_received(std::uint64_t wire_bytes) = 0;
  virtual void on_refused() = 0;
  virtual void on_error(const std::string& text) = 0;
};

class NetworkLoop {
 public:
  NetworkLoop(ServerChannel& channel, WorkQueue& queue, NetworkObserver& observer, const ReceiverOptions& options)
      : channel_(channel), queue_(queue), observer_(observer), options_(options) {}

  void run();
  void stop() {
    stopping_.store(true);
    channel_.wake();
  }

 private:
  void on_event(ServerEvent event);
  void on_message(PeerId peer, Message message);
  void on_session_message(wire::AnyMessage message, Message raw);
  void on_hello(PeerId peer, wire::AnyMessage hello);
  void flush_outbox();
  void end_session(const std::string& reason);
  void refuse(PeerId peer, wire::RefuseCode code, const std::string& text);
  std::chrono::nanoseconds time_left() const;

  ServerChannel& channel_;
  WorkQueue& queue_;
  NetworkObserver& observer_;
  const ReceiverOptions options_;
  std::atomic<bool> stopping_{false};

  // Of the network thread alone.
  std::optional<PeerId> peer_;  // who has the session
  std::uint64_t session_ = 0;   // its number; of the last one when nobody has it
  Id128 sender_;                // who that is: the same process in each of its connections
  std::uint64_t last_heard_ns_ = 0;
};

}  // namespace tarnfs
