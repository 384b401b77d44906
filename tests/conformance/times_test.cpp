// utimensat(2) and futimens(3): what is set, to what precision, and by whom.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/conformance/ground.h"

namespace tarnfs::conformance {
namespace {

TEST_SUITE_BEGIN("read-write");

constexpr timespec kNow{0, UTIME_NOW};
constexpr timespec kOmit{0, UTIME_OMIT};
constexpr timespec kLongAgo{1234567890, 123456789};
constexpr timespec kOtherTime{987654321, 999999999};

long set_times(const char* path, const timespec& accessed, const timespec& modified) {
  const std::array<timespec, 2> times = {accessed, modified};
  return ::utimensat(AT_FDCWD, path, times.data(), AT_SYMLINK_NOFOLLOW);
}

void equal_time(const timespec& actual, const timespec& wanted, int line = __builtin_LINE()) {
  equal(actual.tv_sec, wanted.tv_sec, __FILE__, line);
  equal(actual.tv_nsec, wanted.tv_nsec, __FILE__, line);
}

// Whether a read that finds nothing in memory has noted its time.
bool read_notes_access(int flags) {
  REQUIRE(set_times("file", kLongAgo, kNow) == 0);
  {
    const Open file("file", O_RDONLY | flags);
    REQUIRE(::fsync(file.number()) == 0);
    REQUIRE(::posix_fadvise(file.number(), 0, 0, POSIX_FADV_DONTNEED) == 0);
    char byte = 0;
    REQUIRE(::read(file.number(), &byte, 1) == 1);
  }
  return attributes("file").st_atim.tv_sec != kLongAgo.tv_sec;
}

TEST_CASE_FIXTURE(Place, "O_NOATIME: a read leaves the time of access as it is") {
  write_file("file", "content");
  equal(read_notes_access(0), true);
  equal(read_notes_access(O_NOATIME), false);
  fails(EPERM, as(kStranger, [] { return open_and_close("file", O_RDONLY | O_NOATIME); }));
  ok(::unlink("file"));
}

TEST_CASE_FIXTURE(Place, "utimensat: both times, one of them, and now, on every type") {
  for_each_kind([](Kind kind) {
    make(kind, "file");
    {
      const Times times({".", "file"});
      ok(set_times("file", kLongAgo, kOtherTime));
      equal_time(attributes("file").st_atim, kLongAgo);
      equal_time(attributes("file").st_mtim, kOtherTime);
      times.expect("file", kChanged);  // the two that were set are earlier
      times.expect(".", kNothing);
    }
    ok(set_times("file", kOmit, kLongAgo));
    equal_time(attributes("file").st_atim, kLongAgo);
    equal_time(attributes("file").st_mtim, kLongAgo);
    ok(set_times("file", kOtherTime, kOmit));
    equal_time(attributes("file").st_atim, kOtherTime);
    equal_time(attributes("file").st_mtim, kLongAgo);
    {
      const Times times({"file"});
      ok(set_times("file", kOmit, kOmit));
      times.expect_untouched();
      ok(set_times("file", kNow, kOmit));
      times.expect("file", {.accessed = true, .modified = false, .changed = true});
      ok(set_times("file", kOmit, kNow));
      times.expect("file", {.accessed = true, .modified = true, .changed = true});
    }
    const Times times({"file"});
    ok(set_times("file", kNow, kNow));
    times.expect("file", {.accessed = true, .modified = true, .changed = true});
    ok(remove(kind, "file"));
  });
}

TEST_CASE_FIXTURE(Place, "utimensat: nanoseconds, before 1970 and long after 2038") {
  make(Kind::kRegular, "file");
  for (const timespec& time :
       {timespec{0, 0}, timespec{0, 1}, timespec{-1, 999999999}, timespec{-86400, 5}, timespec{2147483647, 0},
        timespec{2147483648, 1}, timespec{4294967296, 7}, timespec{15032385534, 999999999}, timespec{-2147483648, 0}}) {
    INFO("seconds: ", time.tv_sec);
    ok(set_times("file", time, kOtherTime));
    equal_time(attributes("file").st_atim, time);
    ok(set_times("file", kOtherTime, time));
    equal_time(attributes("file").st_mtim, time);
  }
  const Times before({"."});
  for (const long nanoseconds : {1000000000L, -1L, 2000000000L, UTIME_NOW + 2L}) {
    INFO("nanoseconds: ", nanoseconds);
    fails(EINVAL, set_times("file", timespec{1, nanoseconds}, kNow));
    fails(EINVAL, set_times("file", kNow, timespec{1, nanoseconds}));
  }
  // With these the seconds do not count.
  ok(set_times("file", timespec{-5, UTIME_OMIT}, timespec{5, UTIME_OMIT}));
  fails(EINVAL, ::utimensat(AT_FDCWD, "file", nullptr, 0x8000));
  fails(EBADF, ::utimensat(-1, "file", nullptr, 0));
  fails(EBADF, ::futimens(-1, nullptr));
}

TEST_CASE_FIXTURE(Place, "utimensat: a symlink is followed, or not; futimens") {
  make(Kind::kRegular, "file");
  ok(::symlink("file", "link"));
  const std::array<timespec, 2> times = {kLongAgo, kOtherTime};
  ok(::utimensat(AT_FDCWD, "link", times.data(), 0));
  equal_time(attributes("file").st_mtim, kOtherTime);
  equal(attributes("link").st_mtim.tv_sec != kOtherTime.tv_sec, true);
  ok(set_times("link", kOmit, kLongAgo));
  equal_time(attributes("link").st_mtim, kLongAgo);
  equal_time(attributes("file").st_mtim, kOtherTime);
  const Open file("file", O_RDONLY);
  const std::array<timespec, 2> others = {kOtherTime, kLongAgo};
  ok(::futimens(file.number(), others.data()));
  equal_time(attributes("file").st_mtim, kLongAgo);
  // What is written afterwards counts again.
  const Times after({"file"});
  const Open writer("file", O_WRONLY);
  equal(::write(writer.number(), "x", 1), 1);
  after.expect("file", kContent);
}

TEST_CASE_FIXTURE(Place, "utimensat: EPERM and EACCES, by owner and by right to write") {
  struct Case {
    const char* name;
    timespec accessed;
    timespec modified;
    int without_any_right;
    int with_the_right_to_write;
  };
  const Case cases[] = {
      {"a time", kLongAgo, kLongAgo, EPERM, EPERM}, {"atime now", kNow, kOmit, EPERM, EPERM},
      {"mtime now", kOmit, kNow, EPERM, EPERM},     {"mtime a time", kNow, kLongAgo, EPERM, EPERM},
      {"both now", kNow, kNow, EACCES, 0},          {"neither", kOmit, kOmit, 0, 0},
  };
  for_each_kind([&](Kind kind) {
    if (kind == Kind::kSymlink) return;  // its mode is always 0777
    make(kind, "file", 0644, kOwner);
    for (const Case& one : cases) {
      INFO("times: ", one.name);
      for (const User& user : {kGroupMate, kStranger}) {
        REQUIRE(::chmod("file", 0644) == 0);
        const Times times({"file"});
        fails(one.without_any_right, as(user, [&] { return set_times("file", one.accessed, one.modified); }));
        times.expect_untouched();
        REQUIRE(::chmod("file", 0666) == 0);
        fails(one.with_the_right_to_write, as(user, [&] { return set_times("file", one.accessed, one.modified); }));
      }
      // The owner needs no right.
      REQUIRE(::chmod("file", 0) == 0);
      ok(as(kOwner, [&] { return set_times("file", one.accessed, one.modified); }));
    }
    REQUIRE(::chmod("file", 0644) == 0);
    fails(EACCES, as(kStranger, [] { return ::utimensat(AT_FDCWD, "file", nullptr, 0); }));
    ok(as(kOwner, [] { return ::utimensat(AT_FDCWD, "file", nullptr, 0); }));
    ok(remove(kind, "file"));
  });
}

TEST_CASE_FIXTURE(Place, "Reading updates atime when it is older than mtime") {
  write_file("file", "content");
  make(Kind::kDirectory, "directory");
  make(Kind::kRegular, "directory/inside");
  ok(::symlink("file", "link"));
  {
    // What a file system in user space does not see, because the kernel has it, it does not count.
    const Open file("file", O_RDONLY);
    ok(::fsync(file.number()));
    ok(::posix_fadvise(file.number(), 0, 0, POSIX_FADV_DONTNEED));
  }
  for (const char* const path : {"file", "directory", "link"}) ok(set_times(path, kOtherTime, kLongAgo));
  const Times times({"file", "directory", "link"});
  equal(read_file("file"), "content");
  equal(names_in("directory").size(), 1);
  std::array<char, 8> target{};
  equal(::readlink("link", target.data(), target.size()), 4);
  for (const char* const path : {"file", "directory", "link"}) {
    times.expect(path, {.accessed = true, .modified = false, .changed = false});
  }
}

TEST_SUITE_END();

}  // namespace
}  // namespace tarnfs::conformance
