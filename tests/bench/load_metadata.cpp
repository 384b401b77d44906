// Names and attributes: many small files below a tree of directories for each thread.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "load.h"

namespace tarnfs::bench {

namespace {

constexpr unsigned kFilesPerDirectory = 500;
constexpr unsigned kDurableFilesMax = 500;  // for each thread

// What one thread works on.
struct Share {
  std::string top;
  std::vector<std::string> directories;
  std::vector<std::string> files;
  std::vector<std::string> renamed;
  std::vector<std::string> empty_directories;
  std::vector<std::string> durable_files;
};

Share make_share(unsigned thread, unsigned files) {
  Share share;
  share.top = "t" + std::to_string(thread);
  for (unsigned i = 0; i < files; ++i) {
    if (i % kFilesPerDirectory == 0) {
      share.directories.push_back(share.top + "/d" + std::to_string(i / kFilesPerDirectory));
    }
    const std::string path = share.directories.back() + "/f" + std::to_string(i);
    share.files.push_back(path);
    share.renamed.push_back(path + ".renamed");
    share.empty_directories.push_back(share.directories.back() + "/e" + std::to_string(i));
  }
  for (unsigned i = 0; i < std::min(files, kDurableFilesMax); ++i) {
    share.durable_files.push_back(share.directories.front() + "/s" + std::to_string(i));
  }
  return share;
}

void remove_directory(const std::string& path) {
  if (::rmdir(path.c_str()) != 0) fail("rmdir", path);
}

std::uint64_t count_names(const std::string& path) {
  DIR* const stream = ::opendir(path.c_str());
  if (stream == nullptr) fail("opendir", path);
  std::uint64_t names = 0;
  while (::readdir(stream) != nullptr) ++names;
  ::closedir(stream);
  return names;
}

class Metadata {
 public:
  explicit Metadata(const Options& options) {
    const auto threads = static_cast<unsigned>(options.number("threads", 2));
    const auto files = static_cast<unsigned>(options.number("files", 20000));
    for (unsigned thread = 0; thread < threads; ++thread) shares_.push_back(make_share(thread, files / threads));
    for (const Share& share : shares_) {
      make_directory(share.top);
      for (const std::string& path : share.directories) make_directory(path);
    }
  }

  void run() {
    each("mkdir", &Share::empty_directories, [](const std::string& path, std::size_t) { make_directory(path); });
    each("rmdir", &Share::empty_directories, [](const std::string& path, std::size_t) { remove_directory(path); });
    each("create_empty", &Share::files,
         [](const std::string& path, std::size_t) { const File file(path, O_CREAT | O_EXCL | O_WRONLY); });
    each("unlink_empty", &Share::files, [](const std::string& path, std::size_t) { remove_file(path); });
    each("create_write_4k", &Share::files, [this](const std::string& path, std::size_t) {
      const File file(path, O_CREAT | O_EXCL | O_WRONLY);
      file.write_at(page_.data(), page_.size(), 0);
    });
    make_kernel_forget();
    each("stat_first", &Share::files, [](const std::string& path, std::size_t) { look_at(path); });
    each("stat_again", &Share::files, [](const std::string& path, std::size_t) { look_at(path); });
    make_kernel_forget();
    list_names();
    change_files();
  }

 private:
  using Body = std::function<void(const std::string&, std::size_t)>;

  // `body` on every path of that list of every share, each thread on its own share.
  void each(const std::string& phase, std::vector<std::string> Share::*list, const Body& body) {
    Figures figures;
    for (const Share& share : shares_) figures.operations += (share.*list).size();
    figures.seconds = run_threads(static_cast<unsigned>(shares_.size()), [&](unsigned thread) {
      const std::vector<std::string>& paths = shares_[thread].*list;
      for (std::size_t i = 0; i < paths.size(); ++i) body(paths[i], i);
    });
    report(phase, figures);
  }

  void list_names() {
    std::vector<std::uint64_t> names(shares_.size(), 0);
    Figures figures;
    figures.seconds = run_threads(static_cast<unsigned>(shares_.size()), [&](unsigned thread) {
      for (const std::string& path : shares_[thread].directories) names[thread] += count_names(path);
    });
    for (const std::uint64_t some : names) figures.operations += some;
    report("readdir_names", figures);
  }

  void change_files() {
    each("chmod", &Share::files, [](const std::string& path, std::size_t) {
      if (::chmod(path.c_str(), 0600) != 0) fail("chmod", path);
    });
    const auto read_whole = [](const std::string& path, std::size_t) {
      char buffer[kPageBytes];
      const File file(path, O_RDONLY);
      file.read_at(buffer, sizeof buffer, 0);
    };
    each("open_read_close_first", &Share::files, read_whole);
    each("open_read_close", &Share::files, read_whole);
    const auto rename_all = [this] {
      Figures figures;
      for (const Share& share : shares_) figures.operations += share.files.size();
      figures.seconds = run_threads(static_cast<unsigned>(shares_.size()), [&](unsigned thread) {
        const Share& share = shares_[thread];
        for (std::size_t i = 0; i < share.files.size(); ++i) {
          if (::rename(share.files[i].c_str(), share.renamed[i].c_str()) != 0) fail("rename", share.files[i]);
        }
      });
      report("rename", figures);
    };
    rename_all();
    each("unlink", &Share::renamed, [](const std::string& path, std::size_t) { remove_file(path); });
    each("create_write_fsync", &Share::durable_files, [this](const std::string& path, std::size_t) {
      const File file(path, O_CREAT | O_EXCL | O_WRONLY);
      file.write_at(page_.data(), page_.size(), 0);
      file.sync();
    });
  }

  std::vector<Share> shares_;
  std::vector<char> page_ = random_bytes(kPageBytes);
};

}  // namespace

void run_metadata(const Options& options) {
  Metadata(options).run();
}

}  // namespace tarnfs::bench
