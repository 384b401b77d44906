#include "tests/conformance/calls.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdio>

namespace tarnfs::conformance {
namespace {

constexpr const char* kAttribute = "user.conformance";

// Opened and closed, without a copy of the path: it may be no valid address.
long open_with(const char* path, int flags) {
  const int number = ::open(path, flags | O_CLOEXEC | O_NONBLOCK, 0644);
  return number < 0 ? -1 : ::close(number);
}

void add_finding(std::vector<PathCall>& calls) {
  const auto add = [&](const char* name, Last last, Asks asks, std::function<long(const char*)> run) {
    calls.push_back({name, last, false, false, asks, std::move(run)});
  };
  add("stat", Last::kFollows, Asks::kAnything, [](const char* path) {
    struct stat result {};
    return ::stat(path, &result);
  });
  add("lstat", Last::kFinds, Asks::kAnything, [](const char* path) {
    struct stat result {};
    return ::lstat(path, &result);
  });
  add("statx", Last::kFollows, Asks::kAnything, [](const char* path) {
    struct statx result {};
    return ::statx(AT_FDCWD, path, 0, STATX_BASIC_STATS, &result);
  });
  add("statfs", Last::kFollows, Asks::kAnything, [](const char* path) {
    struct statfs result {};
    return ::statfs(path, &result);
  });
  add("access", Last::kFollows, Asks::kAnything,
      [](const char* path) { return ::faccessat(AT_FDCWD, path, F_OK, AT_EACCESS); });
  add("chdir", Last::kFollows, Asks::kDirectory, [](const char* path) {
    const Open here(".", O_PATH);
    const long result = ::chdir(path);
    return result == 0 ? ::fchdir(here.number()) : result;
  });
  add("readlink", Last::kFinds, Asks::kSymlink, [](const char* path) {
    std::array<char, 16> target{};
    return ::readlink(path, target.data(), target.size());
  });
  add("open for the path", Last::kFollows, Asks::kAnything, [](const char* path) { return open_with(path, O_PATH); });
  add("open to read", Last::kFollows, Asks::kRegular, [](const char* path) { return open_with(path, O_RDONLY); });
  add("open a directory", Last::kFollows, Asks::kDirectory,
      [](const char* path) { return open_with(path, O_RDONLY | O_DIRECTORY); });
  add("listxattr", Last::kFollows, Asks::kAnything, [](const char* path) { return ::listxattr(path, nullptr, 0); });
  add("llistxattr", Last::kFinds, Asks::kAnything, [](const char* path) { return ::llistxattr(path, nullptr, 0); });
  add("getxattr", Last::kFollows, Asks::kRegular, [](const char* path) {
    const long result = ::getxattr(path, kAttribute, nullptr, 0);
    return result < 0 && errno == ENODATA ? 0 : result;
  });
}

void add_changing(std::vector<PathCall>& calls) {
  const auto add = [&](const char* name, Last last, Asks asks, std::function<long(const char*)> run) {
    calls.push_back({name, last, true, false, asks, std::move(run)});
  };
  add("open to write", Last::kFollows, Asks::kRegular, [](const char* path) { return open_with(path, O_WRONLY); });
  add("open to read and write", Last::kFollows, Asks::kRegular,
      [](const char* path) { return open_with(path, O_RDWR); });
  add("open to append", Last::kFollows, Asks::kRegular,
      [](const char* path) { return open_with(path, O_WRONLY | O_APPEND); });
  add("open and truncate", Last::kFollows, Asks::kRegular,
      [](const char* path) { return open_with(path, O_WRONLY | O_TRUNC); });
  add("truncate", Last::kFollows, Asks::kRegular, [](const char* path) { return ::truncate(path, 0); });
  add("chmod", Last::kFollows, Asks::kAnything, [](const char* path) { return ::chmod(path, 0755); });
  add("chown", Last::kFollows, Asks::kAnything, [](const char* path) { return ::chown(path, 0, 0); });
  add("lchown", Last::kFinds, Asks::kAnything, [](const char* path) { return ::lchown(path, 0, 0); });
  add("utimensat", Last::kFollows, Asks::kAnything,
      [](const char* path) { return ::utimensat(AT_FDCWD, path, nullptr, 0); });
  add("utimensat of a link", Last::kFinds, Asks::kAnything,
      [](const char* path) { return ::utimensat(AT_FDCWD, path, nullptr, AT_SYMLINK_NOFOLLOW); });
  add("setxattr", Last::kFollows, Asks::kRegular,
      [](const char* path) { return ::setxattr(path, kAttribute, "v", 1, 0); });
  add("removexattr", Last::kFollows, Asks::kRegular, [](const char* path) {
    const long result = ::removexattr(path, kAttribute);
    return result < 0 && errno == ENODATA ? 0 : result;
  });
}

void add_taking_away(std::vector<PathCall>& calls) {
  const auto add = [&](const char* name, Asks asks, std::function<long(const char*)> run) {
    calls.push_back({name, Last::kFinds, true, true, asks, std::move(run)});
  };
  add("unlink", Asks::kNoDirectory, [](const char* path) { return ::unlink(path); });
  add("rmdir", Asks::kDirectory, [](const char* path) { return ::rmdir(path); });
  add("rename from", Asks::kAnything, [](const char* path) { return ::rename(path, "renamed"); });
  add("rename from, not replacing", Asks::kAnything,
      [](const char* path) { return ::renameat2(AT_FDCWD, path, AT_FDCWD, "renamed", RENAME_NOREPLACE); });
  add("exchange", Asks::kAnything,
      [](const char* path) { return ::renameat2(AT_FDCWD, path, AT_FDCWD, kOrigin, RENAME_EXCHANGE); });
}

void add_making(std::vector<PathCall>& calls) {
  const auto add = [&](const char* name, std::function<long(const char*)> run) {
    calls.push_back({name, Last::kMakes, true, true, Asks::kAnything, std::move(run)});
  };
  add("open O_CREAT", [](const char* path) { return open_with(path, O_CREAT | O_WRONLY); });
  add("open O_CREAT O_EXCL", [](const char* path) { return open_with(path, O_CREAT | O_EXCL | O_RDWR); });
  add("mkdir", [](const char* path) { return ::mkdir(path, 0755); });
  add("mknod regular", [](const char* path) { return ::mknod(path, S_IFREG | 0644U, 0); });
  add("mknod fifo", [](const char* path) { return ::mknod(path, S_IFIFO | 0644U, 0); });
  add("mknod socket", [](const char* path) { return ::mknod(path, S_IFSOCK | 0644U, 0); });
  add("mknod block", [](const char* path) { return ::mknod(path, S_IFBLK | 0644U, makedev(240, 77)); });
  add("mknod character", [](const char* path) { return ::mknod(path, S_IFCHR | 0644U, makedev(240, 77)); });
  add("symlink", [](const char* path) { return ::symlink("leads/nowhere", path); });
  add("link to", [](const char* path) { return ::link(kOrigin, path); });
  add("rename to", [](const char* path) { return ::rename(kOrigin, path); });
  add("rename to, not replacing",
      [](const char* path) { return ::renameat2(AT_FDCWD, kOrigin, AT_FDCWD, path, RENAME_NOREPLACE); });
}

std::vector<PathCall> make_table() {
  std::vector<PathCall> calls;
  add_finding(calls);
  add_changing(calls);
  calls.push_back({"link from", Last::kFinds, true, false, Asks::kNoDirectory,
                   [](const char* path) { return ::link(path, "linked"); }});
  add_taking_away(calls);
  add_making(calls);
  return calls;
}

}  // namespace

const std::vector<PathCall>& path_calls() {
  static const std::vector<PathCall> calls = make_table();
  return calls;
}

long bind_to(const char* path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
  const int number = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(number >= 0);
  const long result = ::bind(number, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int error = errno;
  ::close(number);
  errno = error;
  return result;
}

void make_origin() {
  if (!exists(kOrigin)) make(Kind::kRegular, kOrigin, 0666);
}

void for_each_call(const std::function<bool(const PathCall&)>& wanted,
                   const std::function<void(const PathCall&)>& check) {
  for (const PathCall& call : path_calls()) {
    if (!wanted(call)) continue;
    INFO("call: ", call.name);
    make_origin();
    check(call);
  }
}

}  // namespace tarnfs::conformance
