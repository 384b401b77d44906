// The log: one line an event, to standard error or syslog. Everything about spdlog is behind log.cpp.
//
// Thread safety: all functions may be called from any thread.
#pragma once

#include <string>
#include <string_view>

namespace tarnfs {

enum class LogTarget {
  kStandardError,
  kSyslog,
  kNowhere,  // for tests that open thousands of damaged volumes on purpose
};

// Chooses where the log goes; `program` names it in syslog. Before the first call: standard error.
void open_log(LogTarget target, const std::string& program);
void log_info(std::string_view message);
void log_warning(std::string_view message);
void log_error(std::string_view message);

}  // namespace tarnfs
