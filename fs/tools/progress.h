// How far a long piece of work is, on standard error: one line that changes on a terminal, else a line now and then.
//
// Thread safety: none.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace tarnfs {

class Progress {
 public:
  // `what` stands in front; all of it are `total_bytes`.
  Progress(std::string what, std::uint64_t total_bytes);
  // Ends the line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(std::uint64_t done_bytes);

 private:
  const std::string what_;
  const std::uint64_t total_bytes_;
  const bool terminal_;
  const std::chrono::steady_clock::time_point began_;
  std::chrono::steady_clock::time_point next_;  // when it is told the next time
  bool told_ = false;
};

}  // namespace tarnfs
