// The primary's side of replication: brings one mirror to every consistency point, and keeps it there.
//
// Purpose: takes announced blocks from the engine without ever waiting, and runs the connection in a thread of its own.
//
// Invariants:
//   1. on_blocks() and on_published() never wait for network or disk.
//   2. A root is sent only after all blocks that the mirror lacks for it, and only when it is durable here.
//   3. Memory for announced blocks is bounded by queue_limit_bytes; beyond it the sender catches up by walking.
//   4. From the first handshake on the mirror's newest known root is pinned here, whether it is connected or not, so
//      that none of its blocks changes, until stop(). When that pin is lost to a limit, the mirror is compared in full.
//
//   state          event                                       function
//   connecting  -> handshaking: a channel was made             Sender::run_connection
//   handshaking -> catching_up: the mirror's state is a past   Session::run
//                  one of ours, and the queue does not reach it
//   handshaking -> live: it is ours, or the queue reaches it   Session::run
//   live        -> catching_up: the queue overflowed, or the   Session::catch_up
//                  pin was lost
//   catching_up -> live: the queue reaches the mirror's root   Session::run
//   handshaking -> diverged: it has what we never had          Session::judge
//   any         -> connecting: broken, dead, refused; the next try after a back-off, which doubles until the mirror
//                  has published something: one that lets us in and then cannot write is no better than one that is
//                  away
//   diverged    -> connecting: after a long back-off, or when reconnect_now() asks
//   any         -> paused: pause(), until resume()
//
// The source may be a mirror (source_is_mirror). It announces whole roots only, so that each one is a catch-up; the
// first connection waits for its first root; and a mirror that is ahead of it is left alone until it has got there.
//
// Thread safety: all functions may be called from any thread, but start() and stop() only from one.
// Ownership: the source must outlive stop(). Announced pages are shared until they were sent.
// Errors: what goes wrong on the connection is in status() and in the log, each text once.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "common/channel.h"
#include "common/clock.h"
#include "common/replication.h"
#include "common/result.h"

namespace tarnfs {

struct SenderOptions {
  std::string url;         // for messages
  ChannelFactory connect;  // starts a connection to the mirror
  std::uint64_t queue_limit_bytes = std::uint64_t{256} << 20;
  std::uint64_t batch_blocks_max = 256;                  // 1 to 256
  std::uint64_t window_bytes = std::uint64_t{16} << 20;  // sent and not yet applied by the mirror
  std::uint64_t ping_interval_ms = 1000;
  std::uint64_t dead_ms = 5000;  // a ping unanswered for so long means that the mirror is gone
  std::uint64_t backoff_min_ms = 100;
  std::uint64_t backoff_max_ms = 2000;
  std::uint64_t diverged_retry_ms = 30000;
  Id128 id;                                  // by which the mirror knows us again; zero: a random one
  std::uint64_t refusal_patience_ms = 5000;  // a refusal that lasts longer ends wait_published()
  // Called when status().state has changed, by the sender's thread, under no lock. May be empty.
  std::function<void()> on_state_changed;
  // The source is a mirror itself: it may have no state yet, and be behind the mirror that it feeds.
  bool source_is_mirror = false;
  std::string pin_size_option = "pin_size=";  // for messages
  Clock* clock = &system_clock();
};

enum class SenderState { kConnecting, kHandshaking, kCatchingUp, kLive, kDiverged, kPaused, kStopped };
// The mirror takes what it is sent.
bool is_connected(SenderState state);
// As in `tarn status`: connecting, catching_up, live, diverged, paused, stopped.
std::string_view name_of(SenderState state);

struct SenderStatus {
  std::string url;
  SenderState state = SenderState::kConnecting;
  std::string mode = "async";
  Cp published_cp;  // the newest one that the mirror said it has published
  std::uint64_t lag_cps = 0;
  std::uint64_t lag_bytes = 0;  // see lag_tracker.h
  double lag_seconds = 0;
  std::uint64_t limit_bytes_per_second = 0;  // 0: none
  std::uint64_t sent_bytes = 0;              // raw bytes of blocks
  std::uint64_t wire_bytes = 0;              // the same as messages, compressed
  double compression_ratio = 1;
  double rtt_ms = 0;
  std::uint64_t bytes_done = 0;   // of the catch-up that runs
  std::uint64_t bytes_total = 0;  // 0: unknown
  double eta_seconds = 0;         // 0: unknown
  std::uint64_t queued_bytes = 0;
  std::uint64_t backoff_ms = 0;      // how long the next try waits when the connection ends without a published cp
  std::uint64_t overflow_count = 0;  // cps that did not fit into the queue
  std::uint64_t held_bytes = 0;      // of blocks that are free but for this mirror
  std::uint64_t pins_lost = 0;       // how often those were given up
  bool compare_due = false;          // all blocks are being compared, or will be
  std::string last_error;            // empty while all is well
};

class Sender : public ChangeFeed {
 public:
  static std::unique_ptr<Sender> create(SenderOptions options);

  // Before start() and after stop() the announcements of the engine are only noted.
  virtual void start(ReplicationSource& source) = 0;
  // Breaks the connection. Idempotent; the destructor calls it.
  virtual void stop() = 0;
  virtual SenderStatus status() const = 0;
  // Waits until the mirror has published `cp` or a newer one. kTimeout; kRefused when the histories have diverged, the
  // mirror refuses us and goes on doing so, or replication is paused; kCanceled after stop(), and within a second of
  // `given_up()`, which is called under the sender's lock.
  virtual Status wait_published(Cp cp, std::chrono::milliseconds timeout, const std::function<bool()>& given_up) = 0;
  Status wait_published(Cp cp, std::chrono::milliseconds timeout) {
    return wait_published(cp, timeout, [] { return false; });
  }
  // Waits until the status fulfils `condition`. kTimeout; kCanceled after stop().
  virtual Status wait_for(const std::function<bool(const SenderStatus&)>& condition,
                          std::chrono::milliseconds timeout) = 0;
  // Ends a back-off.
  virtual void reconnect_now() = 0;
  // Ends the connection, and makes none until resume().
  virtual void pause() = 0;
  virtual void resume() = 0;
  // How much may be sent in a second, as it is on the wire; 0: as much as the network takes.
  virtual void limit(std::uint64_t bytes_per_second) = 0;
};

}  // namespace tarnfs
