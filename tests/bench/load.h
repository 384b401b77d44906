// What the load generators share: options, threads that start together, latencies, and figures as lines of JSON.
//
// Invariants
// 1. The clock of a phase starts when every thread stands ready, and stops when the last one has ended.
// 2. A call that fails ends the program with exit code 1 and one line that says what failed: no figure counts failures.
// 3. Paths are relative: the program has gone to the directory under test, so that no figure pays for what is above it.
//
// Thread safety: a Recorder belongs to one thread; the rest is called by the main thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace tarnfs::bench {

constexpr std::size_t kPageBytes = 4096;

using Clock = std::chrono::steady_clock;

// KEY=VALUE words of the command line.
class Options {
 public:
  Options(int count, char** words);
  [[nodiscard]] std::uint64_t number(const std::string& key, std::uint64_t otherwise) const;
  [[nodiscard]] std::string text(const std::string& key, const std::string& otherwise) const;

 private:
  std::map<std::string, std::string> values_;
};

// Ends the program: `what` failed on `path`, for the reason in errno.
[[noreturn]] void fail(const std::string& what, const std::string& path);

// Numbers that look random and are the same in every run.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ULL + 1) {}
  std::uint64_t next();
  std::uint64_t below(std::uint64_t limit) { return next() % limit; }

 private:
  std::uint64_t state_;
};

// Bytes that do not compress.
std::vector<char> random_bytes(std::size_t size);

// An open file whose calls do all that was asked, or end the program.
class File {
 public:
  File(const std::string& path, int flags);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  File(File&& other) noexcept;
  File& operator=(File&&) = delete;

  void write_at(const char* data, std::size_t size, std::uint64_t offset) const;
  void read_at(char* data, std::size_t size, std::uint64_t offset) const;
  void sync() const;       // fsync
  void sync_data() const;  // fdatasync

 private:
  int descriptor_;
  std::string path_;
};

// One call each, which ends the program when it fails.
void make_directory(const std::string& path);
void remove_file(const std::string& path);
void look_at(const std::string& path);  // stat

// Has the kernel forget names, attributes and clean pages, and leaves the daemon's memory as it is. Needs root.
void make_kernel_forget();
// The same for names and attributes alone: the kernel keeps pages, and with them what it has read of an image.
void make_kernel_forget_names();

// What one phase did.
struct Figures {
  std::uint64_t operations = 0;
  double seconds = 0;
  std::vector<float> latencies_us;  // empty where single operations were not timed
};

// Runs `body(thread)` in that many threads and returns how long all of them took together.
double run_threads(unsigned threads, const std::function<void(unsigned)>& body);

// Calls `body(thread, n)` for n = 0, 1, ... in every thread until the time is over; each call is timed.
Figures run_for(unsigned threads, double seconds, const std::function<void(unsigned, std::uint64_t)>& body);

// One line of JSON on standard output: {"phase": ..., "unit": "ops/s", "value": ..., "p50_us": ...}.
void report(const std::string& phase, Figures figures);
void report_megabytes(const std::string& phase, std::uint64_t bytes, double seconds);
// What one operation took, in microseconds: all of them together, through their number.
void report_cost(const std::string& phase, std::uint64_t operations, double seconds);

void run_metadata(const Options& options);
void run_fsync(const Options& options);
void run_stream(const Options& options);
void run_scale(const Options& options);
void run_mixed(const Options& options);

}  // namespace tarnfs::bench
