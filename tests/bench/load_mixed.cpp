// Changes of names and attributes, alone and beside work that wants the processors or the file system too.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "load.h"

namespace tarnfs::bench {

namespace {

constexpr unsigned kMetadataThreads = 6;
constexpr std::size_t kChunkBytes = 1 << 20;

// Threads that do something else until they are told to end, which the destructor does.
class Others {
 public:
  Others(unsigned threads, const std::function<void(const std::atomic<bool>&)>& body) {
    for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this, body] { body(ended_); });
  }
  ~Others() { end(); }
  Others(const Others&) = delete;
  Others& operator=(const Others&) = delete;

  void end() {
    ended_ = true;
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  std::atomic<bool> ended_{false};
  std::vector<std::thread> threads_;
};

// Create with a page of content, stat, unlink: each call of next() is one of them.
class ShortLife {
 public:
  explicit ShortLife(std::string directory) : path_(std::move(directory) + "/file") {}

  void next(std::uint64_t n) {
    switch (n % 3) {
      case 0: {
        const File file(path_, O_CREAT | O_EXCL | O_WRONLY);
        file.write_at(page_.data(), page_.size(), 0);
        break;
      }
      case 1:
        look_at(path_);
        break;
      default:
        remove_file(path_);
    }
  }

 private:
  std::string path_;
  std::vector<char> page_ = random_bytes(kPageBytes);
};

// The six operations in turn on one file after the other, in a directory of its own.
class LongerLife {
 public:
  explicit LongerLife(const std::string& directory) : path_(directory + "/file"), renamed_(directory + "/renamed") {
    make_directory(directory);
  }

  void next(std::uint64_t n) {
    switch (n % 6) {
      case 0:
        file_.emplace(path_, O_CREAT | O_EXCL | O_WRONLY);
        break;
      case 1:
        file_->write_at(page_.data(), page_.size(), 0);
        file_.reset();
        break;
      case 2:
        if (std::rename(path_.c_str(), renamed_.c_str()) != 0) fail("rename", path_);
        break;
      case 3:
        if (::chmod(renamed_.c_str(), 0600) != 0) fail("chmod", renamed_);
        break;
      case 4:
        look_at(renamed_);
        break;
      default:
        remove_file(renamed_);
    }
  }

 private:
  std::string path_;
  std::string renamed_;
  std::vector<char> page_ = random_bytes(kPageBytes);
  std::optional<File> file_;
};

void one_thread(const std::string& phase, double seconds) {
  make_directory(phase);
  ShortLife life(phase);
  report(phase, run_for(1, seconds, [&life](unsigned, std::uint64_t n) { life.next(n); }));
}

void be_busy(const std::atomic<bool>& ended) {
  Random random(1);
  std::uint64_t sum = 0;
  while (!ended.load(std::memory_order_relaxed)) sum += random.next();
  // So that the compiler keeps the work.
  static std::atomic<std::uint64_t> kept{0};
  kept += sum;
}

void six_threads(const std::string& phase, double seconds) {
  std::vector<LongerLife> lives;
  lives.reserve(kMetadataThreads);
  for (unsigned thread = 0; thread < kMetadataThreads; ++thread) lives.emplace_back(phase + std::to_string(thread));
  report(phase,
         run_for(kMetadataThreads, seconds, [&lives](unsigned thread, std::uint64_t n) { lives[thread].next(n); }));
}

// Rewrites a file from its begin to its end, again and again. Each pass ends with fdatasync: what stays in the kernel's
// memory would be no work for the file system.
std::uint64_t write_stream(const File& file, const std::vector<char>& data, std::uint64_t file_bytes,
                           const std::atomic<bool>& ended) {
  std::uint64_t written = 0;
  while (!ended) {
    const std::uint64_t offset = written % file_bytes;
    file.write_at(data.data() + offset % data.size(), kChunkBytes, offset);
    written += kChunkBytes;
    if (written % file_bytes == 0) file.sync_data();
  }
  return written;
}

void beside_stream(const std::string& phase, double seconds, std::uint64_t file_bytes) {
  // Several chunks, so that equal blocks do not follow each other.
  const std::vector<char> data = random_bytes(kChunkBytes * 4);
  const File file("stream", O_CREAT | O_WRONLY);
  std::uint64_t written = 0;
  double took = 0;
  Others stream(1, [&](const std::atomic<bool>& ended) {
    const auto begun = Clock::now();
    written = write_stream(file, data, file_bytes, ended);
    took = std::chrono::duration<double>(Clock::now() - begun).count();
  });
  six_threads(phase, seconds);
  stream.end();
  report_megabytes(phase + "_throughput", written, took);
}

}  // namespace

void run_mixed(const Options& options) {
  const double seconds = static_cast<double>(options.number("milliseconds", 5000)) / 1000;
  const std::uint64_t file_bytes = std::max<std::uint64_t>(options.number("file_mib", 256), 1) << 20;
  one_thread("alone_create_stat_unlink", seconds);
  {
    const Others busy(std::max(1U, std::thread::hardware_concurrency()), be_busy);
    one_thread("beside_busy", seconds);
  }
  six_threads("six_threads", seconds);
  beside_stream("stream_beside", seconds, file_bytes);
}

}  // namespace tarnfs::bench
