#include "common/log.h"

#include <spdlog/sinks/null_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/sinks/syslog_sink.h>
#include <spdlog/spdlog.h>

#include "common/mutex.h"

namespace tarnfs {
namespace {

Mutex& log_mutex() {
  static Mutex mutex;
  return mutex;
}

std::shared_ptr<spdlog::logger> make_logger(LogTarget target, const std::string& program) {
  std::shared_ptr<spdlog::logger> made;
  if (target == LogTarget::kSyslog) {
    made = std::make_shared<spdlog::logger>(
        program, std::make_shared<spdlog::sinks::syslog_sink_mt>(program, LOG_PID, LOG_DAEMON, true));
    made->set_pattern("%v");
  } else if (target == LogTarget::kNowhere) {
    made = std::make_shared<spdlog::logger>(program, std::make_shared<spdlog::sinks::null_sink_mt>());
  } else {
    made = std::make_shared<spdlog::logger>(program, std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_pattern("%Y-%m-%dT%H:%M:%S.%e " + program + " %l: %v");
  }
  made->flush_on(spdlog::level::info);
  return made;
}

std::shared_ptr<spdlog::logger>& logger() {
  static std::shared_ptr<spdlog::logger> instance = make_logger(LogTarget::kStandardError, "tarnfs");
  return instance;
}

std::shared_ptr<spdlog::logger> current() {
  MutexLock lock(log_mutex());
  return logger();
}

}  // namespace

void open_log(LogTarget target, const std::string& program) {
  MutexLock lock(log_mutex());
  logger() = make_logger(target, program);
}

void log_info(std::string_view message) {
  current()->info("{}", message);
}

void log_warning(std::string_view message) {
  current()->warn("{}", message);
}

void log_error(std::string_view message) {
  current()->error("{}", message);
}

}  // namespace tarnfs
