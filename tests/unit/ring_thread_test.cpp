// When a ring's thread lets others have its processor, when no longer, and what it spares the kernel at each switch.
#include <doctest/doctest.h>
#include <sched.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <thread>

#include "fs/fuse/ring_thread.h"

using namespace tarnfs;
using Policy = RingThreadPolicy::Policy;

namespace {

constexpr std::uint64_t kSecondNs = 1'000'000'000;

// A thread that answers 10,000 requests a second and has not waited so far.
struct BusyThread {
  Policy after(std::uint64_t elapsed_ns, std::uint64_t waited_more_ns) {
    now_ns += elapsed_ns;
    waited_ns += waited_more_ns;
    requests += std::max<std::uint64_t>(elapsed_ns / 100'000, 1);
    return policy.decide(now_ns, waited_ns, requests);
  }

  RingThreadPolicy policy;
  std::uint64_t now_ns = 7 * kSecondNs;
  std::uint64_t waited_ns = 3 * kSecondNs;
  std::uint64_t requests = 0;
};

}  // namespace

TEST_CASE("a thread that is wanted often and never waits yields") {
  BusyThread thread;
  CHECK(thread.after(1'600'000, 0) == Policy::kOwn);  // what was before is not known
  CHECK(thread.after(1'600'000, 0) == Policy::kYielding);
  CHECK(thread.after(1'600'000, 1'000'000) == Policy::kYielding);  // its client thinks for 60 us
}

TEST_CASE("a thread that is seldom wanted keeps its policy") {
  RingThreadPolicy policy;
  for (std::uint64_t i = 1; i < 100; ++i) CHECK(policy.decide(i * 5'000'000, 0, i) == Policy::kOwn);
}

TEST_CASE("waits for others end it for a while, and the next ones soon after for longer") {
  BusyThread thread;
  thread.after(1'600'000, 0);
  REQUIRE(thread.after(1'600'000, 0) == Policy::kYielding);
  CHECK(thread.after(5'000'000, 60'000'000) == Policy::kOwn);
  CHECK(thread.after(kSecondNs / 8, 0) == Policy::kOwn);
  CHECK(thread.after(kSecondNs / 8, 0) == Policy::kYielding);
  CHECK(thread.after(5'000'000, 60'000'000) == Policy::kOwn);
  CHECK(thread.after(kSecondNs / 4, 0) == Policy::kOwn);
  CHECK(thread.after(kSecondNs / 4, 0) == Policy::kYielding);
}

TEST_CASE("short waits for others now and then do not end it") {
  BusyThread thread;
  thread.after(1'600'000, 0);
  REQUIRE(thread.after(1'600'000, 0) == Policy::kYielding);
  RingThreadPolicy& policy = thread.policy;
  for (int i = 0; i < 100; ++i) {
    // Twenty requests that took 8 ms, then a quarter of a second without any wait.
    thread.now_ns += 8'000'000;
    thread.waited_ns += 8'000'000;
    thread.requests += 20;
    CHECK(policy.decide(thread.now_ns, thread.waited_ns, thread.requests) == Policy::kYielding);
    CHECK(thread.after(kSecondNs / 4, 0) == Policy::kYielding);
  }
}

TEST_CASE("a thread that hands its requests over, or has none any more, takes its policy back") {
  BusyThread thread;
  thread.after(1'600'000, 0);
  REQUIRE(thread.after(1'600'000, 0) == Policy::kYielding);
  thread.now_ns += 5'000'000;
  CHECK(thread.policy.decide(thread.now_ns, thread.waited_ns, ++thread.requests) == Policy::kOwn);
  CHECK(thread.after(1'600'000, 0) == Policy::kYielding);
}

TEST_CASE("a thread takes the policy and gives it back") {
  std::thread([] {
    const int own = ::sched_getscheduler(0);
    bool yielded = false;
    for (int i = 0; i < 1000 && !yielded; ++i) {
      RingThread::note_request();
      yielded = ::sched_getscheduler(0) == SCHED_IDLE;
    }
    // Without the privilege to go back it must not have left.
    const sched_param none{};
    if (yielded) CHECK(::sched_setscheduler(0, own, &none) == 0);
  }).join();
}

TEST_CASE("a thread that answers requests has left restartable sequences, and still hears where it runs") {
  if (__rseq_size == 0) return;  // this system has none
  long registered = -1;
  int processor = -1;
  std::thread([&] {
    RingThread::note_request();
    processor = ::sched_getcpu();
    char* const area = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
    registered = ::syscall(SYS_rseq, area, 32, 0, RSEQ_SIG);  // EBUSY as long as it is registered
  }).join();
  CHECK(registered == 0);
  CHECK(processor >= 0);
}
