// The thread that ZeroMQ asks, at the end of each CURVE handshake of its context, whether the peer may come in.
//
// Invariants:
//   1. The keys are read anew for every question: a file that is removed lets nobody in any more. What that costs is
//      bounded by the number of keys.
//   2. Made before a socket of the context listens, and ends after it: ZeroMQ lets everybody in while no handler is
//      there. (Only a message that carries the user named here is believed, see zmq_server.cpp.)
//
// Thread safety: made and destroyed by one thread.
// Included by the .cpp files of this folder only: it brings in zmq.hpp.
#pragma once

#include <zmq.hpp>

#include <memory>
#include <string>
#include <thread>

#include "mirror/channel/refusal_log.h"

namespace tarnfs {

class ZapHandler {
 public:
  // May throw zmq::error_t.
  ZapHandler(std::shared_ptr<zmq::context_t> context, std::string keys_directory, std::shared_ptr<RefusalLog> refusals);
  ~ZapHandler();
  ZapHandler(const ZapHandler&) = delete;
  ZapHandler& operator=(const ZapHandler&) = delete;

 private:
  void run();
  void answer();

  const std::shared_ptr<zmq::context_t> context_;
  const std::string keys_directory_;
  const std::shared_ptr<RefusalLog> refusals_;
  zmq::socket_t questions_;  // the thread's, while it runs
  const int stop_descriptor_;
  std::thread thread_;
};

}  // namespace tarnfs
