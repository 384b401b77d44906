#include "tests/conformance/ground.h"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace tarnfs::conformance {
namespace {

Arguments the_arguments;
long checks = 0;

// One place for all, so that the message has the line that asked.
void check(bool holds, const char* file, int line, const std::string& message) {
  ++checks;
  if (holds) return;
  const std::string path(file);
  CHECK_MESSAGE(holds, path.substr(path.rfind('/') + 1), ":", line, ": ", message);
}

int number_of(long answer) {
  return answer < 0 ? errno : 0;
}

void become(uid_t uid, gid_t gid, const std::vector<gid_t>& groups) {
  REQUIRE(::setgroups(groups.size(), groups.data()) == 0);
  REQUIRE(::setresgid(static_cast<gid_t>(-1), gid, static_cast<gid_t>(-1)) == 0);
  REQUIRE(::setresuid(static_cast<uid_t>(-1), uid, static_cast<uid_t>(-1)) == 0);
}

bool is_later(const timespec& one, const timespec& other) {
  return one.tv_sec != other.tv_sec ? one.tv_sec > other.tv_sec : one.tv_nsec > other.tv_nsec;
}

}  // namespace

const Arguments& arguments() {
  return the_arguments;
}

void set_arguments(Arguments arguments) {
  the_arguments = std::move(arguments);
}

long checks_made() {
  return checks;
}

bool full_size() {
  const char* const value = std::getenv("TARNFS_TEST_FULL");
  return value != nullptr && std::string(value) != "0" && *value != '\0';
}

std::string errno_text(int number) {
  if (number == 0) return "0";
  const char* const name = ::strerrorname_np(number);
  return name == nullptr ? std::to_string(number) : name;
}

void fails(int wanted, long answer, const char* file, int line) {
  const int number = number_of(answer);
  check(number == wanted, file, line, errno_text(number) + " instead of " + errno_text(wanted));
}

void ok(long answer, const char* file, int line) {
  fails(0, answer, file, line);
}

void fails_with_one_of(std::initializer_list<int> wanted, long answer, const char* file, int line) {
  const int number = number_of(answer);
  check(std::find(wanted.begin(), wanted.end(), number) != wanted.end(), file, line, errno_text(number));
}

void equal_numbers(long long actual, long long wanted, const char* file, int line) {
  check(actual == wanted, file, line, std::to_string(actual) + " instead of " + std::to_string(wanted));
}

void equal(const std::string& actual, const std::string& wanted, const char* file, int line) {
  check(actual == wanted, file, line, actual + " instead of " + wanted);
}

long open_and_close(const std::string& path, int flags, mode_t mode) {
  const int number = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  return number < 0 ? -1 : ::close(number);
}

Open::Open(const std::string& path, int flags, mode_t mode) : number_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {
  REQUIRE_MESSAGE(number_ >= 0, "open ", path, ": ", errno_text(errno));
}

Open::~Open() {
  ::close(number_);
}

As::As(const User& user) {
  become(user.uid, user.gid, user.groups);
}

// The answer of the call that was made as that user is still to be read.
As::~As() {
  const int number = errno;
  REQUIRE(::setresuid(static_cast<uid_t>(-1), 0, static_cast<uid_t>(-1)) == 0);
  become(0, 0, {});
  errno = number;
}

Times::Times(const std::vector<std::string>& paths) {
  timespec latest{};
  for (const std::string& path : paths) {
    const struct stat found = attributes(path);
    for (const timespec& time : {found.st_atim, found.st_mtim, found.st_ctim}) {
      if (is_later(time, latest)) latest = time;
    }
    before_.emplace(path, found);
  }
  // Someone has set a time that is far away: this is not the way to test with it.
  timespec now{};
  REQUIRE(::clock_gettime(CLOCK_REALTIME, &now) == 0);
  REQUIRE(latest.tv_sec <= now.tv_sec + 1);
  do {
    ::clock_gettime(CLOCK_REALTIME_COARSE, &now);
  } while (!is_later(now, latest));
}

void Times::expect(const std::string& path, Touched wanted, const char* file, int line) const {
  expect_moved(path, path, wanted, file, line);
}

void Times::expect_moved(const std::string& path, const std::string& now_at, Touched wanted, const char* file,
                         int line) const {
  const struct stat& before = before_.at(path);
  const struct stat after = attributes(now_at);
  const auto compare = [&](const char* name, bool touched, bool expected) {
    check(touched == expected, file, line,
          std::string(name) + " of " + path + (expected ? " is not updated" : " is updated"));
  };
  compare("atime", is_later(after.st_atim, before.st_atim), wanted.accessed);
  compare("mtime", is_later(after.st_mtim, before.st_mtim), wanted.modified);
  compare("ctime", is_later(after.st_ctim, before.st_ctim), wanted.changed);
}

void Times::expect_untouched(const char* file, int line) const {
  for (const auto& [path, before] : before_) expect(path, kNothing, file, line);
}

std::string name_of(Kind kind) {
  switch (kind) {
    case Kind::kRegular:
      return "regular";
    case Kind::kDirectory:
      return "directory";
    case Kind::kFifo:
      return "fifo";
    case Kind::kBlock:
      return "block";
    case Kind::kCharacter:
      return "character";
    case Kind::kSocket:
      return "socket";
    case Kind::kSymlink:
      return "symlink";
  }
  return "unknown";
}

mode_t type_of(Kind kind) {
  switch (kind) {
    case Kind::kRegular:
      return S_IFREG;
    case Kind::kDirectory:
      return S_IFDIR;
    case Kind::kFifo:
      return S_IFIFO;
    case Kind::kBlock:
      return S_IFBLK;
    case Kind::kCharacter:
      return S_IFCHR;
    case Kind::kSocket:
      return S_IFSOCK;
    case Kind::kSymlink:
      return S_IFLNK;
  }
  return 0;
}

void make(Kind kind, const std::string& path, mode_t mode) {
  int result = 0;
  if (kind == Kind::kDirectory) {
    result = ::mkdir(path.c_str(), mode);
  } else if (kind == Kind::kSymlink) {
    result = ::symlink("leads/nowhere", path.c_str());
  } else {
    // A device that does not exist, so that opening it by mistake harms nothing.
    const bool device = kind == Kind::kBlock || kind == Kind::kCharacter;
    result = ::mknod(path.c_str(), type_of(kind) | mode, device ? makedev(240, 77) : 0);
  }
  REQUIRE_MESSAGE(result == 0, "make ", name_of(kind), " ", path, ": ", errno_text(errno));
  if (kind == Kind::kSymlink) return;
  REQUIRE(::chmod(path.c_str(), mode) == 0);
}

void make(Kind kind, const std::string& path, mode_t mode, const User& owner) {
  make(kind, path, mode);
  REQUIRE(::lchown(path.c_str(), owner.uid, owner.gid) == 0);
  if (kind != Kind::kSymlink) REQUIRE(::chmod(path.c_str(), mode) == 0);
}

long remove(Kind kind, const std::string& path) {
  return kind == Kind::kDirectory ? ::rmdir(path.c_str()) : ::unlink(path.c_str());
}

void for_each_kind(const std::function<void(Kind)>& check) {
  for (const Kind kind : kKinds) {
    INFO("type: ", name_of(kind));
    check(kind);
  }
}

void for_kinds(std::initializer_list<Kind> kinds, const std::function<void(Kind)>& check) {
  for (const Kind kind : kinds) {
    INFO("type: ", name_of(kind));
    check(kind);
  }
}

struct stat attributes(const std::string& path) {
  struct stat result {};
  REQUIRE_MESSAGE(::lstat(path.c_str(), &result) == 0, "lstat ", path, ": ", errno_text(errno));
  return result;
}

bool exists(const std::string& path) {
  struct stat result {};
  return ::lstat(path.c_str(), &result) == 0;
}

mode_t mode_of(const std::string& path) {
  return attributes(path).st_mode & 07777U;
}

nlink_t links_of(const std::string& path) {
  return attributes(path).st_nlink;
}

void write_file(const std::string& path, const std::string& content) {
  const Open file(path, O_WRONLY | O_CREAT | O_TRUNC);
  REQUIRE(::write(file.number(), content.data(), content.size()) == static_cast<ssize_t>(content.size()));
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

std::string long_name(std::size_t bytes) {
  std::string name;
  for (std::size_t i = 0; i < bytes; ++i) name.push_back(static_cast<char>('a' + i % 26));
  return name;
}

std::string long_path(std::size_t bytes, const std::string& name) {
  std::string path;
  while (path.size() + 2 + name.size() <= bytes) path += "./";
  if (path.size() + name.size() < bytes) path += "/";
  return path + name;
}

Child::Child(const std::string& program) {
  std::array<int, 2> input{};
  std::array<int, 2> executed{};
  REQUIRE(::pipe2(input.data(), O_CLOEXEC) == 0);
  REQUIRE(::pipe2(executed.data(), O_CLOEXEC) == 0);
  process_ = ::fork();
  REQUIRE(process_ >= 0);
  if (process_ == 0) {
    ::dup2(input[0], STDIN_FILENO);
    ::execl(program.c_str(), program.c_str(), nullptr);
    const int number = errno;
    [[maybe_unused]] const ssize_t told = ::write(executed[1], &number, sizeof number);
    ::_exit(127);
  }
  ::close(input[0]);
  ::close(executed[1]);
  input_ = input[1];
  // Its end of the pipe is closed by a successful exec.
  int number = 0;
  const ssize_t bytes = ::read(executed[0], &number, sizeof number);
  ::close(executed[0]);
  CHECK_MESSAGE(bytes == 0, "execute ", program, ": ", errno_text(number));
}

Child::~Child() {
  ::close(input_);
  int status = 0;
  ::waitpid(process_, &status, 0);
}

Place::Place() : path_(arguments().directory + "/place-XXXXXX") {
  ::umask(0);
  REQUIRE(::mkdtemp(path_.data()) != nullptr);
  REQUIRE(::chmod(path_.c_str(), 0777) == 0);
  REQUIRE(::chdir(path_.c_str()) == 0);
}

Place::~Place() {
  ::umask(0);
  CHECK(::chdir("/") == 0);
  std::error_code failed;
  std::filesystem::remove_all(path_, failed);
  CHECK_MESSAGE(!failed, "remove ", path_, ": ", failed.message());
}

}  // namespace tarnfs::conformance
