// The seam to the peer: an ordered, reliable connection for messages that can break at any moment.
//
// Purpose: the sender works on a Channel, the receiver on a ServerChannel; neither knows ZeroMQ, and tests put an
// in-memory network in its place.
//
// Invariants:
//   1. Messages of one connection arrive in the order they were sent, each whole, until the connection breaks; what
//      was on its way then may be lost, but never a message before one that arrived.
//   2. A broken connection stays broken. To go on, a new Channel is made, which the server sees as a new peer.
//   3. send() never waits. What is queued is bounded: beyond the bound it fails.
//
// Thread safety: a channel belongs to one thread, but for wake(), which any thread may call while the channel lives.
// Ownership: a message shares the memory of its payload; nobody changes it after send().
// Errors: kDisconnected when the connection broke, kBusy when too much is queued, kCorrupt when the peer sent what no
// message can be. After any of them the connection is of no more use.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/result.h"

namespace tarnfs {

// Bytes that somebody keeps alive.
struct Frame {
  std::shared_ptr<const void> owner;
  std::span<const std::byte> bytes;

  static Frame of(std::vector<std::byte> bytes) {
    auto kept = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
    const std::span<const std::byte> view(*kept);
    return {std::move(kept), view};
  }
};

struct Message {
  std::vector<std::byte> header;
  std::vector<Frame> payload;

  std::uint64_t size_bytes() const {
    std::uint64_t size = header.size();
    for (const Frame& frame : payload) size += frame.bytes.size();
    return size;
  }
};

// What one message may be at most: receivers take a larger one for garbage.
inline constexpr std::size_t kFrameMaxBytes = std::size_t{2} << 20;
inline constexpr std::size_t kPayloadFramesMax = 4;

class Channel {
 public:
  virtual ~Channel() = default;
  virtual Status send(Message message) = 0;
  // The next message; nothing when the timeout ran out or wake() was called.
  virtual Result<std::optional<Message>> receive(std::chrono::nanoseconds timeout) = 0;
  // Makes the receive() that waits now, or the next one, return at once.
  virtual void wake() = 0;
};

// Starts a connection. May return before the peer answered: a failure to connect is then told by receive().
using ChannelFactory = std::function<Result<std::unique_ptr<Channel>>()>;

// Names one connection to a server; never used again for another one.
using PeerId = std::uint64_t;

struct ServerEvent {
  enum class Kind { kMessage, kGone, kGarbage };
  Kind kind = Kind::kMessage;
  PeerId peer = 0;
  Message message;     // kMessage
  std::string reason;  // kGarbage: what was wrong
};

class ServerChannel {
 public:
  virtual ~ServerChannel() = default;
  // The address that peers connect to, with the port that was chosen.
  virtual std::string address() const = 0;
  // Fails with kDisconnected when this peer is gone.
  virtual Status send(PeerId peer, Message message) = 0;
  // The next event; nothing when the timeout ran out or wake() was called. An error means that the server is broken.
  virtual Result<std::optional<ServerEvent>> receive(std::chrono::nanoseconds timeout) = 0;
  // Forgets a peer: there are no more events of this connection.
  virtual void drop(PeerId peer) = 0;
  virtual void wake() = 0;
};

}  // namespace tarnfs
