// tarnfs_bench_engine: what operations on names cost in the engine itself, without FUSE. For profilers, and for
// counting instructions, which no other load on the machine changes:
//
//   tarnfs_bench_engine IMAGE [files=N] [directories=N] [part=N] [sample=N] [threads=N] [cache_mib=N]
//   valgrind --tool=callgrind --toggle-collect='tarnfs::bench::EngineLoad::look_up()' tarnfs_bench_engine ...
//
// Makes a volume in IMAGE, which it overwrites, and in it `files` empty files, number n in directory n modulo
// `directories`; tells the cost of each `part` of them and of the consistency point at the end; forgets all of them;
// looks `sample` of them up, in a random order, and again while they are in memory; renames these, and removes them. A
// line of JSON for each phase: microseconds an operation, by the clock and (phase_cpu) of the processors, the threads
// of consistency points included.
#include <ctime>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "common/file_block_device.h"
#include "fs/engine/volume.h"
#include "fs/storage/format_volume.h"
#include "load.h"

namespace tarnfs::bench {
namespace {

constexpr std::uint64_t kBytesPerFile = 8192;  // of the image
constexpr std::uint64_t kImageBytesMin = std::uint64_t{256} << 20;

double processor_seconds() {
  timespec used{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9;
}

template <class T>
T value_of(Result<T> result, const char* what) {
  if (result.ok()) return std::move(result).value();
  std::fprintf(stderr, "tarnfs_bench_engine: %s: %s\n", what, result.error().describe().c_str());
  std::_Exit(1);
}

void check(const Status& status, const char* what) {
  if (status.ok()) return;
  std::fprintf(stderr, "tarnfs_bench_engine: %s: %s\n", what, status.error().describe().c_str());
  std::_Exit(1);
}

}  // namespace

class EngineLoad {
 public:
  EngineLoad(const std::string& image, const Options& options)
      : files_(std::max<std::uint64_t>(options.number("files", 100'000), 1)),
        directories_(std::max<std::uint64_t>(options.number("directories", 1), 1)),
        part_(std::max<std::uint64_t>(options.number("part", files_), 1)),
        threads_(static_cast<unsigned>(std::max<std::uint64_t>(options.number("threads", 1), 1))),
        device_(make_image(image)) {
    VolumeOptions volume_options;
    volume_options.cache_limit_bytes = options.number("cache_mib", volume_options.cache_limit_bytes >> 20) << 20;
    volume_ = value_of(Volume::open(*device_, volume_options), "open the volume");
    choose(std::min(options.number("sample", 20'000), files_));
  }

  void run() {
    create();
    timed("consistency_point", 1, [this] { value_of(volume_->consistency_point(), "take a consistency point"); });
    for (std::uint64_t n = 0; n < files_; ++n) volume_->forget(inodes_[n], 1);
    timed("lookup", sample_.size(), [this] { look_up(); });
    for (const std::uint64_t n : sample_) volume_->forget(inodes_[n], 1);
    timed("lookup_again", sample_.size(), [this] { look_up(); });
    for (const std::uint64_t n : sample_) volume_->forget(inodes_[n], 1);
    timed("rename", sample_.size(), [this] { rename(); });
    timed("unlink", sample_.size(), [this] { unlink(); });
    check(volume_->close(), "close the volume");
  }

  // Not in line, so that a profiler finds it by its name.
  [[gnu::noinline]] void look_up() {
    each([this](std::uint64_t n) {
      const Attributes found = value_of(volume_->lookup(directory_of(n), name(n)), "look a name up");
      if (found.inode != inodes_[n]) std::abort();
    });
  }

  [[gnu::noinline]] void rename() {
    each([this](std::uint64_t n) {
      const InodeNumber directory = directory_of(n);
      check(volume_->rename(directory, name(n), directory, new_name(n), RenameMode::kReplace), "rename");
    });
  }

  [[gnu::noinline]] void unlink() {
    each([this](std::uint64_t n) { check(volume_->unlink(directory_of(n), new_name(n)), "remove a name"); });
  }

  [[gnu::noinline]] void create_part(std::uint64_t begin, std::uint64_t end) {
    run_threads(threads_, [&](unsigned thread) {
      for (std::uint64_t n = begin + thread; n < end; n += threads_) {
        NewNode node;
        node.mode = 0100644;
        inodes_[n] = value_of(volume_->make_node(directory_of(n), name(n), node), "make a file").inode;
      }
    });
  }

 private:
  std::unique_ptr<FileBlockDevice> make_image(const std::string& path) const {
    const std::uint64_t size_bytes = std::max(kImageBytesMin, files_ * kBytesPerFile);
    auto device = value_of(FileBlockDevice::create(path, size_bytes / kPageBytes), "make the image");
    value_of(format_volume(*device, FormatOptions{"bench", {}, 0, 0, {}}, system_clock()), "make the volume");
    return device;
  }

  static std::string name(std::uint64_t n) { return "f" + std::to_string(n); }
  static std::string new_name(std::uint64_t n) { return "renamed" + std::to_string(n); }
  InodeNumber directory_of(std::uint64_t n) const { return inodes_of_directories_[n % directories_]; }

  void choose(std::uint64_t count) {
    std::vector<std::uint64_t> numbers(files_);
    std::iota(numbers.begin(), numbers.end(), std::uint64_t{0});
    Random random(files_);
    for (std::uint64_t i = 0; i < count; ++i) std::swap(numbers[i], numbers[i + random.below(files_ - i)]);
    sample_.assign(numbers.begin(), numbers.begin() + static_cast<std::ptrdiff_t>(count));
  }

  void create() {
    for (std::uint64_t i = 0; i < directories_; ++i) {
      NewNode node;
      node.mode = 0040755;
      const auto made = volume_->make_node(kRootDirectory, "d" + std::to_string(i), node);
      inodes_of_directories_.push_back(value_of(made, "make a directory").inode);
    }
    inodes_.resize(files_);
    for (std::uint64_t begin = 0; begin < files_; begin += part_) {
      const std::uint64_t end = std::min(begin + part_, files_);
      timed("create", end - begin, [&] { create_part(begin, end); });
    }
  }

  template <class Body>
  void each(const Body& body) {
    run_threads(threads_, [&](unsigned thread) {
      for (std::size_t i = thread; i < sample_.size(); i += threads_) body(sample_[i]);
    });
  }

  template <class Body>
  static void timed(const std::string& phase, std::uint64_t operations, const Body& body) {
    const double used_before = processor_seconds();
    const auto begun = Clock::now();
    body();
    const double seconds = std::chrono::duration<double>(Clock::now() - begun).count();
    report_cost(phase, operations, seconds);
    report_cost(phase + "_cpu", operations, processor_seconds() - used_before);
  }

  const std::uint64_t files_;
  const std::uint64_t directories_;
  const std::uint64_t part_;
  const unsigned threads_;
  const std::unique_ptr<FileBlockDevice> device_;
  std::unique_ptr<Volume> volume_;
  std::vector<InodeNumber> inodes_of_directories_;
  std::vector<InodeNumber> inodes_;    // by number of the file
  std::vector<std::uint64_t> sample_;  // numbers of files
};

}  // namespace tarnfs::bench

int main(int argc, char** argv) {
  using namespace tarnfs::bench;
  if (argc < 2) {
    std::fprintf(stderr, "usage: tarnfs_bench_engine IMAGE [KEY=VALUE]...\n");
    return 2;
  }
  EngineLoad(argv[1], Options(argc - 2, argv + 2)).run();
  return 0;
}
