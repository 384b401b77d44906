// Immutable and append-only files and directories (chattr +i, +a): they hold root too, until the flag is taken away.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/conformance/calls.h"

namespace tarnfs::conformance {
namespace {

TEST_SUITE_BEGIN("read-write");

constexpr unsigned kHolding = FS_IMMUTABLE_FL | FS_APPEND_FL;

long set_flags(const std::string& path, unsigned flags) {
  const Open file(path, O_RDONLY | O_NONBLOCK);
  unsigned now = 0;
  REQUIRE(::ioctl(file.number(), FS_IOC_GETFLAGS, &now) == 0);
  now = (now & ~(kHolding | FS_NODUMP_FL)) | flags;
  return ::ioctl(file.number(), FS_IOC_SETFLAGS, &now);
}

unsigned flags_of(const std::string& path) {
  const Open file(path, O_RDONLY);
  unsigned flags = 0;
  ok(::ioctl(file.number(), FS_IOC_GETFLAGS, &flags));
  return flags & (kHolding | FS_NODUMP_FL);
}

// Takes the flags away again, so that the place can be removed whatever happens.
class Flags {
 public:
  Flags(std::string path, unsigned flags) : path_(std::move(path)) { ok(set_flags(path_, flags)); }
  ~Flags() { ok(set_flags(path_, 0)); }
  Flags(const Flags&) = delete;
  Flags& operator=(const Flags&) = delete;

 private:
  const std::string path_;
};

TEST_CASE_FIXTURE(Place, "Flags: who may set which, and that they stay") {
  for_kinds({Kind::kRegular, Kind::kDirectory}, [](Kind kind) {
    make(kind, "file", 0666 | (kind == Kind::kDirectory ? 0111U : 0U), kOwner);
    for (const unsigned flags : {0U, FS_IMMUTABLE_FL + 0U, FS_APPEND_FL + 0U, FS_NODUMP_FL + 0U, kHolding}) {
      INFO("flags: ", flags);
      ok(set_flags("file", flags));
      equal(flags_of("file"), flags);
    }
    ok(set_flags("file", 0));
    for (const unsigned flags : {FS_IMMUTABLE_FL, FS_APPEND_FL}) {
      fails(EPERM, as(kOwner, [&] { return set_flags("file", flags); }));
      const Flags held("file", flags);
      fails(EPERM, as(kOwner, [] { return set_flags("file", 0); }));
      equal(flags_of("file"), flags);
    }
    ok(as(kOwner, [] { return set_flags("file", FS_NODUMP_FL); }));
    fails_with_one_of({EACCES, EPERM}, as(kStranger, [] { return set_flags("file", 0); }));
    equal(flags_of("file"), FS_NODUMP_FL);
    ok(set_flags("file", 0));
    ok(remove(kind, "file"));
  });
}

TEST_CASE_FIXTURE(Place, "EPERM: names and attributes of an immutable file") {
  for_kinds({Kind::kRegular, Kind::kDirectory}, [](Kind kind) {
    make(kind, "file", 0777);
    make_origin();
    {
      const Flags held("file", FS_IMMUTABLE_FL);
      const Times times({".", "file", kOrigin});
      for (const PathCall& call : path_calls()) {
        const bool fits = call.asks == Asks::kAnything || (kind == Kind::kDirectory) == (call.asks == Asks::kDirectory);
        if (!fits || makes(call) || !call.changes || call.name.starts_with("open")) continue;
        INFO("call: ", call.name);
        fails(EPERM, call.run("file"));
      }
      const std::array<timespec, 2> past = {timespec{1, 1}, timespec{2, 2}};
      fails(EPERM, ::utimensat(AT_FDCWD, "file", past.data(), 0));
      if (kind == Kind::kRegular) fails(EPERM, ::rename(kOrigin, "file"));
      times.expect_untouched();
    }
    ok(remove(kind, "file"));
  });
}

TEST_CASE_FIXTURE(Place, "EPERM: the names in an immutable or append-only directory") {
  make(Kind::kDirectory, "directory", 0777);
  for_each_kind([](Kind kind) {
    make(kind, "directory/old");
    for (const unsigned flags : {FS_IMMUTABLE_FL, FS_APPEND_FL}) {
      INFO("flags: ", flags);
      const Flags held("directory", flags);
      fails(EPERM, remove(kind, "directory/old"));
      fails(EPERM, ::rename("directory/old", "directory/new"));
      fails(EPERM, ::rename("directory/old", "new"));
      make(kind, "other");
      fails(EPERM, ::rename("other", "directory/old"));
      fails(EPERM, ::renameat2(AT_FDCWD, "other", AT_FDCWD, "directory/old", RENAME_EXCHANGE));
      ok(remove(kind, "other"));
      equal(exists("directory/old"), true);
    }
    ok(remove(kind, "directory/old"));
  });
  {
    const Flags held("directory", FS_IMMUTABLE_FL);
    for_each_call(makes, [](const PathCall& call) { fails(EPERM, call.run("directory/new")); });
    equal(names_in("directory").size(), 0);
  }
  int count = 0;
  for_each_call(makes, [&](const PathCall& call) {
    const Flags held("directory", FS_APPEND_FL);
    ok(call.run(("directory/new " + std::to_string(++count)).c_str()));
  });
  equal(names_in("directory").size(), count);
}

TEST_SUITE_END();

}  // namespace
}  // namespace tarnfs::conformance
