// EROFS: a mount for reading only. "before read-only" makes the files on the same volume while it can be written.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <linux/fs.h>

#include "tests/conformance/calls.h"

namespace tarnfs::conformance {
namespace {

constexpr const char* kDirectory = "read-only";

std::string path_of(Kind kind) {
  return std::string(kDirectory) + "/" + name_of(kind);
}

TEST_CASE("files for the read-only mount" * doctest::test_suite("before read-only")) {
  ::umask(0);
  REQUIRE(::chdir(arguments().directory.c_str()) == 0);
  make(Kind::kDirectory, kDirectory, 0777);
  for_each_kind([](Kind kind) {
    make(kind, path_of(kind), 0777);
    ok(exists(path_of(kind)) ? 0 : -1);
  });
  write_file(path_of(Kind::kRegular), "content");
  make_origin();
  REQUIRE(::chdir("/") == 0);
}

class ReadOnlyPlace {
 public:
  ReadOnlyPlace() {
    ::umask(0);
    REQUIRE(::chdir(arguments().directory.c_str()) == 0);
  }
  ~ReadOnlyPlace() { CHECK(::chdir("/") == 0); }
  ReadOnlyPlace(const ReadOnlyPlace&) = delete;
  ReadOnlyPlace& operator=(const ReadOnlyPlace&) = delete;
};

bool fits(const PathCall& call, Kind kind) {
  switch (call.asks) {
    case Asks::kAnything:
      return !follows(call) || kind != Kind::kSymlink;
    case Asks::kDirectory:
      return kind == Kind::kDirectory;
    case Asks::kNoDirectory:
      return kind != Kind::kDirectory;
    case Asks::kRegular:
      return kind == Kind::kRegular;
    case Asks::kSymlink:
      return kind == Kind::kSymlink;
  }
  return false;
}

TEST_SUITE_BEGIN("read-only");

TEST_CASE_FIXTURE(ReadOnlyPlace, "EROFS: every call that changes something, on every type; and the others work") {
  for (const PathCall& call : path_calls()) {
    INFO("call: ", call.name);
    for (const User& user : {kRoot, kStranger}) {
      INFO("uid: ", user.uid);
      if (makes(call)) {
        fails(EROFS, as(user, [&] { return call.run("read-only/new"); }));
        continue;
      }
      for_each_kind([&](Kind kind) {
        if (!fits(call, kind)) return;
        fails(call.changes ? EROFS : 0, as(user, [&] { return call.run(path_of(kind).c_str()); }));
      });
    }
  }
  fails(EROFS, bind_to("read-only/new"));
  equal(names_in(kDirectory).size(), kKinds.size());
  equal(read_file(path_of(Kind::kRegular)), "content");
}

TEST_CASE_FIXTURE(ReadOnlyPlace,
                  "What the path says comes before EROFS; what the name says, where it is to be looked up") {
  for (const PathCall& call : path_calls()) {
    INFO("call: ", call.name);
    fails(ENOENT, call.run("read-only/none/new"));
    fails(ENOTDIR, call.run("read-only/regular/new"));
    // Linux asks whether it may write before it looks for a name that it takes away.
    const bool late = call.name.starts_with("rename") || (finds(call) && call.changes_parent);
    fails(late ? EROFS : ENAMETOOLONG, call.run(("read-only/" + long_name(256)).c_str()));
    if (finds(call)) fails(late ? EROFS : ENOENT, call.run("read-only/none"));
  }
  for_each_kind([](Kind kind) {
    fails(EEXIST, ::mkdir(path_of(kind).c_str(), 0755));
    fails(EEXIST, ::mkfifo(path_of(kind).c_str(), 0644));
    fails(EEXIST, ::symlink("target", path_of(kind).c_str()));
  });
}

TEST_CASE_FIXTURE(ReadOnlyPlace, "EROFS: by descriptor, and what else a read-only mount says") {
  const Open file(path_of(Kind::kRegular), O_RDONLY);
  fails(EROFS, ::fchmod(file.number(), 0600));
  fails(EROFS, ::fchown(file.number(), 1, 1));
  fails(EROFS, ::futimens(file.number(), nullptr));
  fails(EROFS, ::fsetxattr(file.number(), "user.one", "x", 1, 0));
  fails(EROFS, ::fremovexattr(file.number(), "user.one"));
  const int flags = FS_NODUMP_FL;
  fails(EROFS, ::ioctl(file.number(), FS_IOC_SETFLAGS, &flags));
  fails(EROFS, open_and_close(kDirectory, O_TMPFILE | O_RDWR));
  fails(EROFS, ::faccessat(AT_FDCWD, path_of(Kind::kRegular).c_str(), W_OK, AT_EACCESS));
  ok(::faccessat(AT_FDCWD, path_of(Kind::kFifo).c_str(), W_OK, AT_EACCESS));
  ok(::fsync(file.number()));
  // What is no data of the volume can be opened for writing.
  ok(open_and_close(path_of(Kind::kFifo), O_RDWR));
  struct statvfs found {};
  ok(::fstatvfs(file.number(), &found));
  equal((found.f_flag & ST_RDONLY) != 0, true);
}

TEST_SUITE_END();

}  // namespace
}  // namespace tarnfs::conformance
