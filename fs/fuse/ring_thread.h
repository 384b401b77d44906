// How a thread that serves a ring is switched to and from.
//
// Purpose: each request costs two switches, and they more than all that is done for it in memory. When a ring's thread
// answers, the kernel wakes the client while this thread still occupies their processor. So the scheduler sends the
// client to an idle one, and waking that takes longer than all the rest of a request: 20 to 30 of some 40 microseconds
// on a virtual machine. A processor that only runs threads of the policy SCHED_IDLE counts as idle: the client stays
// where it is and takes over at once. Such a thread in turn gets next to nothing of a processor that others want. So a
// ring's thread has that policy as long as it answers often by itself and does not have to wait for others than its
// clients. And it leaves restartable sequences, for which the kernel writes into its memory at each switch.
//
// Invariants:
//   1. A thread whose privileges do not let it go back to its own policy never leaves it.
//   2. After a wait it keeps its own policy for a while, and for longer the sooner the next wait follows.
//
// Thread safety: belongs to one thread.
// Errors: where the kernel does not tell how long threads wait for a processor, the policy stays as it is. A C library
// that has registered restartable sequences in some other way than glibc keeps them.
#pragma once

#include <cstdint>
#include <optional>

#include "common/clock.h"

namespace tarnfs {

// Decides which policy a thread is to have.
class RingThreadPolicy {
 public:
  enum class Policy { kOwn, kYielding };

  // `waited_ns`: how long the thread has waited for a processor in its life; `requests`: how many it has answered by
  // itself.
  // Returns the policy from now on.
  Policy decide(std::uint64_t now_ns, std::uint64_t waited_ns, std::uint64_t requests);

 private:
  Policy policy_ = Policy::kOwn;
  std::uint64_t seen_at_ns_ = 0;
  std::uint64_t seen_waited_ns_ = 0;
  std::uint64_t seen_requests_ = 0;
  std::uint64_t changed_at_ns_ = 0;
  std::uint64_t excess_ns_ = 0;  // waited for others than clients, and not paid off by time
  std::uint64_t own_until_ns_ = 0;
  std::uint64_t pause_ns_ = 0;
};

// The calling thread: asks the kernel how long it waited, and has its policy changed.
class RingThread {
 public:
  RingThread();
  ~RingThread();
  RingThread(const RingThread&) = delete;
  RingThread& operator=(const RingThread&) = delete;

  // For each request that it answers itself, and for each that it hands to another thread. Costs a look at the clock,
  // and a system call now and then.
  static void note_request();
  static void note_handed_over();

 private:
  static RingThread& of_caller();
  void look(std::uint64_t now_ns);
  std::optional<std::uint64_t> waited_ns() const;
  void set(RingThreadPolicy::Policy policy);

  const int own_policy_;
  const int statistics_;  // a descriptor; negative: the policy stays as it is
  RingThreadPolicy decision_;
  RingThreadPolicy::Policy policy_ = RingThreadPolicy::Policy::kOwn;
  std::uint64_t requests_ = 0;
  std::uint64_t looked_at_ns_ = 0;
};

}  // namespace tarnfs
