// One connection to a mirror, from the Hello to its end.
//
// Invariants:
//   1. At most window_bytes of blocks, on a slow network less (flow_window.h), and kUnansweredMessagesMax messages are
//      sent and not yet answered.
//   2. Every Root follows exactly the blocks it counts; `stream_base_` is the cp of the last Root sent, or of the
//      mirror's state at the handshake.
//   3. What the mirror has published is pinned by the host; a root that is being copied by the session.
//   4. The volume has the size that the Hello told, and its epoch or the one right after it: when it has others, the
//      session ends and the next Hello tells them. A mirror that feeds another may pass over epochs.
//
// Thread safety: one thread; SessionHost's functions may take locks.
// Errors: run() returns why it ended: kCanceled when stopping, kRefused from the mirror or by us, kDisconnected,
// kCorrupt when the mirror broke the protocol, or an error of our own disk.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "common/channel.h"
#include "common/replication.h"
#include "mirror/sender/change_queue.h"
#include "mirror/sender/flow_window.h"
#include "mirror/sender/sender.h"
#include "mirror/sender/token_bucket.h"
#include "mirror/wire/messages.h"
#include "mirror/wire/packer.h"

namespace tarnfs {

// What a mirror says at the handshake that it has.
struct MirrorState {
  Cp cp;  // 0: nothing
  std::uint64_t root_checksum = 0;
  Timestamp time;             // when it was published here
  bool is_known_ours = true;  // false: it may be of another line of the volume, and all blocks have to be compared
};

// What a session tells and asks the sender.
class SessionHost {
 public:
  virtual ~SessionHost() = default;
  // The connection is to end: the sender stops, or was paused.
  virtual bool ending() const = 0;
  virtual std::uint64_t limit_bytes_per_second() const = 0;
  // From now on announced blocks are kept; `newest` is published here.
  virtual void open_queue(Cp newest) = 0;
  virtual ChangeQueue::Step next_step(Cp base, std::size_t blocks_max) = 0;
  virtual void on_state(SenderState state) = 0;
  // This process has sent the mirror that root, or found at an earlier handshake that it is ours.
  virtual bool has_met(Cp cp, std::uint64_t root_checksum) const = 0;
  virtual void on_mirror_state(const MirrorState& state) = 0;
  virtual void on_root_sent(Cp cp, std::uint64_t root_checksum) = 0;
  virtual void on_mirror_published(Cp cp) = 0;
  // The root that is being copied, while it is.
  virtual void on_copy_pinned(std::optional<PinId> pin) = 0;
  // All blocks are to be compared, because those of the mirror's root were given up here, or it may not be ours.
  virtual bool compare_due() const = 0;
  virtual void on_compared() = 0;
  virtual void on_sent(std::uint64_t raw_bytes, std::uint64_t wire_bytes) = 0;
  // Bytes of blocks that the mirror turned out to have.
  virtual void on_had(std::uint64_t raw_bytes) = 0;
  virtual void on_catch_up(std::uint64_t bytes_total) = 0;
  virtual void on_rtt(std::uint64_t rtt_ns) = 0;
};

class Session {
 public:
  Session(Channel& channel, ReplicationSource& source, SessionHost& host, const SenderOptions& options)
      : channel_(channel),
        source_(source),
        host_(host),
        options_(options),
        flow_(options.window_bytes, options.dead_ms * kPatiencePerDeadMsNs) {}
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  Error run();
  // The mirror has published something that was sent on this connection.
  bool published() const { return published_; }
  // The mirror has what we never had.
  bool diverged() const { return diverged_; }
  // The mirror has a cp that this source has not got yet; 0: it has not.
  Cp ahead() const { return ahead_; }

 private:
  // A ping may wait for a quarter of the time after which the mirror counts as dead.
  static constexpr std::uint64_t kPatiencePerDeadMsNs = 1'000'000 / 4;

  Status handshake();
  Status judge(const wire::Welcome& welcome, const RootBlock& ours);
  Status stream();
  bool may_compare() const;
  Status catch_up();
  Status check_told(const RootBlock& root) const;
  Status send_changed(const RootBlock& root);
  Status offer_changed(const RootBlock& root, Cp since);
  Status offer(const RootBlock& root, const std::vector<BlockPointer>& blocks);
  Status pump_if_due();
  Status wait_for_limit();
  std::size_t blocks_max() const;
  std::size_t offer_blocks_max() const;
  Status send_batch(Cp cp, const std::vector<BlockWrite>& blocks);
  Status send_root(const RootBlock& root);
  Status send(const wire::AnyMessage& message);
  // Takes what the mirror sent; with `wait` until something came, somebody woke us or a ping is due.
  Status pump(bool wait, std::uint64_t wait_max_ns = ~std::uint64_t{0});
  Status keep_alive();
  Status check_alive() const;
  Status handle(const Message& message);
  Status on_credit(const wire::Credit& credit);
  Status on_published(const wire::Published& published);
  Status on_want(const wire::Want& want);
  std::uint64_t unanswered_messages() const { return sequence_ - credited_sequence_ + sent_roots_.size(); }

  Channel& channel_;
  ReplicationSource& source_;
  SessionHost& host_;
  const SenderOptions& options_;

  std::optional<wire::Welcome> welcome_;
  bool welcomed_ = false;
  bool published_ = false;
  bool diverged_ = false;
  bool is_known_ours_ = true;  // what the mirror has
  Cp ahead_;
  std::uint64_t window_bytes_ = 0;
  std::uint64_t told_size_blocks_ = 0;  // by the Hello
  Epoch told_epoch_;                    // by it, or the last root

  Cp stream_base_;
  Cp mirror_cp_;
  wire::RunningChecksum since_root_;
  std::uint32_t offered_count_ = 0;         // of the offer that is not answered; 0: there is none
  std::optional<wire::Want> want_;          // its answer
  std::deque<wire::Published> sent_roots_;  // not answered, oldest first

  std::uint64_t sequence_ = 0;
  std::uint64_t credited_sequence_ = 0;
  std::uint64_t sent_bytes_ = 0;
  std::uint64_t credited_bytes_ = 0;

  wire::Packer packer_;
  TokenBucket bucket_;
  FlowWindow flow_;
  std::uint64_t next_ping_ns_ = 0;
  std::optional<std::uint64_t> unanswered_ping_ns_;  // since when nothing came after a ping
  std::uint64_t last_pump_ns_ = 0;
};

}  // namespace tarnfs
