// Handlers over io_uring: answered where the request came, and on another thread when it turns out that they would
// wait.
//
// Purpose: answered_here<H>() is a handler that runs H inside a NoWaitScope. When the file system would have to wait,
// H's reply_error() notes it, and H is run again from its start on a thread that may wait. answered_elsewhere<H>() goes
// there at once. Without io_uring both are H.
//
// Invariants:
//   1. A handler that was put off has not replied, and what it did before has no effect (fs/engine/waiting.h).
//
// Thread safety: handlers run on any thread.
// Ownership: what a request points to over io_uring stays until its reply; only libfuse's own variables are copied.
#pragma once

#include <sys/stat.h>

#include <concepts>
#include <tuple>

#include "fs/engine/waiting.h"
#include "fs/fuse/front_end.h"
#include "fs/fuse/ring_thread.h"
#include "fs/fuse/transport.h"

namespace tarnfs {

template <class Argument>
class KeptArgument {
 public:
  explicit KeptArgument(Argument argument) : argument_(argument) {}
  Argument get() { return argument_; }

 private:
  Argument argument_;
};

template <class Pointee>
concept IsOnTheStackOfLibfuse = std::same_as<Pointee, fuse_file_info> || std::same_as<Pointee, struct stat>;

template <IsOnTheStackOfLibfuse Pointee>
class KeptArgument<Pointee*> {
 public:
  explicit KeptArgument(const Pointee* argument)
      : is_null_(argument == nullptr), argument_(is_null_ ? Pointee{} : *argument) {}
  Pointee* get() { return is_null_ ? nullptr : &argument_; }

 private:
  bool is_null_;
  Pointee argument_;
};

// Runs `answer` here, and again elsewhere when it was put off.
template <class Answer>
void answer_here_or_elsewhere(fuse_req_t request, const Answer& answer) {
  if (is_over_io_uring(request)) {
    RingThread::note_request();
    const NoWaitScope scope;
    answer();
    if (!scope.is_put_off() || run_elsewhere(request, answer)) return;
  }
  answer();
}

template <auto kHandler>
struct HandlerPlace;

template <class... Arguments, void (*kHandler)(fuse_req_t, Arguments...)>
struct HandlerPlace<kHandler> {
  static void here(fuse_req_t request, Arguments... arguments) {
    if (!is_over_io_uring(request)) {
      kHandler(request, arguments...);
      return;
    }
    RingThread::note_request();
    {
      const NoWaitScope scope;
      kHandler(request, arguments...);
      if (!scope.is_put_off()) return;
    }
    elsewhere(request, arguments...);
  }

  static void elsewhere(fuse_req_t request, Arguments... arguments) {
    const auto answer = [request, kept = std::tuple(KeptArgument<Arguments>(arguments)...)]() mutable {
      std::apply([request](auto&... each) { kHandler(request, each.get()...); }, kept);
    };
    if (is_over_io_uring(request) && run_elsewhere(request, answer)) return;
    kHandler(request, arguments...);
  }
};

template <auto kHandler>
constexpr auto answered_here() {
  return &HandlerPlace<kHandler>::here;
}
template <auto kHandler>
constexpr auto answered_elsewhere() {
  return &HandlerPlace<kHandler>::elsewhere;
}

}  // namespace tarnfs
