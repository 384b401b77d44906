#include "fs/fuse/ring_thread.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <thread>

namespace tarnfs {
namespace {

constexpr std::uint64_t kLookEveryRequests = 16;
constexpr std::uint64_t kLookEveryNs = 5'000'000;
// From one request to the next: a client that thinks for longer gains little, and one that is seldom heard nothing.
constexpr std::uint64_t kOftenNs = 100'000;
constexpr std::uint64_t kSeldomNs = 1'000'000;
// What this thread waits for each request beyond what a busy client thinks is somebody else's who wants the processor:
// it may be one part in kExcessShare of the time, and this much at once.
constexpr std::uint64_t kWaitPerRequestMaxNs = 30'000;
constexpr std::uint64_t kExcessMaxNs = 10'000'000;
constexpr std::uint64_t kExcessShare = 20;
constexpr std::uint64_t kPauseMinNs = 250'000'000;
constexpr std::uint64_t kPauseMaxNs = 64 * kPauseMinNs;

bool set_policy(int policy) {
  const sched_param none{};
  return ::sched_setscheduler(0, policy, &none) == 0;
}

// The way back takes a privilege that is not easy to know of: a thread that ends afterwards tries it.
bool can_go_back(int own_policy) {
  if (own_policy != SCHED_OTHER && own_policy != SCHED_BATCH) return false;
  bool came_back = false;
  std::thread([&] { came_back = set_policy(SCHED_IDLE) && set_policy(own_policy); }).join();
  return came_back;
}

int open_statistics(int own_policy) {
  return can_go_back(own_policy) ? ::open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC) : -1;
}

// The C library registers each thread, for sched_getcpu(3), which asks the kernel from then on. rseq(2) compares the
// length with that of the registration: glibc's is this one as long as the kernel has no longer one (linux/rseq.h).
void leave_restartable_sequences() {
  constexpr std::uint32_t kRegisteredBytes = 32;
  if (__rseq_size == 0) return;
  char* const area = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
  ::syscall(SYS_rseq, area, kRegisteredBytes, RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
}

}  // namespace

RingThreadPolicy::Policy RingThreadPolicy::decide(std::uint64_t now_ns, std::uint64_t waited_ns,
                                                  std::uint64_t requests) {
  const std::uint64_t waited = waited_ns - seen_waited_ns_;
  const std::uint64_t answered = std::max<std::uint64_t>(requests - seen_requests_, 1);
  const std::uint64_t elapsed = now_ns - seen_at_ns_;
  const bool often = elapsed <= answered * kOftenNs;
  const bool first = seen_at_ns_ == 0;
  seen_at_ns_ = now_ns;
  seen_waited_ns_ = waited_ns;
  seen_requests_ = requests;
  if (first) return policy_;
  excess_ns_ -= std::min(excess_ns_, elapsed / kExcessShare);
  excess_ns_ += waited - std::min(waited, answered * kWaitPerRequestMaxNs);
  if (policy_ == Policy::kYielding && excess_ns_ > kExcessMaxNs) {
    excess_ns_ = 0;
    const bool soon = now_ns - changed_at_ns_ < pause_ns_;
    pause_ns_ = soon ? std::min(pause_ns_ * 2, kPauseMaxNs) : kPauseMinNs;
    own_until_ns_ = now_ns + pause_ns_;
    changed_at_ns_ = now_ns;
    policy_ = Policy::kOwn;
  } else if (policy_ == Policy::kYielding && elapsed > answered * kSeldomNs) {
    policy_ = Policy::kOwn;
  } else if (policy_ == Policy::kOwn && now_ns >= own_until_ns_ && often) {
    changed_at_ns_ = now_ns;
    excess_ns_ = 0;
    policy_ = Policy::kYielding;
  }
  return policy_;
}

RingThread::RingThread() : own_policy_(::sched_getscheduler(0)), statistics_(open_statistics(own_policy_)) {
  leave_restartable_sequences();
}

RingThread::~RingThread() {
  if (statistics_ >= 0) ::close(statistics_);
}

RingThread& RingThread::of_caller() {
  thread_local RingThread thread;
  return thread;
}

void RingThread::note_request() {
  RingThread& thread = of_caller();
  if (thread.statistics_ < 0) return;
  ++thread.requests_;
  const std::uint64_t now_ns = system_clock().monotonic_ns();
  if (thread.requests_ % kLookEveryRequests == 0 || now_ns - thread.looked_at_ns_ >= kLookEveryNs) thread.look(now_ns);
}

void RingThread::note_handed_over() {
  RingThread& thread = of_caller();
  if (thread.statistics_ < 0) return;
  const std::uint64_t now_ns = system_clock().monotonic_ns();
  if (now_ns - thread.looked_at_ns_ >= kLookEveryNs) thread.look(now_ns);
}

void RingThread::look(std::uint64_t now_ns) {
  looked_at_ns_ = now_ns;
  const auto waited = waited_ns();
  if (waited) set(decision_.decide(now_ns, *waited, requests_));
}

// The second of the file's three numbers.
std::optional<std::uint64_t> RingThread::waited_ns() const {
  std::array<char, 96> text{};
  const ssize_t length = ::pread(statistics_, text.data(), text.size(), 0);
  if (length <= 0) return std::nullopt;
  const std::string_view line(text.data(), static_cast<std::size_t>(length));
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  std::uint64_t waited = 0;
  const auto parsed = std::from_chars(line.data() + space + 1, line.data() + line.size(), waited);
  if (parsed.ec != std::errc()) return std::nullopt;
  return waited;
}

void RingThread::set(RingThreadPolicy::Policy policy) {
  if (policy == policy_) return;
  if (set_policy(policy == RingThreadPolicy::Policy::kYielding ? SCHED_IDLE : own_policy_)) policy_ = policy;
}

}  // namespace tarnfs
