// What a failpoint does in the programs of tests/failpoint_tests.cmake: nothing, but at the one that the environment
// names. TARNFS_TEST_FAILPOINT=NAME:COUNT ends the process when the point is reached for the COUNT-th time.
#include "common/failpoint.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <string>
#include <string_view>

namespace tarnfs {
namespace {

struct Armed {
  std::string name;
  unsigned long count = 0;
};

Armed armed_by_environment() {
  const char* text = std::getenv("TARNFS_TEST_FAILPOINT");
  const std::string_view words(text == nullptr ? "" : text);
  const std::size_t colon = words.rfind(':');
  if (colon == std::string_view::npos) return {};
  return {std::string(words.substr(0, colon)), std::strtoul(text + colon + 1, nullptr, 10)};
}

}  // namespace

void reach_failpoint(const char* name) {
  static const Armed armed = armed_by_environment();
  static std::atomic<unsigned long> reached{0};
  if (armed.name != name || reached.fetch_add(1) + 1 != armed.count) return;
  const std::string text = "failpoint " + armed.name + "\n";
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
  ::kill(::getpid(), SIGKILL);
  for (;;) ::pause();  // the signal ends every thread; this one must not get any further
}

}  // namespace tarnfs
