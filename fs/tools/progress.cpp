#include "fs/tools/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "fs/control/text.h"

namespace tarnfs {
namespace {

constexpr std::chrono::seconds kFirst{1};  // what is done sooner says nothing
constexpr std::chrono::milliseconds kIntervalTerminal{500};
constexpr std::chrono::seconds kIntervalOther{10};

}  // namespace

Progress::Progress(std::string what, std::uint64_t total_bytes)
    : what_(std::move(what)),
      total_bytes_(std::max<std::uint64_t>(1, total_bytes)),
      terminal_(::isatty(STDERR_FILENO) != 0),
      began_(std::chrono::steady_clock::now()),
      next_(began_ + kFirst) {}

Progress::~Progress() {
  if (told_ && terminal_) std::fputs("\n", stderr);
}

void Progress::update(std::uint64_t done_bytes) {
  const auto now = std::chrono::steady_clock::now();
  if (now < next_ || done_bytes == 0) return;
  next_ = now + (terminal_ ? std::chrono::milliseconds(kIntervalTerminal) : std::chrono::milliseconds(kIntervalOther));
  const double seconds = std::chrono::duration<double>(now - began_).count();
  const double rate = static_cast<double>(done_bytes) / seconds;
  const double left_seconds = static_cast<double>(total_bytes_ - std::min(total_bytes_, done_bytes)) / rate;
  const std::string text = fmt::format("{}: {:.0f} %, {}/s, {:.0f} s left", what_,
                                       100.0 * static_cast<double>(done_bytes) / static_cast<double>(total_bytes_),
                                       format_size(static_cast<std::uint64_t>(rate)), left_seconds);
  fmt::print(stderr, "{}{}{}", terminal_ ? "\r\x1b[K" : "", text, terminal_ ? "" : "\n");
  std::fflush(stderr);
  told_ = true;
}

}  // namespace tarnfs
