#include "load.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <barrier>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

namespace tarnfs::bench {

Options::Options(int count, char** words) {
  for (int i = 0; i < count; ++i) {
    const std::string word = words[i];
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos) {
      std::fprintf(stderr, "tarnfs_bench_load: %s is not KEY=VALUE\n", word.c_str());
      std::_Exit(2);
    }
    values_[word.substr(0, equals)] = word.substr(equals + 1);
  }
}

std::uint64_t Options::number(const std::string& key, std::uint64_t otherwise) const {
  const auto found = values_.find(key);
  return found == values_.end() ? otherwise : std::strtoull(found->second.c_str(), nullptr, 10);
}

std::string Options::text(const std::string& key, const std::string& otherwise) const {
  const auto found = values_.find(key);
  return found == values_.end() ? otherwise : found->second;
}

void fail(const std::string& what, const std::string& path) {
  const int reason = errno;
  std::fprintf(stderr, "tarnfs_bench_load: %s %s: %s\n", what.c_str(), path.c_str(), std::strerror(reason));
  std::fflush(nullptr);
  std::_Exit(1);
}

std::uint64_t Random::next() {
  state_ ^= state_ << 13;
  state_ ^= state_ >> 7;
  state_ ^= state_ << 17;
  return state_;
}

std::vector<char> random_bytes(std::size_t size) {
  std::vector<char> bytes(size);
  Random random(1);
  for (char& byte : bytes) byte = static_cast<char>(random.next() >> 32);
  return bytes;
}

File::File(const std::string& path, int flags)
    : descriptor_(::open(path.c_str(), flags | O_CLOEXEC, 0644)), path_(path) {
  if (descriptor_ < 0) fail("open", path);
}

File::~File() {
  if (descriptor_ >= 0 && ::close(descriptor_) != 0) fail("close", path_);
}

File::File(File&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)), path_(std::move(other.path_)) {}

void File::write_at(const char* data, std::size_t size, std::uint64_t offset) const {
  if (::pwrite(descriptor_, data, size, static_cast<off_t>(offset)) != static_cast<ssize_t>(size)) fail("write", path_);
}

void File::read_at(char* data, std::size_t size, std::uint64_t offset) const {
  if (::pread(descriptor_, data, size, static_cast<off_t>(offset)) != static_cast<ssize_t>(size)) fail("read", path_);
}

void File::sync() const {
  if (::fsync(descriptor_) != 0) fail("fsync", path_);
}

void File::sync_data() const {
  if (::fdatasync(descriptor_) != 0) fail("fdatasync", path_);
}

void make_directory(const std::string& path) {
  if (::mkdir(path.c_str(), 0755) != 0) fail("mkdir", path);
}

void remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0) fail("unlink", path);
}

void look_at(const std::string& path) {
  struct stat found {};
  if (::stat(path.c_str(), &found) != 0) fail("stat", path);
}

namespace {

// `what` as in proc(5), drop_caches.
void drop_caches(const char* what) {
  const int root = ::open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) fail("open", ".");
  // Some file systems in user space cannot: then everything is synchronised.
  if (::syncfs(root) != 0) ::sync();
  ::close(root);
  const std::string path = "/proc/sys/vm/drop_caches";
  const File control(path, O_WRONLY);
  // The first pass takes what kept inodes in memory.
  control.write_at(what, 1, 0);
  control.write_at(what, 1, 0);
}

}  // namespace

void make_kernel_forget() {
  drop_caches("3");
}

void make_kernel_forget_names() {
  drop_caches("2");
}

double run_threads(unsigned threads, const std::function<void(unsigned)>& body) {
  Clock::time_point begun;
  // The last one to arrive takes the time before any of them goes on: whoever waits for them may wake much later.
  std::barrier start(static_cast<std::ptrdiff_t>(threads), [&begun]() noexcept { begun = Clock::now(); });
  std::vector<Clock::time_point> ended(threads);
  const auto run = [&start, &body, &ended](unsigned thread) {
    start.arrive_and_wait();
    body(thread);
    ended[thread] = Clock::now();
  };
  std::vector<std::thread> running;
  running.reserve(threads);
  for (unsigned thread = 1; thread < threads; ++thread) running.emplace_back(run, thread);
  run(0);  // here, so that one thread's work is found below its caller in a profile
  for (std::thread& thread : running) thread.join();
  return std::chrono::duration<double>(*std::max_element(ended.begin(), ended.end()) - begun).count();
}

Figures run_for(unsigned threads, double seconds, const std::function<void(unsigned, std::uint64_t)>& body) {
  std::vector<std::vector<float>> latencies(threads);
  Figures figures;
  figures.seconds = run_threads(threads, [&](unsigned thread) {
    auto before = Clock::now();
    const auto end = before + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
    for (std::uint64_t n = 0; before < end; ++n) {
      body(thread, n);
      const auto after = Clock::now();
      latencies[thread].push_back(std::chrono::duration<float, std::micro>(after - before).count());
      before = after;
    }
  });
  for (const auto& some : latencies) {
    figures.latencies_us.insert(figures.latencies_us.end(), some.begin(), some.end());
  }
  figures.operations = figures.latencies_us.size();
  return figures;
}

void report(const std::string& phase, Figures figures) {
  std::printf(R"({"phase": "%s", "unit": "ops/s", "value": %.1f, "operations": %llu, "seconds": %.4f)", phase.c_str(),
              static_cast<double>(figures.operations) / figures.seconds,
              static_cast<unsigned long long>(figures.operations), figures.seconds);
  auto& sorted = figures.latencies_us;
  if (!sorted.empty()) {
    std::sort(sorted.begin(), sorted.end());
    const auto at = [&sorted](double share) {
      return static_cast<double>(sorted[static_cast<std::size_t>(static_cast<double>(sorted.size() - 1) * share)]);
    };
    std::printf(R"(, "p50_us": %.1f, "p99_us": %.1f, "p999_us": %.1f, "max_us": %.1f)", at(0.5), at(0.99), at(0.999),
                at(1.0));
  }
  std::printf("}\n");
  std::fflush(stdout);
}

void report_megabytes(const std::string& phase, std::uint64_t bytes, double seconds) {
  std::printf(R"({"phase": "%s", "unit": "MB/s", "value": %.1f, "bytes": %llu, "seconds": %.4f})"
              "\n",
              phase.c_str(), static_cast<double>(bytes) / seconds / 1e6, static_cast<unsigned long long>(bytes),
              seconds);
  std::fflush(stdout);
}

void report_cost(const std::string& phase, std::uint64_t operations, double seconds) {
  std::printf(R"({"phase": "%s", "unit": "us", "value": %.3f, "operations": %llu, "seconds": %.6f})"
              "\n",
              phase.c_str(), seconds / static_cast<double>(operations) * 1e6,
              static_cast<unsigned long long>(operations), seconds);
  std::fflush(stdout);
}

}  // namespace tarnfs::bench
