// The mount of a mirror, through the kernel: what is asked twice costs no request, and whatever the kernel keeps, a
// state is seen as soon as it is shown. Skipped where there is no /dev/fuse to open.
//
// The mirror is opened on the primary's device: each consistency point of the primary is one more state to show.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "fs/fuse/mount.h"
#include "tests/support/seed.h"
#include "tests/support/test_volume.h"

using namespace tarnfs;
using namespace tarnfs::testing;

namespace {

namespace fs = std::filesystem;

// TARNFS_TEST_IO_URING=1 in the environment: over io_uring.
IoUring wanted_transport() {
  return std::getenv("TARNFS_TEST_IO_URING") != nullptr ? IoUring::kOn : IoUring::kOff;
}

bool can_mount() {
  const int descriptor = ::open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (descriptor >= 0) ::close(descriptor);
  const bool possible = descriptor >= 0 && ::geteuid() == 0;
  if (!possible) MESSAGE("skipped: needs root and /dev/fuse");
  FuseMountOptions options;
  options.io_uring = wanted_transport();
  options.mountpoint = "/";
  const Status transport = FuseMount::check(options);
  if (!transport.ok()) MESSAGE("skipped: ", transport.error().describe());
  return possible && transport.ok();
}

// Holds reads of one block back, as a slow disk does.
class SlowDevice final : public BlockDevice {
 public:
  explicit SlowDevice(MemoryBlockDevice& base) : base_(base) {}
  std::string name() const override { return "slow"; }
  std::uint64_t size_blocks() const override { return base_.size_blocks(); }
  Status read(Address first, std::span<std::byte> out) override {
    {
      std::unique_lock lock(mutex_);
      const auto is_held = [&] {
        return held_ && *held_ >= first && held_->value < first.value + out.size() / kBlockSize;
      };
      if (is_held()) {
        ++waiting_;
        changed_.notify_all();
        changed_.wait(lock, [&] { return !is_held(); });
        --waiting_;
      }
    }
    return base_.read(first, out);
  }
  Status write(Address first, std::span<const PageRef> pages) override { return base_.write(first, pages); }
  Status flush() override { return base_.flush(); }

  void hold(std::optional<Address> address) {
    const std::lock_guard lock(mutex_);
    held_ = address;
    changed_.notify_all();
  }
  void wait_for_reader() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_ > 0; });
  }

 private:
  MemoryBlockDevice& base_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Address> held_;
  int waiting_ = 0;
};

// A primary, and the mount of what its states look like on a mirror.
class Pair {
 public:
  // By default a state waits longer than a busy machine can delay the mount's threads: nothing is late for that alone.
  explicit Pair(std::optional<std::chrono::milliseconds> kernel_wait_max = std::chrono::seconds(30))
      : primary(65536), device(*primary.device) {
    std::string pattern = (fs::temp_directory_path() / "tarnfs-mirror-XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    directory = pattern;
    VolumeOptions options;
    options.mode = VolumeMode::kMirror;
    mirror = Volume::open(device, options).value();
    publish();
    FuseMountOptions mount_options;
    mount_options.mountpoint = directory.string();
    mount_options.source = "mirror";
    mount_options.read_only = true;
    mount_options.changes_by_itself = true;
    mount_options.kernel_wait_max = kernel_wait_max;
    mount_options.io_uring = wanted_transport();
    auto mounted = FuseMount::mount(*mirror, mount_options, {});
    REQUIRE_MESSAGE(mounted.ok(), (mounted.ok() ? "" : mounted.error().describe()));
    mount = std::move(*mounted);
    mirror->set_view_listener(mount->view_listener());
  }
  ~Pair() {
    mirror->set_view_listener(nullptr);
    mount.reset();
    fs::remove(directory);
  }
  Pair(const Pair&) = delete;
  Pair& operator=(const Pair&) = delete;

  void publish() {
    REQUIRE(primary.volume->consistency_point().ok());
    REQUIRE(mirror->adopt(primary.volume->newest_root()).ok());
  }
  std::string at(const std::string& name) const { return (directory / name).string(); }
  std::uint64_t asked() const { return mount->kernel_cache_status().asked_count; }
  std::uint64_t late() const { return mount->kernel_cache_status().late_count; }
  InodeNumber make(const std::string& name, const std::string& content = "") {
    const InodeNumber inode = primary.make(kRootDirectory, name);
    if (!content.empty()) REQUIRE(primary.write(inode, 0, content).ok());
    return inode;
  }

  TestVolume primary;
  SlowDevice device;
  std::unique_ptr<Volume> mirror;
  fs::path directory;
  std::unique_ptr<FuseMount> mount;
};

class Descriptor {
 public:
  explicit Descriptor(const std::string& path, int flags = O_RDONLY)
      : number_(::open(path.c_str(), flags | O_CLOEXEC)) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  Descriptor& operator=(Descriptor&&) = delete;
  operator int() const { return number_; }

 private:
  int number_;
};

// Whole, or "errno N".
std::string content_at(int descriptor) {
  std::string content;
  std::string part(1 << 18, '\0');
  for (;;) {
    const ssize_t count = ::pread(descriptor, part.data(), part.size(), static_cast<off_t>(content.size()));
    if (count < 0) return "errno " + std::to_string(errno);
    if (count == 0) return content;
    content.append(part, 0, static_cast<std::size_t>(count));
  }
}
std::string content_at(const std::string& path) {
  return content_at(Descriptor(path));
}

std::optional<struct stat> stat_at(const std::string& path) {
  struct stat found {};
  if (::lstat(path.c_str(), &found) != 0) {
    CHECK(errno == ENOENT);
    return std::nullopt;
  }
  return found;
}

std::string xattr_at(const std::string& path, const char* name) {
  std::string value(4096, '\0');
  const ssize_t size = ::lgetxattr(path.c_str(), name, value.data(), value.size());
  if (size < 0) return "none";
  value.resize(static_cast<std::size_t>(size));
  return value;
}
std::string xattr_at(int descriptor, const char* name) {
  std::string value(4096, '\0');
  const ssize_t size = ::fgetxattr(descriptor, name, value.data(), value.size());
  if (size < 0) return "none";
  value.resize(static_cast<std::size_t>(size));
  return value;
}

std::string acl_for(std::uint32_t user) {
  struct Entry {
    std::uint16_t tag;
    std::uint16_t permissions;
    std::uint32_t id;
  };
  const std::array<Entry, 5> entries = {
      {{0x01, 6, ~0U}, {0x02, 4, user}, {0x04, 4, ~0U}, {0x10, 4, ~0U}, {0x20, 4, ~0U}}};
  const std::uint32_t version = 2;
  std::string value(reinterpret_cast<const char*>(&version), sizeof version);
  value.append(reinterpret_cast<const char*>(entries.data()), sizeof entries);
  return value;
}

}  // namespace

TEST_CASE("what was asked for once is not asked for again before it changes") {
  if (!can_mount()) return;
  Pair pair;
  std::string content(300 * kBlockSize, 'x');
  const InodeNumber file = pair.make("file", content);
  const InodeNumber other = pair.make("other", "other");
  const InodeNumber below = pair.primary.make(kRootDirectory, "directory", S_IFDIR | 0755);
  pair.primary.make(below, "below");
  pair.publish();
  const auto look = [&] {
    REQUIRE(stat_at(pair.at("directory/below")));
    CHECK(!stat_at(pair.at("directory/missing")));
    CHECK(!stat_at(pair.at("missing/at all")));
    CHECK(content_at(pair.at("other")) == "other");
    CHECK(content_at(pair.at("file")) == content);
  };
  look();
  look();  // sizes at the end of the file are asked for once more
  const std::uint64_t before = pair.asked();
  for (int i = 0; i < 1000; ++i) {
    REQUIRE(stat_at(pair.at("directory/below")));
    CHECK(!stat_at(pair.at("directory/missing")));
  }
  for (int i = 0; i < 10; ++i) look();
  CHECK(pair.asked() == before);

  // A state that changes something else takes nothing away.
  REQUIRE(pair.primary.write(other, 0, "OTHER").ok());
  pair.publish();
  CHECK(content_at(pair.at("file")) == content);
  REQUIRE(stat_at(pair.at("directory/below")));
  CHECK(!stat_at(pair.at("directory/missing")));
  CHECK(pair.asked() == before);
  CHECK(content_at(pair.at("other")) == "OTHER");

  // One page of many: that one is read again, and what the kernel reads ahead is not there to be read.
  content[100 * kBlockSize] = 'y';
  REQUIRE(pair.primary.write(file, 100 * kBlockSize, "y").ok());
  pair.publish();
  const std::uint64_t changed = pair.asked();
  CHECK(content_at(pair.at("file")) == content);
  CHECK(pair.asked() - changed <= 4);  // the page, attributes, and perhaps its name
  CHECK(pair.late() == 0);
}

TEST_CASE("a state is seen as soon as it is shown") {
  if (!can_mount()) return;
  Pair pair;
  Volume& volume = *pair.primary.volume;
  const InodeNumber file = pair.make("file", std::string(10 * kBlockSize, 'a'));
  const InodeNumber from = pair.primary.make(kRootDirectory, "from", S_IFDIR | 0755);
  const InodeNumber to = pair.primary.make(kRootDirectory, "to", S_IFDIR | 0755);
  pair.primary.make(from, "moves");
  pair.make("removed", "removed");
  pair.make("replaced", "old");
  pair.publish();

  const Descriptor open_file(pair.at("file"));
  const Descriptor open_directory(pair.at("from"), O_RDONLY | O_DIRECTORY);
  void* const mapped = ::mmap(nullptr, 10 * kBlockSize, PROT_READ, MAP_SHARED, open_file, 0);
  REQUIRE(mapped != MAP_FAILED);
  const auto* const bytes = static_cast<const volatile char*>(mapped);
  CHECK(bytes[5 * kBlockSize] == 'a');
  CHECK(content_at(open_file) == std::string(10 * kBlockSize, 'a'));
  for (const std::string name : {"from/moves", "removed", "replaced"}) REQUIRE(stat_at(pair.at(name)));
  for (const std::string name : {"to/moves", "linked", "made"}) REQUIRE(!stat_at(pair.at(name)));
  CHECK(xattr_at(pair.at("file"), "system.posix_acl_access") == "none");

  REQUIRE(pair.primary.write(file, 5 * kBlockSize, "b").ok());
  REQUIRE(volume.rename(from, "moves", to, "moves", RenameMode::kReplace).ok());
  REQUIRE(volume.unlink(kRootDirectory, "removed").ok());
  pair.make("new", "new");
  REQUIRE(volume.rename(kRootDirectory, "new", kRootDirectory, "replaced", RenameMode::kReplace).ok());
  REQUIRE(volume.link(file, kRootDirectory, "linked").ok());
  pair.make("made", "made");
  const std::string acl = acl_for(4711);
  REQUIRE(volume.set_xattr(file, "system.posix_acl_access", std::as_bytes(std::span(acl)), XattrMode::kCreate).ok());
  pair.publish();

  CHECK(bytes[5 * kBlockSize] == 'b');
  CHECK(content_at(open_file)[5 * kBlockSize] == 'b');
  struct stat found {};
  REQUIRE(::fstat(open_file, &found) == 0);
  CHECK(found.st_nlink == 2);
  CHECK(!stat_at(pair.at("from/moves")));
  CHECK(stat_at(pair.at("to/moves")));
  CHECK(::faccessat(open_directory, "moves", F_OK, 0) != 0);
  CHECK(!stat_at(pair.at("removed")));
  CHECK(content_at(pair.at("replaced")) == "new");
  CHECK(content_at(pair.at("linked")).size() == 10 * kBlockSize);
  CHECK(content_at(pair.at("made")) == "made");
  CHECK(xattr_at(pair.at("file"), "system.posix_acl_access") == acl);

  AttributeChanges shorter;
  shorter.size_bytes = 2 * kBlockSize + 7;
  REQUIRE(volume.change_attributes(file, shorter).ok());
  pair.publish();
  CHECK(content_at(open_file) == std::string(2 * kBlockSize + 7, 'a'));
  CHECK(stat_at(pair.at("linked"))->st_size == 2 * kBlockSize + 7);
  ::munmap(mapped, 10 * kBlockSize);
  CHECK(pair.late() == 0);
}

namespace {

// Does something when a change has been found and is not yet known to the mount.
class BetweenChangeAndMount final : public ViewListener {
 public:
  BetweenChangeAndMount(ViewListener& mount, std::function<void()> action)
      : mount_(mount), action_(std::move(action)) {}
  bool forgets_all_names() const override { return mount_.forgets_all_names(); }
  void prepare() override { mount_.prepare(); }
  void forget(ViewChange change) override {
    action_();
    mount_.forget(std::move(change));
  }
  void finish() override { mount_.finish(); }

 private:
  ViewListener& mount_;
  std::function<void()> action_;
};

}  // namespace

TEST_CASE("what is looked at for the first time while a state is being made known is not seen as it was afterwards") {
  if (!can_mount()) return;
  Pair pair;
  const InodeNumber file = pair.make("file", "old");
  pair.publish();
  std::string seen;
  BetweenChangeAndMount between(*pair.mount->view_listener(), [&] { seen = content_at(pair.at("file")); });
  REQUIRE(pair.primary.write(file, 0, "new").ok());
  pair.mirror->set_view_listener(&between);
  pair.publish();
  pair.mirror->set_view_listener(pair.mount->view_listener());
  CHECK(seen == "old");
  CHECK(content_at(pair.at("file")) == "new");
  CHECK(pair.late() == 0);
}

TEST_CASE("an ACL that is asked for while a state is being made known is not seen as it was afterwards") {
  if (!can_mount()) return;
  Pair pair;
  const InodeNumber file = pair.make("file");
  const char* const name = "system.posix_acl_access";
  const auto set_acl = [&](const std::string& acl) {
    const auto value = std::as_bytes(std::span(acl));
    REQUIRE(pair.primary.volume->set_xattr(file, name, value, XattrMode::kCreateOrReplace).ok());
    return acl;
  };
  const std::string before = set_acl(acl_for(1));
  pair.publish();
  std::optional<Descriptor> open_file;
  std::string seen;
  BetweenChangeAndMount between(*pair.mount->view_listener(), [&] {
    open_file.emplace(pair.at("file"));
    seen = xattr_at(*open_file, name);
  });
  const std::string after = set_acl(acl_for(2));
  pair.mirror->set_view_listener(&between);
  pair.publish();
  pair.mirror->set_view_listener(pair.mount->view_listener());
  CHECK(seen == before);
  CHECK(xattr_at(*open_file, name) == after);
  CHECK(pair.late() == 0);
}

TEST_CASE("a file that is gone can be read as far as the kernel has it, and then is stale") {
  if (!can_mount()) return;
  Pair pair;
  const std::string content(100 * kBlockSize, 'x');
  pair.make("cached", content);
  pair.make("unread", content);
  pair.publish();
  const Descriptor cached(pair.at("cached"));
  const Descriptor unread(pair.at("unread"));
  CHECK(content_at(cached) == content);
  for (const std::string name : {"cached", "unread"}) {
    const InodeNumber inode = pair.primary.volume->lookup(kRootDirectory, name)->inode;
    REQUIRE(pair.primary.volume->unlink(kRootDirectory, name).ok());
    pair.primary.volume->forget(inode, 2);
  }
  pair.publish();
  CHECK(!stat_at(pair.at("cached")));
  std::string part(content.size(), '\0');
  CHECK(::pread(cached, part.data(), part.size() - 1, 0) == static_cast<ssize_t>(part.size() - 1));
  CHECK(content_at(unread) == "errno " + std::to_string(ESTALE));
}

namespace {

// Random changes of a small tree, whose names come again and again.
class Churn {
 public:
  Churn(Pair& pair, std::uint64_t seed) : pair_(pair), volume_(*pair.primary.volume), random_(seed) {}

  void step() {
    switch (random_() % 12) {
      case 0:
      case 1:
        keep(volume_.make_node(some_directory(), some_name(), NewNode{.mode = S_IFREG | 0644}));
        break;
      case 2:
        if (directories_.size() < 12) {
          const auto made = volume_.make_node(some_directory(), some_name(), NewNode{.mode = S_IFDIR | 0755});
          if (keep(made)) directories_.push_back(made->inode);
        }
        break;
      case 3:
        keep(volume_.make_node(some_directory(), some_name(),
                               NewNode{.mode = S_IFLNK | 0777, .symlink_target = std::to_string(random_())}));
        break;
      case 4:
        (void)volume_.unlink(some_directory(), some_name());
        break;
      case 5:
        remove_directory();
        break;
      case 6:
      case 7:
        (void)volume_.rename(some_directory(), some_name(), some_directory(), some_name(),
                             random_() % 3 == 0 ? RenameMode::kExchange : RenameMode::kReplace);
        break;
      case 8:
        if (const InodeNumber file = some_file(); file.value != 0) {
          const auto linked = volume_.link(file, some_directory(), some_name());
          keep(linked);
        }
        break;
      default:
        change_file();
    }
  }

  // What the mount shows is what the primary has, in this directory and below.
  void compare(InodeNumber directory, const std::string& path) {
    Directories left{{directory, path}};
    while (!left.empty()) {
      const auto [number, at] = left.back();
      left.pop_back();
      compare_directory(number, at, left);
    }
  }

 private:
  using Directories = std::vector<std::pair<InodeNumber, std::string>>;

  // Those in it go to `left`.
  void compare_directory(InodeNumber directory, const std::string& path, Directories& left) {
    std::map<std::string, InodeNumber> listed;
    REQUIRE(volume_
                .list(directory, 0,
                      [&](const DirectoryEntry& entry) {
                        listed[std::string(entry.name)] = entry.inode;
                        return true;
                      })
                .ok());
    std::map<std::string, InodeNumber> seen;
    for (const auto& entry : fs::directory_iterator(path)) {
      seen[entry.path().filename().string()] = InodeNumber{stat_at(entry.path().string())->st_ino};
    }
    listed.erase(".");
    listed.erase("..");
    REQUIRE(seen == listed);
    for (int i = 0; i < kNames; ++i) {
      const std::string name = "name" + std::to_string(i);
      const std::string at = (fs::path(path) / name).string();
      const auto found = stat_at(at);
      REQUIRE(found.has_value() == listed.contains(name));
      if (found) compare_inode(listed[name], *found, at, left);
    }
  }

  static constexpr int kNames = 8;

  bool keep(const Result<Attributes>& made) {
    if (made.ok()) volume_.forget(made->inode, 1);
    return made.ok();
  }
  InodeNumber some_directory() { return directories_[random_() % directories_.size()]; }
  std::string some_name() { return "name" + std::to_string(random_() % kNames); }
  InodeNumber some_file() {
    for (int attempt = 0; attempt < 10; ++attempt) {
      const auto found = volume_.lookup(some_directory(), some_name());
      if (!keep(found) || !S_ISREG(found->mode)) continue;
      return found->inode;
    }
    return {};
  }
  void remove_directory() {
    const InodeNumber parent = some_directory();
    const std::string name = some_name();
    const auto found = volume_.lookup(parent, name);
    if (!keep(found) || !volume_.remove_directory(parent, name).ok()) return;
    std::erase(directories_, found->inode);
  }
  void change_file() {
    const InodeNumber file = some_file();
    if (file.value == 0) return;
    switch (random_() % 6) {
      case 0: {
        AttributeChanges changes;
        changes.size_bytes = random_() % 100'000;
        REQUIRE(volume_.change_attributes(file, changes).ok());
        break;
      }
      case 1: {
        AttributeChanges changes;
        changes.mode = random_() % 512;
        REQUIRE(volume_.change_attributes(file, changes).ok());
        break;
      }
      case 2:
      case 3: {
        const bool acl = random_() % 2 == 0;
        const std::string value =
            acl ? acl_for(static_cast<std::uint32_t>(random_() % 1000)) : std::to_string(random_());
        REQUIRE(volume_
                    .set_xattr(file, acl ? "system.posix_acl_access" : "user.x", std::as_bytes(std::span(value)),
                               XattrMode::kCreateOrReplace)
                    .ok());
        break;
      }
      default:
        REQUIRE(pair_.primary
                    .write(file, random_() % 80'000,
                           std::string(1 + random_() % 9000, static_cast<char>('a' + random_() % 26)))
                    .ok());
    }
  }

  void compare_inode(InodeNumber inode, const struct stat& found, const std::string& path, Directories& left) {
    const auto attributes = volume_.attributes(inode);
    REQUIRE(attributes.ok());
    REQUIRE(found.st_ino == inode.value);
    REQUIRE(found.st_mode == attributes->mode);
    REQUIRE(found.st_nlink == attributes->link_count);
    REQUIRE(static_cast<std::uint64_t>(found.st_size) == attributes->size_bytes);
    const std::uint64_t for_the_inode = S_ISREG(attributes->mode) ? 1 : 0;
    REQUIRE(static_cast<std::uint64_t>(found.st_blocks) == std::max(attributes->block_count * 8, for_the_inode));
    REQUIRE(found.st_mtim.tv_nsec == attributes->modified.nanoseconds);
    REQUIRE(found.st_ctim.tv_nsec == attributes->changed.nanoseconds);
    if (S_ISDIR(found.st_mode)) {
      left.emplace_back(inode, path);
    } else if (S_ISLNK(found.st_mode)) {
      REQUIRE(fs::read_symlink(path).string() == *volume_.symlink_target(inode));
    } else {
      const std::string content = pair_.primary.read(inode, 0, attributes->size_bytes);
      REQUIRE(content_at(path) == content);
      const auto open = open_.try_emplace(inode, path).first;
      REQUIRE(content_at(open->second) == content);
      for (const char* const name : {"user.x", "system.posix_acl_access"}) {
        const auto value = volume_.xattr(inode, name);
        REQUIRE(xattr_at(path, name) == (value.ok() ? *value : "none"));
      }
    }
  }

  Pair& pair_;
  Volume& volume_;
  std::mt19937_64 random_;
  std::vector<InodeNumber> directories_{kRootDirectory};
  std::map<InodeNumber, Descriptor> open_;  // each file that was ever seen
};

}  // namespace

TEST_CASE("after every change everything is seen as it is, whatever the kernel had kept") {
  if (!can_mount()) return;
  const std::uint64_t seed = printed_seed();
  const int rounds = std::getenv("TARNFS_TEST_FULL") != nullptr ? 1000 : 60;
  Pair pair;
  Churn churn(pair, seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < rounds; ++round) {
    for (std::uint64_t i = random() % 60; i > 0; --i) churn.step();
    pair.publish();
    churn.compare(kRootDirectory, pair.directory.string());
  }
  CHECK(pair.late() == 0);
}

namespace {

// A counter that is stored in two places, first in A and then in B. tests/end_to_end/pairs.py has the rule.
class Counters {
 public:
  Counters(Pair& pair, const std::string& name, std::function<void(const std::string&, std::uint64_t)> store,
           std::function<std::uint64_t(const std::string&)> load)
      : names_{name + "A", name + "B"}, store_(std::move(store)), load_(std::move(load)) {
    for (std::string& path : paths_) path = pair.at(names_[static_cast<std::size_t>(&path - paths_.data())]);
  }
  void store(std::uint64_t counter) const {
    for (const std::string& name : names_) store_(name, counter);
  }
  // Empty when what is seen can be.
  std::string check() {
    const std::uint64_t first = load_(paths_[0]);
    const std::uint64_t other = load_(paths_[1]);
    const std::uint64_t second = load_(paths_[0]);
    const bool possible = last_ <= first && first <= second && other + 1 >= first && other <= second;
    states_seen_ += first != last_ ? 1 : 0;
    const std::uint64_t last = std::exchange(last_, second);
    if (possible) return "";
    return names_[0] + " was " + std::to_string(last) + "; then A, B, A were " + std::to_string(first) + ", " +
           std::to_string(other) + ", " + std::to_string(second);
  }
  // By the thread that calls check(), for others.
  std::uint64_t states_seen() const { return states_seen_; }

 private:
  std::array<std::string, 2> names_;
  std::array<std::string, 2> paths_;
  std::function<void(const std::string&, std::uint64_t)> store_;
  std::function<std::uint64_t(const std::string&)> load_;
  std::uint64_t last_ = 0;
  std::atomic<std::uint64_t> states_seen_{0};
};

}  // namespace

TEST_CASE("who has seen a new state is shown nothing of an older one") {
  if (!can_mount()) return;
  Pair pair;
  Volume& volume = *pair.primary.volume;
  std::map<std::string, InodeNumber> files;
  for (const std::string name : {"contentA", "contentB", "timeA", "timeB"}) files[name] = pair.make(name, "0");
  const auto text_of = [](std::uint64_t counter) {
    std::string text = std::to_string(counter);
    text.resize(20, ' ');
    return text;
  };
  std::deque<Counters> all;
  all.emplace_back(
      pair, "content",
      [&](const std::string& name, std::uint64_t counter) {
        TARNFS_ASSERT(pair.primary.write(files.at(name), 0, text_of(counter)).ok());
      },
      [](const std::string& path) { return std::strtoull(content_at(path).c_str(), nullptr, 10); });
  all.emplace_back(
      pair, "time",
      [&](const std::string& name, std::uint64_t counter) {
        AttributeChanges changes;
        changes.modified = Timestamp{static_cast<std::int64_t>(counter), 0};
        TARNFS_ASSERT(volume.change_attributes(files.at(name), changes).ok());
      },
      [](const std::string& path) {
        struct stat found {};
        TARNFS_ASSERT(::stat(path.c_str(), &found) == 0);
        return static_cast<std::uint64_t>(found.st_mtim.tv_sec);
      });
  all.emplace_back(
      pair, "name",
      [&](const std::string& name, std::uint64_t counter) {
        const std::string target = std::to_string(counter);
        const auto made =
            volume.make_node(kRootDirectory, "new", NewNode{.mode = S_IFLNK | 0777, .symlink_target = target});
        TARNFS_ASSERT(made.ok());
        TARNFS_ASSERT(volume.rename(kRootDirectory, "new", kRootDirectory, name, RenameMode::kReplace).ok());
        volume.forget(made->inode, 1);
      },
      [](const std::string& path) {
        // What was replaced between the lookup of its name and its use is stale: it is looked up again.
        for (;;) {
          std::array<char, 64> target{};
          if (::readlink(path.c_str(), target.data(), target.size()) >= 0)
            return std::strtoull(target.data(), nullptr, 10);
          TARNFS_ASSERT(errno == ESTALE);
        }
      });
  for (const Counters& counters : all) counters.store(0);
  pair.publish();

  std::atomic<bool> done{false};
  std::array<std::string, 3> failures;
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    for (std::uint64_t counter = 1; !done; ++counter) {
      for (const Counters& counters : all) counters.store(counter);
    }
  });
  for (std::size_t i = 0; i < all.size(); ++i) {
    threads.emplace_back([&, i] {
      while (!done && failures[i].empty()) failures[i] = all[i].check();
    });
  }
  const std::uint64_t states_min = std::getenv("TARNFS_TEST_FULL") != nullptr ? 500 : 50;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  const auto is_seen = [&](const Counters& counters) { return counters.states_seen() >= states_min; };
  while (!std::all_of(all.begin(), all.end(), is_seen) && std::chrono::steady_clock::now() < deadline) pair.publish();
  done = true;
  for (std::thread& thread : threads) thread.join();
  for (std::size_t i = 0; i < all.size(); ++i) {
    CHECK(failures[i] == "");
    CHECK(all[i].states_seen() >= states_min);
  }
  CHECK(pair.late() == 0);
}

TEST_CASE("a read that waits for a slow disk delays a new state for a bounded time, and does not leave an old page") {
  if (!can_mount()) return;
  Pair pair(std::nullopt);
  const InodeNumber file = pair.make("file", std::string(kBlockSize, 'a'));
  pair.publish();
  // Where the content is: the only block that begins with it.
  std::optional<Address> place;
  for (std::uint64_t at = pair.primary.first_block_behind_journal(); !place; ++at) {
    PageRef page = PageRef::uninitialised();
    REQUIRE(pair.primary.device->read(Address{at}, page.mutable_bytes()).ok());
    if (page.bytes()[0] == std::byte{'a'} && page.bytes()[4000] == std::byte{'a'}) place = Address{at};
  }
  pair.device.hold(place);
  std::string seen;
  std::thread reader([&] { seen = content_at(pair.at("file")); });
  pair.device.wait_for_reader();
  REQUIRE(pair.primary.write(file, 0, std::string(kBlockSize, 'b')).ok());
  const auto began = std::chrono::steady_clock::now();
  pair.publish();
  const auto took = std::chrono::steady_clock::now() - began;
  CHECK(took < std::chrono::seconds(10));
  CHECK(pair.late() == 1);
  pair.make("another", "another");
  pair.publish();
  CHECK(content_at(pair.at("another")) == "another");
  pair.device.hold(std::nullopt);
  reader.join();
  CHECK((seen == std::string(kBlockSize, 'a') || seen == std::string(kBlockSize, 'b')));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (content_at(pair.at("file"))[0] != 'b' && std::chrono::steady_clock::now() < deadline)
    std::this_thread::yield();
  CHECK(content_at(pair.at("file")) == std::string(kBlockSize, 'b'));
}
