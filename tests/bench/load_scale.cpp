// Many files, in few or many directories. Each step is a call of its own, so that the caller can wait in between until
// the file system has come to rest:
//
//   step=create directories=N from=N files=N [part=N] [threads=N]   makes the files number `from` to `files`, and tells
//                                                                   the cost of each `part` of them
//   step=forget directories=N                                       has the kernel forget all names but the
//   directories' step=stat|open_close|unlink directories=N files=N sample=N [threads=N]
//                                                                   on some of the `files` that there are; what it
//                                                                   removes it makes again
//   step=fresh directory=NAME files=N [threads=N]                   makes files in a new directory for each thread
//
// File number n is in directory n modulo `directories`, so that all of them grow together.
#include <fcntl.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "load.h"

namespace tarnfs::bench {

namespace {

void make_file(const std::string& path) {
  const File file(path, O_CREAT | O_EXCL | O_WRONLY);
}

// What the options say.
class Scale {
 public:
  explicit Scale(const Options& options)
      : directories_(std::max<std::uint64_t>(options.number("directories", 1), 1)),
        from_(options.number("from", 0)),
        files_(options.number("files", 0)),
        part_(std::max<std::uint64_t>(options.number("part", files_), 1)),
        sample_(std::min(options.number("sample", 20000), files_)),
        threads_(static_cast<unsigned>(std::max<std::uint64_t>(options.number("threads", 2), 1))),
        fresh_(options.text("directory", "fresh")) {}

  void create() const {
    if (from_ == 0) {
      for (std::uint64_t i = 0; i < directories_; ++i) make_directory(directory(i));
    }
    for (std::uint64_t begin = from_; begin < files_; begin += part_) {
      const std::uint64_t end = std::min(begin + part_, files_);
      const double seconds = run_threads(threads_, [&](unsigned thread) {
        for (std::uint64_t n = begin + thread; n < end; n += threads_) make_file(path(n));
      });
      report_cost("create", end - begin, seconds);
    }
  }

  // No step pays for the directories themselves, of which there are more to a file the fewer files there are.
  void forget() const {
    make_kernel_forget_names();
    for (std::uint64_t i = 0; i < directories_; ++i) look_at(directory(i));
  }

  void stat() const { each("stat", look_at, some_paths(1)); }

  void open_close() const {
    each(
        "open_close", [](const std::string& path) { const File file(path, O_RDONLY); }, some_paths(2));
  }

  void unlink() const {
    const std::vector<std::string> paths = some_paths(3);
    each("unlink", remove_file, paths);
    for (const std::string& path : paths) make_file(path);
  }

  void create_in_fresh_directories() const {
    make_directory(fresh_);
    std::vector<std::string> prefixes;
    prefixes.reserve(threads_);
    for (unsigned thread = 0; thread < threads_; ++thread) {
      prefixes.push_back(fresh_ + "/t" + std::to_string(thread));
      make_directory(prefixes.back());
    }
    const std::uint64_t share = files_ / threads_;
    Figures figures;
    figures.operations = share * threads_;
    figures.seconds = run_threads(threads_, [&](unsigned thread) {
      for (std::uint64_t n = 0; n < share; ++n) make_file(prefixes[thread] + "/f" + std::to_string(n));
    });
    report("fresh", std::move(figures));
  }

 private:
  static std::string directory(std::uint64_t number) { return "d" + std::to_string(number); }
  std::string path(std::uint64_t number) const {
    return directory(number % directories_) + "/f" + std::to_string(number);
  }

  // Each at most once, in a random order.
  std::vector<std::string> some_paths(std::uint64_t seed) const {
    std::vector<std::uint32_t> numbers(files_);
    std::iota(numbers.begin(), numbers.end(), 0U);
    Random random(files_ + seed);
    std::vector<std::string> paths;
    paths.reserve(sample_);
    for (std::uint64_t i = 0; i < sample_; ++i) {
      std::swap(numbers[i], numbers[i + random.below(files_ - i)]);
      paths.push_back(path(numbers[i]));
    }
    return paths;
  }

  void each(const std::string& phase, const std::function<void(const std::string&)>& body,
            const std::vector<std::string>& paths) const {
    const double seconds = run_threads(threads_, [&](unsigned thread) {
      for (std::size_t i = thread; i < paths.size(); i += threads_) body(paths[i]);
    });
    report_cost(phase, paths.size(), seconds);
  }

  std::uint64_t directories_;
  std::uint64_t from_;
  std::uint64_t files_;
  std::uint64_t part_;
  std::uint64_t sample_;
  unsigned threads_;
  std::string fresh_;
};

}  // namespace

void run_scale(const Options& options) {
  const Scale scale(options);
  const std::string step = options.text("step", "create");
  if (step == "create") {
    scale.create();
  } else if (step == "forget") {
    scale.forget();
  } else if (step == "stat") {
    scale.stat();
  } else if (step == "open_close") {
    scale.open_close();
  } else if (step == "unlink") {
    scale.unlink();
  } else if (step == "fresh") {
    scale.create_in_fresh_directories();
  } else {
    std::fprintf(stderr, "tarnfs_bench_load: there is no step %s\n", step.c_str());
    std::_Exit(2);
  }
}

}  // namespace tarnfs::bench
