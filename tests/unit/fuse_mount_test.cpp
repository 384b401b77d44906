// Mounts a file system in memory for real and makes the system calls. Skipped where there is no /dev/fuse to open.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "fs/fuse/mount.h"
#include "tests/support/memory_file_system.h"

using namespace tarnfs;

namespace {

namespace fs = std::filesystem;

IoUring wanted_transport();

// Whether the kernel has it on and the library has it.
bool can_use_io_uring() {
  FuseMountOptions options;
  options.io_uring = IoUring::kOn;
  options.mountpoint = "/";
  const Status possible = FuseMount::check(options);
  if (!possible.ok()) MESSAGE("skipped: ", possible.error().describe());
  return possible.ok();
}

bool can_mount() {
  const int descriptor = ::open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (descriptor >= 0) ::close(descriptor);
  const bool possible = descriptor >= 0 && ::geteuid() == 0;
  if (!possible) MESSAGE("skipped: needs root and /dev/fuse");
  return possible && (wanted_transport() != IoUring::kOn || can_use_io_uring());
}

// TARNFS_TEST_IO_URING=1 in the environment: over io_uring.
IoUring wanted_transport() {
  return std::getenv("TARNFS_TEST_IO_URING") != nullptr ? IoUring::kOn : IoUring::kOff;
}

// A mountpoint that goes away with the test, and the mount on it.
struct Mounted {
  explicit Mounted(bool changes_by_itself = false, bool checks_opens = false, bool is_synchronous = false) {
    std::string pattern = (fs::temp_directory_path() / "tarnfs-mount-XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    directory = pattern;
    options.mountpoint = directory.string();
    options.source = "/images/a, b.tarnfs";
    options.changes_by_itself = changes_by_itself;
    options.checks_opens = checks_opens;
    options.kernel_options = {"allow_other", "suid", "dev", is_synchronous ? "sync" : "async"};
    options.io_uring = wanted_transport();
    auto mounted = FuseMount::mount(file_system, options, {.on_unmount = {}, .on_end = [this] { ended = true; }});
    REQUIRE_MESSAGE(mounted.ok(), (mounted.ok() ? "" : mounted.error().describe()));
    mount = std::move(*mounted);
  }
  ~Mounted() {
    mount.reset();
    fs::remove(directory);
  }
  Mounted(const Mounted&) = delete;
  Mounted& operator=(const Mounted&) = delete;

  std::string at(const std::string& name) const { return (directory / name).string(); }

  MemoryFileSystem file_system;
  FuseMountOptions options;
  fs::path directory;
  std::atomic<bool> ended{false};
  std::unique_ptr<FuseMount> mount;
};

void write_file(const std::string& path, const std::string& content) {
  std::ofstream out(path, std::ios::binary);
  out << content;
  out.close();
  REQUIRE(out.good());
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

struct stat stat_at(const std::string& path) {
  struct stat found {};
  REQUIRE(::lstat(path.c_str(), &found) == 0);
  return found;
}

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags, mode_t mode = 0644)
      : number_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {
    REQUIRE(number_ >= 0);
  }
  ~Descriptor() { ::close(number_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator int() const { return number_; }

 private:
  int number_;
};

}  // namespace

TEST_CASE("it is shown with its type and image, and the end of the mount ends the session") {
  if (!can_mount()) return;
  Mounted m;
  std::ifstream table("/proc/self/mounts");
  std::string line;
  bool found = false;
  while (std::getline(table, line)) {
    if (line.find(m.directory.string() + " ") == std::string::npos) continue;
    found = true;
    CHECK(line.starts_with("/images/a,\\040b.tarnfs "));
    CHECK(line.find(" fuse.tarnfs rw,") != std::string::npos);
    CHECK(line.find("default_permissions") != std::string::npos);
    CHECK(line.find("nosuid") == std::string::npos);
  }
  CHECK(found);
  REQUIRE(::umount2(m.directory.c_str(), 0) == 0);
  m.mount->wait();
  CHECK(m.mount->ended());
}

TEST_CASE("names: files, directories, links, special files, renames") {
  if (!can_mount()) return;
  Mounted m;
  write_file(m.at("a"), "hello");
  CHECK(read_file(m.at("a")) == "hello");
  fs::create_directories(m.at("d/e/f"));
  fs::create_symlink("../a", m.at("d/s"));
  CHECK(fs::read_symlink(m.at("d/s")) == "../a");
  CHECK(read_file(m.at("d/s")) == "hello");
  fs::create_hard_link(m.at("a"), m.at("d/a2"));
  CHECK(stat_at(m.at("a")).st_nlink == 2);
  CHECK(stat_at(m.at("a")).st_ino == stat_at(m.at("d/a2")).st_ino);
  REQUIRE(::mknod(m.at("null").c_str(), S_IFCHR | 0666, makedev(1, 3)) == 0);
  CHECK(stat_at(m.at("null")).st_rdev == makedev(1, 3));
  const Descriptor null(m.at("null"), O_WRONLY);
  CHECK(null >= 0);
  REQUIRE(::mkfifo(m.at("fifo").c_str(), 0600) == 0);
  CHECK(S_ISFIFO(stat_at(m.at("fifo")).st_mode));

  CHECK(::rmdir(m.at("d").c_str()) == -1);
  CHECK(errno == ENOTEMPTY);
  write_file(m.at("b"), "bee");
  CHECK(::renameat2(AT_FDCWD, m.at("b").c_str(), AT_FDCWD, m.at("a").c_str(), RENAME_NOREPLACE) == -1);
  CHECK(errno == EEXIST);
  CHECK(::renameat2(AT_FDCWD, m.at("b").c_str(), AT_FDCWD, m.at("a").c_str(), RENAME_EXCHANGE) == 0);
  CHECK(read_file(m.at("a")) == "bee");
  CHECK(::renameat2(AT_FDCWD, m.at("b").c_str(), AT_FDCWD, m.at("c").c_str(), RENAME_WHITEOUT) == 0);
  CHECK(S_ISCHR(stat_at(m.at("b")).st_mode));
  CHECK(read_file(m.at("a")) == "bee");
  fs::rename(m.at("a"), m.at("b"));
  CHECK(!fs::exists(m.at("a")));
  CHECK(::open(m.at(std::string(300, 'n')).c_str(), O_RDONLY) == -1);
  CHECK(errno == ENAMETOOLONG);
  CHECK(fs::remove_all(m.at("d")) > 0);
}

TEST_CASE("the umask reaches the file system, and a missing name is forgotten when it comes") {
  if (!can_mount()) return;
  Mounted m;
  CHECK(!fs::exists(m.at("late")));
  const mode_t before = ::umask(027);
  write_file(m.at("late"), "x");
  ::umask(before);
  CHECK((stat_at(m.at("late")).st_mode & 07777) == 0640);
}

TEST_CASE("an unlinked open file lives until it is closed, and then its inode is freed") {
  if (!can_mount()) return;
  Mounted m;
  {
    Descriptor file(m.at("gone"), O_RDWR | O_CREAT);
    REQUIRE(::unlink(m.at("gone").c_str()) == 0);
    REQUIRE(::write(file, "still", 5) == 5);
    char content[5];
    CHECK(::pread(file, content, 5, 0) == 5);
    CHECK(m.file_system.node_count() == 2);
  }
  CHECK(m.file_system.wait_for_node_count(1));
}

TEST_CASE("data: large, sparse, direct, truncated, copied, synced") {
  if (!can_mount()) return;
  Mounted m;
  std::string large(5'000'001, ' ');
  for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 31 >> 7);
  write_file(m.at("large"), large);
  {
    Descriptor file(m.at("large"), O_RDWR);
    CHECK(::fsync(file) == 0);
    CHECK(::fdatasync(file) == 0);
    CHECK(::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) == 0);
    CHECK(::lseek(file, 100, SEEK_HOLE) == static_cast<off_t>(large.size()));
    CHECK(::lseek(file, 6'000'000, SEEK_DATA) == -1);
    CHECK(errno == ENXIO);
  }
  CHECK(m.file_system.fsync_count() == 2);
  CHECK(read_file(m.at("large")) == large);
  {
    Descriptor from(m.at("large"), O_RDONLY);
    Descriptor to(m.at("copy"), O_RDWR | O_CREAT);
    off_t from_offset = 10;
    off_t to_offset = 0;
    CHECK(::copy_file_range(from, &from_offset, to, &to_offset, 1000, 0) == 1000);
    REQUIRE(::ftruncate(to, 500) == 0);
    CHECK(::fallocate(to, 0, 0, 600) == 0);
    CHECK(::fallocate(to, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 100) == 0);
  }
  CHECK(read_file(m.at("copy")) == std::string(100, '\0') + large.substr(110, 400) + std::string(100, '\0'));
  {
    Descriptor file(m.at("large"), O_RDWR | O_TRUNC);
    CHECK(stat_at(m.at("large")).st_size == 0);
    alignas(4096) static char block[4096] = "direct";
    Descriptor direct(m.at("large"), O_RDWR | O_DIRECT);
    CHECK(::pwrite(direct, block, sizeof block, 8192) == sizeof block);
    CHECK(::pread(direct, block, sizeof block, 8192) == sizeof block);
    CHECK(std::string(block) == "direct");
  }
  Descriptor appended(m.at("large"), O_WRONLY | O_APPEND);
  CHECK(::write(appended, "end", 3) == 3);
  CHECK(stat_at(m.at("large")).st_size == 8192 + 4096 + 3);
}

// What DurableChanges leaves to the kernel, and why there is such a thing.
TEST_CASE("on a synchronous mount the kernel has written content fsynced, and nothing else") {
  if (!can_mount()) return;
  Mounted m(false, false, true);
  REQUIRE(::mkdir(m.at("d").c_str(), 0755) == 0);
  REQUIRE(::rename(m.at("d").c_str(), m.at("e").c_str()) == 0);
  REQUIRE(::rmdir(m.at("e").c_str()) == 0);
  Descriptor file(m.at("a"), O_RDWR | O_CREAT);
  REQUIRE(::fchmod(file, 0640) == 0);
  CHECK(m.file_system.fsync_count() == 0);
  CHECK(::write(file, "content", 7) == 7);
  CHECK(m.file_system.fsync_count() == 1);
  REQUIRE(::fallocate(file, 0, 0, 8192) == 0);
  REQUIRE(::ftruncate(file, 100) == 0);
  REQUIRE(::fsetxattr(file, "user.x", "y", 1, 0) == 0);
  CHECK(m.file_system.fsync_count() == 1);
}

TEST_CASE("what the kernel has not written yet is no hole") {
  if (!can_mount()) return;
  Mounted m;
  Descriptor file(m.at("a"), O_RDWR | O_CREAT);
  REQUIRE(::pwrite(file, "end", 3, 1 << 20) == 3);
  CHECK(::lseek(file, 1 << 20, SEEK_DATA) == 1 << 20);
  REQUIRE(::pwrite(file, "more", 4, 1 << 21) == 4);
  CHECK(::lseek(file, 1 << 20, SEEK_HOLE) == (1 << 21) + 4);
  CHECK(::lseek(file, 1 << 22, SEEK_DATA) == -1);
  CHECK(errno == ENXIO);
}

TEST_CASE("attributes: mode, owner, times before 1970 and after 2446, flags, statfs") {
  if (!can_mount()) return;
  Mounted m;
  write_file(m.at("a"), "x");
  REQUIRE(::chmod(m.at("a").c_str(), 0421) == 0);
  REQUIRE(::chown(m.at("a").c_str(), 5, 6) == 0);
  for (const std::int64_t seconds : {std::int64_t{-5'000'000'000}, std::int64_t{20'000'000'000}}) {
    const timespec times[2] = {{seconds, 11}, {seconds + 1, 999'999'999}};
    REQUIRE(::utimensat(AT_FDCWD, m.at("a").c_str(), times, 0) == 0);
    const struct stat found = stat_at(m.at("a"));
    CHECK(found.st_mtim.tv_sec == seconds + 1);
    CHECK(found.st_mtim.tv_nsec == 999'999'999);
    CHECK(found.st_atim.tv_sec == seconds);
  }
  const struct stat found = stat_at(m.at("a"));
  CHECK((found.st_mode & 07777) == 0421);
  CHECK(found.st_uid == 5);
  CHECK(found.st_gid == 6);

  Descriptor file(m.at("a"), O_RDONLY);
  int flags = FS_NODUMP_FL | FS_NOATIME_FL;
  CHECK(::ioctl(file, FS_IOC_SETFLAGS, &flags) == 0);
  flags = 0;
  CHECK(::ioctl(file, FS_IOC_GETFLAGS, &flags) == 0);
  CHECK(flags == (FS_NODUMP_FL | FS_NOATIME_FL));
  fsxattr extended{};
  CHECK(::ioctl(file, FS_IOC_FSGETXATTR, &extended) == 0);
  CHECK(extended.fsx_xflags == (FS_XFLAG_NODUMP | FS_XFLAG_NOATIME));
  flags = FS_COMPR_FL;
  CHECK(::ioctl(file, FS_IOC_SETFLAGS, &flags) == -1);
  CHECK(errno == EOPNOTSUPP);

  struct statvfs usage {};
  REQUIRE(::statvfs(m.directory.c_str(), &usage) == 0);
  CHECK(usage.f_blocks == 1000);
  CHECK(usage.f_bavail == 497);  // the rest of 500 are nodes
  CHECK(usage.f_namemax == 255);
}

TEST_CASE("opens that are checked: an immutable file is only read, an append-only one only grows") {
  if (!can_mount()) return;
  Mounted m(false, true);
  write_file(m.at("fixed"), "x");
  write_file(m.at("log"), "x");
  const auto set_flags = [&](const std::string& name, int flags) {
    const Descriptor file(m.at(name), O_RDONLY);
    CHECK(::ioctl(file, FS_IOC_SETFLAGS, &flags) == 0);
  };
  const auto opens = [&](const std::string& name, int flags) {
    const int number = ::open(m.at(name).c_str(), flags | O_CLOEXEC);
    if (number < 0) CHECK(errno == EPERM);
    if (number >= 0) ::close(number);
    return number >= 0;
  };
  set_flags("fixed", FS_IMMUTABLE_FL);
  set_flags("log", FS_APPEND_FL);
  CHECK(opens("fixed", O_RDONLY));
  CHECK_FALSE(opens("fixed", O_WRONLY));
  CHECK_FALSE(opens("fixed", O_RDWR | O_APPEND));
  CHECK(opens("log", O_RDONLY));
  CHECK(opens("log", O_WRONLY | O_APPEND));
  CHECK(opens("log", O_RDWR | O_APPEND));
  CHECK_FALSE(opens("log", O_WRONLY));
  CHECK_FALSE(opens("log", O_RDWR));
  set_flags("fixed", 0);
  set_flags("log", FS_NODUMP_FL);
  CHECK(opens("fixed", O_RDWR));
  CHECK(opens("log", O_WRONLY | O_TRUNC));
}

TEST_CASE("extended attributes") {
  if (!can_mount()) return;
  Mounted m;
  write_file(m.at("a"), "x");
  const std::string path = m.at("a");
  REQUIRE(::setxattr(path.c_str(), "user.one", "1", 1, XATTR_CREATE) == 0);
  CHECK(::setxattr(path.c_str(), "user.one", "1", 1, XATTR_CREATE) == -1);
  CHECK(errno == EEXIST);
  REQUIRE(::setxattr(path.c_str(), "user.two", "two", 3, 0) == 0);
  char value[64];
  CHECK(::getxattr(path.c_str(), "user.two", nullptr, 0) == 3);
  CHECK(::getxattr(path.c_str(), "user.two", value, 2) == -1);
  CHECK(errno == ERANGE);
  CHECK(::getxattr(path.c_str(), "user.two", value, sizeof value) == 3);
  CHECK(::getxattr(path.c_str(), "user.none", value, sizeof value) == -1);
  CHECK(errno == ENODATA);
  const ssize_t bytes = ::listxattr(path.c_str(), value, sizeof value);
  CHECK(std::string(value, static_cast<std::size_t>(bytes)) == std::string("user.one\0user.two\0", 18));
  // Names outside of the namespaces were taken too.
  for (const char* const name : {"one", "other.one", "system.one"}) {
    CHECK(::setxattr(path.c_str(), name, "1", 1, 0) == -1);
    CHECK(errno == EOPNOTSUPP);
  }
  CHECK(::setxattr(path.c_str(), "user.", "1", 1, 0) == -1);
  CHECK(errno == EINVAL);
  CHECK(::removexattr(path.c_str(), "user.one") == 0);
  CHECK(::listxattr(path.c_str(), nullptr, 0) == 9);
}

TEST_CASE("a directory of many entries is listed whole, and its lookups are all given back") {
  if (!can_mount()) return;
  Mounted m;
  constexpr int kCount = 3000;
  for (int i = 0; i < kCount; ++i) {
    Descriptor file(m.at("a file with a long name, number " + std::to_string(i)), O_WRONLY | O_CREAT);
  }
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(m.directory)) {
    names.insert(entry.path().filename());
    CHECK(stat_at(entry.path()).st_size == 0);
  }
  CHECK(names.size() == kCount);
  REQUIRE(::umount2(m.directory.c_str(), 0) == 0);
  m.mount->wait();
  // umount(2) sends no forgets: what is left is at most one lookup for each entry of each listing.
  CHECK(m.file_system.node_count() == kCount + 1);
}

TEST_CASE("set-user-id goes when somebody else writes, truncates or the owner changes") {
  if (!can_mount()) return;
  Mounted m;
  const std::string path = m.at("suid");
  // A thread has its own user to the kernel, but not to the C library.
  const auto as_other = [&](mode_t mode, auto&& act) {
    write_file(path, "program");
    REQUIRE(::chmod(path.c_str(), mode) == 0);
    bool succeeded = false;
    std::thread other([&] {
      succeeded =
          ::syscall(SYS_setresgid, 1234, 1234, 1234) == 0 && ::syscall(SYS_setresuid, 1234, 1234, 1234) == 0 && act();
    });
    other.join();
    CHECK(succeeded);
    // What the kernel would run it with.
    struct statx found {};
    REQUIRE(::statx(AT_FDCWD, path.c_str(), AT_STATX_SYNC_AS_STAT, STATX_MODE, &found) == 0);
    return found.stx_mode & 07777;
  };
  const auto write_with = [&](int flags) {
    alignas(4096) char block[4096] = "P";
    const int file = ::open(path.c_str(), O_WRONLY | flags);
    return ::write(file, block, sizeof block) == sizeof block && ::close(file) == 0;
  };
  const auto allocate = [&] {
    const int file = ::open(path.c_str(), O_WRONLY);
    return ::fallocate(file, 0, 0, 5) == 0 && ::close(file) == 0;
  };
  struct Case {
    mode_t before;
    mode_t after;
  };
  for (const Case& bits : {Case{06777, 0777}, Case{06676, 0676}, Case{06666, 0666}, Case{04666, 0666}}) {
    const mode_t mode = bits.before;
    const mode_t left = bits.after;
    CAPTURE(mode);
    CHECK(as_other(mode, [&] { return write_with(0); }) == left);
    CHECK(as_other(mode, [&] { return write_with(O_DIRECT); }) == left);
    CHECK(as_other(mode, [&] { return ::truncate(path.c_str(), 3) == 0; }) == left);
    CHECK(as_other(mode, [&] { return ::close(::open(path.c_str(), O_WRONLY | O_TRUNC)) == 0; }) == left);
    CHECK(as_other(mode, allocate) == left);
  }
  // The right to keep them is root's.
  write_file(path, "program");
  REQUIRE(::chmod(path.c_str(), 06777) == 0);
  {
    Descriptor file(path, O_WRONLY);
    CHECK(::write(file, "P", 1) == 1);
  }
  CHECK((stat_at(path).st_mode & 07777) == 06777);
  REQUIRE(::chown(path.c_str(), 7, 7) == 0);
  CHECK((stat_at(path).st_mode & 07777) == 0777);
  // A directory keeps its set-group-id.
  fs::create_directory(m.at("d"));
  REQUIRE(::chmod(m.at("d").c_str(), 02775) == 0);
  REQUIRE(::chown(m.at("d").c_str(), 7, 7) == 0);
  CHECK((stat_at(m.at("d")).st_mode & 07777) == 02775);
}

TEST_CASE("small writes do not ask for security.capability each time") {
  if (!can_mount()) return;
  Mounted m;
  Descriptor file(m.at("a"), O_WRONLY | O_CREAT);
  for (int i = 0; i < 1000; ++i) REQUIRE(::write(file, "x", 1) == 1);
  CHECK(m.file_system.xattr_request_count() < 10);
}

TEST_CASE("a file without a name can be written, and given a name") {
  if (!can_mount()) return;
  Mounted m;
  Descriptor file(m.directory.string(), O_TMPFILE | O_RDWR, 0640);
  REQUIRE(::write(file, "late", 4) == 4);
  CHECK(fs::is_empty(m.directory));
  const std::string by_number = "/proc/self/fd/" + std::to_string(file);
  REQUIRE(::linkat(AT_FDCWD, by_number.c_str(), AT_FDCWD, m.at("named").c_str(), AT_SYMLINK_FOLLOW) == 0);
  CHECK(read_file(m.at("named")) == "late");
  CHECK((stat_at(m.at("named")).st_mode & 0777) == 0640);
}

TEST_CASE("a mount of a file system that changes by itself shows what it is told of") {
  if (!can_mount()) return;
  Mounted m(true);
  write_file(m.at("a"), "old");
  CHECK(read_file(m.at("a")) == "old");
  CHECK(!fs::exists(m.at("b")));
  const auto found = m.file_system.lookup(kRootDirectory, "a");
  REQUIRE(found.ok());
  const std::string fresh = "new content";
  Descriptor open_before(m.at("a"), O_RDONLY);
  ViewListener* const listener = m.mount->view_listener();
  REQUIRE(listener != nullptr);
  listener->prepare();
  ViewChange change;
  change.inodes.push_back({found->inode, {}});
  change.inodes.back().pages.add(0, kEndOfFile);
  change.inodes.push_back({InodeNumber{987654}, {}});
  change.names.push_back({kRootDirectory, "b", true});
  change.is_known = [&](InodeNumber number) { return number == found->inode; };
  listener->forget(change);
  REQUIRE(m.file_system.write(found->inode, 0, std::as_bytes(std::span<const char>(fresh)), {}).ok());
  REQUIRE(m.file_system.link(found->inode, kRootDirectory, "b").ok());
  listener->finish();
  CHECK(read_file(m.at("a")) == fresh);
  CHECK(fs::exists(m.at("b")));
  char content[32];
  CHECK(::pread(open_before, content, sizeof content, 0) == static_cast<ssize_t>(fresh.size()));
  CHECK(Mounted().mount->view_listener() == nullptr);
}

TEST_CASE("unmount: busy, lazily, and at once") {
  if (!can_mount()) return;
  {
    Mounted m;
    Descriptor file(m.at("a"), O_RDWR | O_CREAT);
    const Status refused = m.mount->unmount(false);
    REQUIRE(!refused.ok());
    CHECK(refused.error().code() == ErrorCode::kBusy);
    CHECK(m.mount->unmount(true).ok());
    CHECK(::write(file, "x", 1) == 1);  // still served
    CHECK(!m.mount->ended());
  }
  Mounted m;
  Descriptor file(m.at("a"), O_RDWR | O_CREAT);
  m.mount->abort();
  CHECK(m.mount->ended());
  CHECK(m.ended);
}

TEST_CASE("what cannot be mounted is refused with a reason") {
  MemoryFileSystem file_system;
  FuseMountOptions options{.mountpoint = "/nonexistent/mountpoint", .source = "image"};
  auto refused = FuseMount::mount(file_system, options, {});
  REQUIRE(!refused.ok());
  CHECK(refused.error().code() == ErrorCode::kInvalid);
  CHECK(refused.error().message().find("/nonexistent/mountpoint") != std::string::npos);
  options.mountpoint = "/proc/self/exe";
  refused = FuseMount::mount(file_system, options, {});
  REQUIRE(!refused.ok());
  CHECK(refused.error().message().find("not a directory") != std::string::npos);
  if (!can_mount()) return;
  options.mountpoint = "/tmp";
  options.kernel_options = {"no_such_option"};
  refused = FuseMount::mount(file_system, options, {});
  REQUIRE(!refused.ok());
  CHECK(refused.error().message().find("no_such_option") != std::string::npos);
}

TEST_CASE("many threads at once") {
  if (!can_mount()) return;
  Mounted m;
  std::vector<std::thread> threads;
  threads.reserve(8);
  std::atomic<int> failures{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      const std::string directory = m.at("t" + std::to_string(t));
      if (::mkdir(directory.c_str(), 0755) != 0) ++failures;
      for (int i = 0; i < 100; ++i) {
        const std::string path = directory + "/" + std::to_string(i);
        std::ofstream(path) << path;
        if (read_file(path) != path) ++failures;
        if (i % 2 == 0 && ::unlink(path.c_str()) != 0) ++failures;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(failures == 0);
  CHECK(m.file_system.wait_for_node_count(1 + 8 + 8 * 50));
}

TEST_CASE("the transport is the one that was asked for, and what cannot be had is refused") {
  if (!can_mount()) return;
  const bool over_io_uring = wanted_transport() == IoUring::kOn;
  Mounted m;
  CHECK(m.mount->transport() == (over_io_uring ? "io_uring" : "classic"));
  MemoryFileSystem file_system;
  FuseMountOptions options{.mountpoint = m.directory.string(), .source = "image"};
  options.io_uring = IoUring::kOn;
  if (FuseMount::check(options).ok()) return;
  const auto refused = FuseMount::mount(file_system, options, {});
  REQUIRE(!refused.ok());
  CHECK(refused.error().code() == ErrorCode::kUnsupported);
  CHECK(refused.error().message().starts_with("io_uring=on: "));
}

TEST_CASE("a stream is read in requests of a MiB") {
  if (!can_mount()) return;
  Mounted m;
  struct stat root {};
  REQUIRE(::stat(m.directory.c_str(), &root) == 0);
  const std::string device = std::to_string(major(root.st_dev)) + ":" + std::to_string(minor(root.st_dev));
  std::ifstream file("/sys/class/bdi/" + device + "/read_ahead_kb");
  unsigned kib = 0;
  file >> kib;
  CHECK(kib >= 1024);
}

TEST_CASE("reads and fsyncs that wait hold up nothing else") {
  if (!can_mount()) return;
  Mounted m;
  for (int t = 0; t < 4; ++t) write_file(m.at("a" + std::to_string(t)), std::string(8192, 'a'));
  write_file(m.at("b"), "b");
  m.file_system.hold_waiting(true);
  std::vector<std::thread> waiting;
  waiting.reserve(4);
  std::atomic<int> failures{0};
  for (int t = 0; t < 4; ++t) {
    waiting.emplace_back([&, t] {
      Descriptor file(m.at("a" + std::to_string(t)), O_RDWR | (t % 2 == 0 ? O_DIRECT : 0));
      alignas(4096) char block[4096];
      if (t % 2 == 0 ? ::pread(file, block, sizeof block, 0) != sizeof block : ::fsync(file) != 0) ++failures;
    });
  }
  m.file_system.wait_for_waiting(4);
  // More requests than the queues take at once.
  for (int i = 0; i < 100; ++i) CHECK(::chmod(m.at("b").c_str(), i % 2 == 0 ? 0600 : 0644) == 0);
  m.file_system.hold_waiting(false);
  for (std::thread& thread : waiting) thread.join();
  CHECK(failures == 0);
}

TEST_CASE("what would wait where it came is answered all the same") {
  if (!can_mount()) return;
  Mounted m;
  m.file_system.put_off_all(true);
  const std::string d = m.at("d");
  CHECK(::mkdir(d.c_str(), 0755) == 0);
  write_file(d + "/a", std::string(5000, 'a'));
  CHECK(read_file(d + "/a") == std::string(5000, 'a'));
  CHECK(::symlink("a", (d + "/s").c_str()) == 0);
  CHECK(read_file(d + "/s") == std::string(5000, 'a'));
  CHECK(::link((d + "/a").c_str(), (d + "/b").c_str()) == 0);
  CHECK(::rename((d + "/b").c_str(), (d + "/c").c_str()) == 0);
  CHECK(::chmod((d + "/c").c_str(), 0600) == 0);
  CHECK(::truncate((d + "/c").c_str(), 100) == 0);
  struct stat found {};
  CHECK(::stat((d + "/a").c_str(), &found) == 0);
  CHECK(found.st_size == 100);
  CHECK((found.st_mode & 07777) == 0600);
  CHECK(::setxattr((d + "/a").c_str(), "user.x", "value", 5, 0) == 0);
  char value[16];
  CHECK(::getxattr((d + "/a").c_str(), "user.x", value, sizeof value) == 5);
  CHECK(::listxattr((d + "/a").c_str(), value, sizeof value) == 7);
  CHECK(::removexattr((d + "/a").c_str(), "user.x") == 0);
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(d)) names.insert(entry.path().filename());
  CHECK(names == std::set<std::string>{"a", "c", "s"});
  CHECK(::lstat((d + "/none").c_str(), &found) == -1);
  CHECK(errno == ENOENT);
  for (const std::string& name : names) CHECK(fs::remove(fs::path(d) / name));
  CHECK(::rmdir(d.c_str()) == 0);
  CHECK((m.file_system.put_off_count() > 0) == (wanted_transport() == IoUring::kOn));
}

TEST_CASE("a mount that is ended with requests under way waits for them") {
  if (!can_mount()) return;
  Mounted m;
  write_file(m.at("a"), "content");
  m.file_system.hold_waiting(true);
  const int file = ::open(m.at("a").c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(file >= 0);
  std::thread waiting([&] { ::fsync(file); });
  m.file_system.wait_for_waiting(1);
  std::thread aborting([&] { m.mount->abort(); });
  m.file_system.hold_waiting(false);
  aborting.join();
  waiting.join();
  ::close(file);
  CHECK(m.mount->ended());
}
