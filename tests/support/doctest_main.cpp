// main() of every unit test: doctest's own code takes longer to compile than most tests.
//
// It also says, before the test runner's time limit kills a test that hangs, where each of its threads is.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "common/mutex.h"

namespace tarnfs::testing {
namespace {

// Less than the limits of unit tests in tests/CMakeLists.txt.
constexpr std::chrono::seconds kPatience{100};

std::string line_of(const std::filesystem::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

// The name of each thread, the kernel's function that it waits in, and its system call's number and arguments.
void print_threads() {
  std::error_code ignored;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task", ignored)) {
    const std::filesystem::path& path = thread.path();
    std::fprintf(stderr, "  thread %s %s: %s: %s\n", path.filename().c_str(), line_of(path / "comm").c_str(),
                 line_of(path / "wchan").c_str(), line_of(path / "syscall").c_str());
  }
}

// Only reports: some tests at full size take longer.
class HangReporter final : public doctest::IReporter {
 public:
  explicit HangReporter(const doctest::ContextOptions& /*options*/) : thread_([this] { watch(); }) {}
  ~HangReporter() {
    {
      MutexLock lock(mutex_);
      finished_ = true;
      changed_.notify_all();
    }
    thread_.join();
  }
  HangReporter(const HangReporter&) = delete;
  HangReporter& operator=(const HangReporter&) = delete;

  void test_case_start(const doctest::TestCaseData& test_case) override {
    MutexLock lock(mutex_);
    running_ = test_case.m_name;
    report_at_ = std::chrono::steady_clock::now() + kPatience;
    changed_.notify_all();
  }
  void test_case_end(const doctest::CurrentTestCaseStats& /*stats*/) override {
    MutexLock lock(mutex_);
    running_ = nullptr;
    changed_.notify_all();
  }

  void report_query(const doctest::QueryData& /*data*/) override {}
  void test_run_start() override {}
  void test_run_end(const doctest::TestRunStats& /*stats*/) override {}
  void test_case_reenter(const doctest::TestCaseData& /*test_case*/) override {}
  void test_case_exception(const doctest::TestCaseException& /*exception*/) override {}
  void subcase_start(const doctest::SubcaseSignature& /*subcase*/) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData& /*data*/) override {}
  void log_message(const doctest::MessageData& /*message*/) override {}
  void test_case_skipped(const doctest::TestCaseData& /*test_case*/) override {}

 private:
  void watch() {
    MutexLock lock(mutex_);
    while (!finished_) {
      const auto now = std::chrono::steady_clock::now();
      if (running_ == nullptr) {
        changed_.wait(mutex_);
      } else if (now < report_at_) {
        changed_.wait_for(mutex_, report_at_ - now);
      } else {
        std::fprintf(stderr, "still running after %lld s: %s\n", static_cast<long long>(kPatience.count()), running_);
        print_threads();
        running_ = nullptr;
      }
    }
  }

  Mutex mutex_;
  Condition changed_;
  const char* running_ TARNFS_GUARDED_BY(mutex_) = nullptr;  // the test case's name, until it is reported
  std::chrono::steady_clock::time_point report_at_ TARNFS_GUARDED_BY(mutex_);
  bool finished_ TARNFS_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

DOCTEST_REGISTER_LISTENER("hang", 1, HangReporter);

}  // namespace
}  // namespace tarnfs::testing
