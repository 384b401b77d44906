// The mirror's side of replication: serves one primary at a time and publishes its roots.
//
// Purpose: MirrorImage with threads and a network around it. The network thread receives, answers pings and refuses
// strangers at once, however long the disk takes; the worker thread applies, in order.
//
// Invariants:
//   1. At most one peer has the session. All others are refused with a text, and forgotten.
//   2. What waits for the worker is bounded by the window that the Welcome named; a peer that sends more is dropped.
//   3. Whatever a peer sends ends at most its own session; each session's end is logged once.
//
//   session      event                                   function
//   none      -> waiting for the worker: Hello           NetworkLoop::on_hello, MirrorImage::begin_session
//   waiting   -> open: the worker said Welcome           NetworkLoop::flush_outbox
//   any       -> none: refused, garbage, Bye, gone,      NetworkLoop::end_session, MirrorImage::end_session
//                silent for too long, over the window
//
// Thread safety: all functions may be called from any thread, but open(), start() and stop() only from one.
// Ownership: owns image and channel. Storage and target must outlive it.
// Errors: those of MirrorImage::open(); later ones are in status() and in the log.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "common/channel.h"
#include "common/clock.h"
#include "common/replication.h"
#include "common/result.h"
#include "mirror/receiver/kept_blocks.h"
#include "mirror/receiver/mirror_storage.h"
#include "mirror/receiver/staged_device.h"

namespace tarnfs {

struct ReceiverOptions {
  std::uint64_t window_bytes = std::uint64_t{64} << 20;  // received and not yet applied
  std::uint64_t silence_max_ms = 15000;                  // a primary that is silent for so long is gone
  Clock* clock = &system_clock();
  // Of the senders to mirrors of this mirror, which are not let in: it does not feed itself. Zero: there are none.
  Id128 own_id;
  // For mirrors of this mirror: what is kept for them, and who is told of each published root (the feed of `kept`).
  KeptOptions kept;
};

enum class ReceiverState {
  kWaiting,     // no primary
  kConnected,   // a primary, nothing to do
  kReceiving,   // blocks are coming
  kPublishing,  // a root is being made durable and shown
  kStopped,     // nothing more is written after a failure; needs a restart
};
std::string_view name_of(ReceiverState state);

struct ReceiverStatus {
  ReceiverState state = ReceiverState::kWaiting;
  VolumeId volume;  // zero: no image yet
  std::string label;
  std::uint64_t size_blocks = 0;
  std::uint64_t used_blocks = 0;
  StateName published;  // cp 0: nothing yet
  bool connected = false;
  std::uint64_t received_bytes = 0;  // raw, since the start
  std::uint64_t wire_bytes = 0;
  std::uint64_t staged_bytes = 0;
  std::uint64_t refused_count = 0;
  Timestamp last_publish;  // by this process; zero: none
  std::string last_error;
};

class Receiver {
 public:
  // Opens the image, if there is one, and finishes a publish that a crash interrupted. Starts nothing.
  static Result<std::unique_ptr<Receiver>> open(MirrorStorage& storage, const ReceiverOptions& options);
  virtual ~Receiver() = default;

  // What the read-only volume is opened on, before start().
  virtual BlockDevice& device() = 0;
  // What mirrors of this mirror pin.
  virtual KeptBlocks& kept() = 0;
  // Shows the newest root in `target`, if there is one: what start() does first, for those who mount before it.
  virtual Status show(MirrorTarget& target) = 0;
  // Shows the newest root in `target` unless show() did, and serves primaries until stop().
  virtual Status start(MirrorTarget& target, std::unique_ptr<ServerChannel> channel) = 0;
  // Ends the session and the threads; what was decided is finished first. Idempotent; the destructor calls it.
  virtual void stop() = 0;
  virtual ReceiverStatus status() const = 0;
  // Waits until the status fulfils `condition`. kTimeout.
  virtual Status wait_for(const std::function<bool(const ReceiverStatus&)>& condition,
                          std::chrono::milliseconds timeout) = 0;
};

}  // namespace tarnfs
