// Tells of peers that were refused: once for each address and minute, however often they come.
//
// Invariants:
//   1. Memory is bounded: beyond kAddressesMax in one minute the others are told together, as one.
//
// Thread safety: all functions; a leaf lock, held across memory only.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <string>

#include "common/mutex.h"

namespace tarnfs {

class RefusalLog {
 public:
  using Instant = std::chrono::steady_clock::time_point;
  using Sink = std::function<void(const std::string&)>;

  static constexpr std::size_t kAddressesMax = 256;
  static constexpr std::chrono::seconds kQuiet{60};

  // `sink` takes the lines; by default they are warnings of the log.
  explicit RefusalLog(Sink sink = {});

  void note(const std::string& address, const std::string& reason) {
    note_at(address, reason, std::chrono::steady_clock::now());
  }
  void note_at(const std::string& address, const std::string& reason, Instant now);
  std::size_t addresses() const;

 private:
  const Sink sink_;
  mutable Mutex mutex_;
  std::map<std::string, Instant> told_ TARNFS_GUARDED_BY(mutex_);  // when each address was told last
};

}  // namespace tarnfs
