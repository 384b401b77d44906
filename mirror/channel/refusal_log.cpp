#include "mirror/channel/refusal_log.h"

#include <utility>

#include "common/log.h"

namespace tarnfs {
namespace {

constexpr const char* kOthers = "further addresses";

}  // namespace

RefusalLog::RefusalLog(Sink sink)
    : sink_(sink ? std::move(sink) : [](const std::string& line) { log_warning(line); }) {}

void RefusalLog::note_at(const std::string& address, const std::string& reason, Instant now) {
  std::string who = address;
  {
    MutexLock lock(mutex_);
    if (!told_.contains(who) && told_.size() >= kAddressesMax) {
      std::erase_if(told_, [now](const auto& entry) { return now - entry.second >= kQuiet; });
      if (told_.size() >= kAddressesMax) who = kOthers;
    }
    const auto [place, is_new] = told_.try_emplace(who, now);
    if (!is_new && now - place->second < kQuiet) return;
    place->second = now;
  }
  sink_("refused a connection from " + who + ": " + reason + " (told once a minute)");
}

std::size_t RefusalLog::addresses() const {
  MutexLock lock(mutex_);
  return told_.size();
}

}  // namespace tarnfs
