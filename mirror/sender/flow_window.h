// How much may be on its way to a mirror: as much as a ping can wait behind.
//
// Purpose: a ping is answered when all that was sent before it has arrived. On a slow network a window of a fixed size
// would make a mirror that is alive look dead. So the window begins small, grows while pings come back in time, and
// shrinks when one took too long, beyond what a ping takes on this network at best. How long the mirror's disk takes is
// of no importance: a ping does not wait for that.
//
// Invariants:
//   1. bytes() is between kMinBytes and the largest window, or the latter when it is smaller.
//   2. It grows by no more than was applied: on a network of rate r it is at most kMinBytes + r * t after a time t.
//
// Thread safety: none; one thread.
#pragma once

#include <algorithm>
#include <cstdint>

namespace tarnfs {

class FlowWindow {
 public:
  static constexpr std::uint64_t kMinBytes = std::uint64_t{32} << 10;

  // `patience_ns`: how long a ping may wait behind what is on its way.
  FlowWindow(std::uint64_t largest_bytes, std::uint64_t patience_ns)
      : largest_bytes_(largest_bytes), patience_ns_(patience_ns), bytes_(std::min(kMinBytes, largest_bytes)) {}

  std::uint64_t bytes() const { return bytes_; }

  // So much was applied, of so much that was on its way.
  void on_applied(std::uint64_t applied_bytes, std::uint64_t on_its_way_bytes) {
    if (!is_long_ && 2 * on_its_way_bytes >= bytes_) bytes_ = std::min(bytes_ + applied_bytes, largest_bytes_);
  }
  // The answer to a ping that was sent at `sent_ns`.
  void on_answer(std::uint64_t sent_ns, std::uint64_t now_ns) {
    const std::uint64_t took_ns = now_ns - std::min(now_ns, sent_ns);
    shortest_ns_ = std::min(shortest_ns_, took_ns);
    const std::uint64_t queued_ns = took_ns - shortest_ns_;
    is_long_ = queued_ns > patience_ns_ / 2;
    // Pings that were on their way when it shrank have waited behind the larger one.
    if (queued_ns <= patience_ns_ || sent_ns < shrunk_ns_) return;
    const double share = static_cast<double>(patience_ns_) / static_cast<double>(queued_ns);
    bytes_ = std::max(static_cast<std::uint64_t>(share * static_cast<double>(bytes_)), kMinBytes);
    bytes_ = std::min(bytes_, largest_bytes_);
    shrunk_ns_ = now_ns;
  }

 private:
  const std::uint64_t largest_bytes_;
  const std::uint64_t patience_ns_;
  std::uint64_t bytes_;
  std::uint64_t shortest_ns_ = ~std::uint64_t{0};
  std::uint64_t shrunk_ns_ = 0;
  bool is_long_ = false;
};

}  // namespace tarnfs
