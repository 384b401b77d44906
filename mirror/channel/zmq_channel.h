// Channels over ZeroMQ and TCP: a DEALER socket at the primary, a ROUTER socket at the mirror.
//
// Purpose: everything about ZeroMQ is behind zmq_channel.cpp and zmq_server.cpp.
//
// Invariants:
//   1. A socket connects once: ZeroMQ's own reconnecting is off, because messages lost in between would break the
//      order that Channel promises. The socket's monitor tells when the connection is gone.
//   2. Memory is bounded by high-water marks in messages and by a largest size of a frame; both sides of the protocol
//      stay far below the marks, so a full queue is a broken peer.
//   3. Nothing waits for a peer when a channel is closed (ZMQ_LINGER 0).
//   4. What leaves this machine is encrypted and authenticated by CURVE: without keys only loopback addresses are
//      taken. There is no way from CURVE down to no encryption: the two sides fail to connect.
//   5. A server has few connections that are not let in: the oldest of them gives way to a new one.
//
// Thread safety: as channel.h; the context is shared by all and has its own threads, so it must be made after fork(2).
// Errors: kInvalid for an address that cannot be used, kBusy when a port is taken, kRefused for one that needs keys,
// and those of key_directory.h.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "common/channel.h"

namespace tarnfs {

struct ZmqOptions {
  int queued_messages_max = 256;  // for each peer and direction
  std::chrono::milliseconds heartbeat_interval{1000};
  std::chrono::milliseconds heartbeat_timeout{5000};  // without a sign of life the connection is closed
  std::chrono::milliseconds handshake_timeout{5000};  // and for TCP to connect
  std::string keys_directory;  // key_directory.h; empty: neither authenticated nor encrypted, loopback only
  // Of a server: how many connections it has beside those of peers that it serves, and how soon the session of a peer
  // ends whose key was removed.
  std::size_t loose_connections_max = 64;
  std::chrono::milliseconds revocation_interval{1000};
};

// kInvalid unless pings are at least 10 ms apart and a peer has time to answer one before it counts as dead, which is a
// day at most.
Status check_heartbeat(std::uint64_t ping_interval_ms, std::uint64_t dead_after_ms);

// kInvalid unless `url` is tcp://HOST:PORT with a port from 1 to 65535 (to listen: 0 as well, for any free one; and *
// as the host, for all addresses).
Status check_connect_url(const std::string& url);
Status check_listen_url(const std::string& url);
// True when only this machine can reach the address: 127.0.0.0/8, ::1 or localhost.
bool is_loopback_url(const std::string& url);
// kRefused when the address is not loopback and there are no keys; otherwise whether the keys can be used.
Status check_keys(const std::string& url, const std::string& keys_directory);

// Each call of the factory starts a new connection to `url`.
Result<ChannelFactory> zmq_channel_factory(const std::string& url, const ZmqOptions& options = {});
Result<std::unique_ptr<ServerChannel>> listen_zmq(const std::string& url, const ZmqOptions& options = {});

}  // namespace tarnfs
