// A long random run of operations against a model in memory, with remounts and crashes: the volume holds just what the
// model holds, and after a crash what the model held at the last consistency point.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <map>
#include <random>

#include "tests/support/seed.h"
#include "tests/support/test_volume.h"
#include "tests/support/thread_sanitizer.h"

using namespace tarnfs;
using tarnfs::testing::kOneRoundOf;
using tarnfs::testing::TestVolume;

namespace {

// Path -> content of regular files; directories have a trailing slash.
using Model = std::map<std::string, std::string>;

class RandomRun {
 public:
  explicit RandomRun(std::uint64_t seed) : random_(seed) { model_["/"] = ""; }

  void step() {
    switch (random_() % 16) {
      case 0:
      case 1:
        return make_file();
      case 2:
        return make_directory();
      case 3:
      case 4:
      case 5:
        return write();
      case 6:
        return truncate();
      case 7:
        return remove();
      case 8:
        return rename();
      case 9:
        return check_one();
      case 10:
      case 11:
        return copy();
      case 12:
      case 13:
        return allocate();
      default:
        return persist();
    }
  }

  void check_all(const Model& expected) {
    std::size_t seen = 0;
    for (const auto& entry : expected) {
      const std::string& path = entry.first;
      const std::string& content = entry.second;
      const auto inode = find(path);
      INFO(path);
      REQUIRE(inode.has_value());
      if (path.back() != '/') REQUIRE(test_.read(*inode, 0, content.size() + 10) == content);
      test_.volume->forget(*inode, 1);
      ++seen;
    }
    std::size_t listed = 1;
    for (const auto& [path, content] : expected) {
      if (path.back() == '/') listed += count_entries(path);
    }
    CHECK(listed == seen);
  }

  void finish() {
    check_all(model_);
    test_.reopen();
    check_all(model_);
    CHECK(test_.problems() == "");
  }

 private:
  static std::string parent_of(const std::string& path) {
    const std::size_t end = path.back() == '/' ? path.size() - 2 : path.size() - 1;
    return path.substr(0, path.rfind('/', end) + 1);
  }
  static std::string name_of_path(const std::string& path) {
    const std::string trimmed = path.back() == '/' ? path.substr(0, path.size() - 1) : path;
    return trimmed.substr(trimmed.rfind('/') + 1);
  }

  std::optional<InodeNumber> find(const std::string& path) {
    InodeNumber inode = kRootDirectory;
    if (path == "/") return inode;
    std::size_t start = 1;
    const std::string trimmed = path.back() == '/' ? path.substr(0, path.size() - 1) : path;
    while (start <= trimmed.size()) {
      const std::size_t end = std::min(trimmed.find('/', start), trimmed.size());
      const auto found = test_.volume->lookup(inode, trimmed.substr(start, end - start));
      if (!found.ok()) return std::nullopt;
      inode = found->inode;
      start = end + 1;
      if (start <= trimmed.size()) test_.volume->forget(inode, 1);
    }
    return inode;
  }

  std::size_t count_entries(const std::string& path) {
    const InodeNumber inode = find(path).value();
    std::size_t count = 0;
    REQUIRE(test_.volume
                ->list(inode, 0,
                       [&](const DirectoryEntry&) {
                         ++count;
                         return true;
                       })
                .ok());
    if (path != "/") test_.volume->forget(inode, 1);
    return count - 2;
  }

  std::string pick(bool directory) {
    std::vector<std::string> paths;
    for (const auto& [path, content] : model_) {
      if ((path.back() == '/') == directory) paths.push_back(path);
    }
    return paths.empty() ? "" : paths[random_() % paths.size()];
  }

  void make_file() {
    const std::string path = pick(true) + "f" + std::to_string(random_() % 400);
    if (model_.contains(path) || model_.contains(path + "/")) return;
    const InodeNumber parent = find(parent_of(path)).value();
    test_.volume->forget(test_.make(parent, name_of_path(path)), 1);
    model_[path] = "";
  }
  void make_directory() {
    const std::string path = pick(true) + "d" + std::to_string(random_() % 20) + "/";
    if (model_.contains(path) || std::count(path.begin(), path.end(), '/') > 6) return;
    const InodeNumber parent = find(parent_of(path)).value();
    test_.volume->forget(test_.make(parent, name_of_path(path), S_IFDIR | 0755), 1);
    model_[path] = "";
  }
  void write() {
    const std::string path = pick(false);
    if (path.empty()) return;
    const InodeNumber inode = find(path).value();
    const std::size_t offset = random_() % 100000;
    const std::string data(1 + random_() % (random_() % 4 == 0 ? 200000 : 9000),
                           static_cast<char>('a' + random_() % 26));
    REQUIRE(test_.write(inode, offset, data).ok());
    std::string& content = model_[path];
    if (content.size() < offset + data.size()) content.resize(offset + data.size());
    content.replace(offset, data.size(), data);
    test_.volume->forget(inode, 1);
  }
  // Parts or the whole of one file into another, most of them in whole blocks.
  void copy() {
    const std::string from_path = pick(false);
    const std::string to_path = pick(false);
    if (from_path == to_path) return;
    const InodeNumber from = find(from_path).value();
    const InodeNumber to = find(to_path).value();
    const std::string source = model_[from_path];
    std::string& target = model_[to_path];
    std::size_t offset = random_() % 20 * kBlockSize;
    if (random_() % 3 == 0) offset = random_() % 2 == 0 ? 0 : random_() % 90000;
    const std::size_t to_offset = random_() % 5 == 0 ? random_() % 90000 : offset;
    const std::size_t length = random_() % 3 == 0 ? source.size() : 1 + random_() % 60000;
    const std::string part = source.substr(std::min(offset, source.size()), length);
    REQUIRE(test_.volume->copy_range(from, offset, to, to_offset, length).value() == part.size());
    if (!part.empty()) {
      if (target.size() < to_offset + part.size()) target.resize(to_offset + part.size());
      target.replace(to_offset, part.size(), part);
    }
    test_.volume->forget(from, 1);
    test_.volume->forget(to, 1);
  }
  // Space is kept for a range, or for what is zeroed, or given back with a hole.
  void allocate() {
    const std::string path = pick(false);
    if (path.empty()) return;
    const InodeNumber inode = find(path).value();
    const std::size_t offset = random_() % 100000;
    const std::size_t length = 1 + random_() % (random_() % 3 == 0 ? 3000000 : 50000);
    FallocateOptions options;
    options.punch_hole = random_() % 4 == 0;
    options.zero_range = !options.punch_hole && random_() % 3 == 0;
    options.keep_size = options.punch_hole || random_() % 2 == 0;
    REQUIRE(test_.volume->fallocate(inode, offset, length, options).ok());
    std::string& content = model_[path];
    if (!options.keep_size) content.resize(std::max(content.size(), offset + length));
    if (options.punch_hole || options.zero_range) {
      const std::size_t first = std::min(offset, content.size());
      std::fill(content.begin() + static_cast<std::ptrdiff_t>(first),
                content.begin() + static_cast<std::ptrdiff_t>(std::min(offset + length, content.size())), '\0');
    }
    test_.volume->forget(inode, 1);
  }
  void truncate() {
    const std::string path = pick(false);
    if (path.empty()) return;
    const InodeNumber inode = find(path).value();
    AttributeChanges changes;
    changes.size_bytes = random_() % 3 == 0 ? 0 : random_() % 150000;
    REQUIRE(test_.volume->change_attributes(inode, changes).ok());
    model_[path].resize(*changes.size_bytes);
    test_.volume->forget(inode, 1);
  }
  void remove() {
    const bool directory = random_() % 4 == 0;
    const std::string path = pick(directory);
    if (path.empty() || path == "/") return;
    const InodeNumber parent = find(parent_of(path)).value();
    if (!directory) {
      REQUIRE(test_.volume->unlink(parent, name_of_path(path)).ok());
      model_.erase(path);
      return;
    }
    const auto next = std::next(model_.find(path));
    const bool empty = next == model_.end() || !next->first.starts_with(path);
    const Status status = test_.volume->remove_directory(parent, name_of_path(path));
    REQUIRE(status.ok() == empty);
    if (empty) model_.erase(path);
  }
  void rename() {
    const std::string from = pick(false);
    if (from.empty()) return;
    const std::string to = pick(true) + "f" + std::to_string(random_() % 400);
    if (from == to || model_.contains(to + "/")) return;
    const InodeNumber from_parent = find(parent_of(from)).value();
    const InodeNumber to_parent = find(parent_of(to)).value();
    REQUIRE(
        test_.volume->rename(from_parent, name_of_path(from), to_parent, name_of_path(to), RenameMode::kReplace).ok());
    model_[to] = model_[from];
    model_.erase(from);
  }
  void check_one() {
    const std::string path = pick(false);
    if (path.empty()) return;
    const InodeNumber inode = find(path).value();
    REQUIRE(test_.read(inode, 0, model_[path].size() + 1) == model_[path]);
    test_.volume->forget(inode, 1);
  }
  void persist() {
    const unsigned kind = random_() % 20;
    if (kind < 14) {
      REQUIRE(test_.volume->consistency_point().ok());
      durable_ = model_;
    } else if (kind < 17) {
      test_.reopen();
      durable_ = model_;
    } else {
      test_.crash_and_reopen();
      model_ = durable_;
      check_all(model_);
      REQUIRE(test_.problems() == "");
    }
  }

  std::mt19937_64 random_;
  TestVolume test_{std::uint64_t{1} << 20};
  Model model_;
  Model durable_{{"/", ""}};
};

}  // namespace

TEST_CASE("random operations agree with a model, over remounts and crashes") {
  RandomRun run(testing::printed_seed());
  for (unsigned i = 0; i < 4000 / kOneRoundOf; ++i) run.step();
  run.finish();
}
