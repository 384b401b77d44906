// A descriptor that closes itself, and unix sockets with deadlines.
//
// Thread safety: a Descriptor belongs to one thread at a time; the functions may be called from any.
// Errors: kInvalid for a path that is too long, kDisconnected when nobody listens, kTimeout.
#pragma once

#include <poll.h>

#include <chrono>
#include <string>
#include <utility>

#include "common/result.h"

namespace tarnfs {

using Deadline = std::chrono::steady_clock::time_point;

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor();

  int number() const { return number_; }
  explicit operator bool() const { return number_ >= 0; }

 private:
  int number_ = -1;
};

// A listening socket at `path` that only its owner may connect to. Takes the place of one that nobody listens on any
// more; kBusy when somebody does.
Result<Descriptor> listen_at(const std::string& path);
Result<Descriptor> connect_to(const std::string& path);
// Milliseconds for poll(2), at least 0.
int milliseconds_until(Deadline deadline);
// Waits until one of `events` is there. kTimeout after the deadline.
Status wait_for_events(const Descriptor& descriptor, short events, Deadline deadline);

}  // namespace tarnfs
