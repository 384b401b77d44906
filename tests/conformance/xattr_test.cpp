// setxattr(2), getxattr(2), listxattr(2), removexattr(2) and their l- and f- forms; statfs(2).
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>

#include "tests/conformance/ground.h"

namespace tarnfs::conformance {
namespace {

TEST_SUITE_BEGIN("read-write");

long set(const char* path, const std::string& name, const std::string& value, int flags = 0) {
  return ::lsetxattr(path, name.c_str(), value.data(), value.size(), flags);
}

std::string get(const char* path, const std::string& name) {
  std::string value(70000, '\0');
  const ssize_t bytes = ::lgetxattr(path, name.c_str(), value.data(), value.size());
  if (bytes < 0) return errno_text(errno);
  value.resize(static_cast<std::size_t>(bytes));
  return value;
}

std::vector<std::string> list(const char* path) {
  std::string text(70000, '\0');
  const ssize_t bytes = ::llistxattr(path, text.data(), text.size());
  REQUIRE(bytes >= 0);
  std::vector<std::string> names;
  for (std::size_t at = 0; at < static_cast<std::size_t>(bytes); at += names.back().size() + 1) {
    names.emplace_back(text.c_str() + at);
  }
  std::sort(names.begin(), names.end());
  return names;
}

TEST_CASE_FIXTURE(Place, "Attributes of files and directories: set, replaced, listed, removed") {
  for_kinds({Kind::kRegular, Kind::kDirectory}, [](Kind kind) {
    make(kind, "file");
    for (const char* const name : {"user.one", "trusted.two", "security.three"}) {
      INFO("name: ", name);
      fails(ENODATA, ::lgetxattr("file", name, nullptr, 0));
      fails(ENODATA, ::lremovexattr("file", name));
      fails(ENODATA, set("file", name, "value", XATTR_REPLACE));
      const Times times({".", "file"});
      ok(set("file", name, "value", XATTR_CREATE));
      times.expect("file", kChanged);
      times.expect(".", kNothing);
      equal(get("file", name), "value");
      fails(EEXIST, set("file", name, "other", XATTR_CREATE));
      equal(get("file", name), "value");
      ok(set("file", name, "another value", XATTR_REPLACE));
      equal(get("file", name), "another value");
      ok(set("file", name, ""));
      equal(::lgetxattr("file", name, nullptr, 0), 0);
      ok(set("file", name, std::string("a\0b", 3)));
      equal(get("file", name), std::string("a\0b", 3));
      char byte = 0;
      fails(ERANGE, ::lgetxattr("file", name, &byte, 1));
      equal(::lgetxattr("file", name, nullptr, 0), 3);
    }
    equal(list("file").size(), 3);
    char byte = 0;
    fails(ERANGE, ::llistxattr("file", &byte, 1));
    const Times times({"file"});
    ok(::lremovexattr("file", "user.one"));
    times.expect("file", kChanged);
    fails(ENODATA, ::lremovexattr("file", "user.one"));
    equal(list("file").size(), 2);
    equal(list("file")[0], "security.three");
    ok(remove(kind, "file"));
  });
}

TEST_CASE_FIXTURE(Place, "listxattr: names of trusted.* are for root alone") {
  make(Kind::kRegular, "file", 0644, kOwner);
  for (const char* const name : {"user.one", "trusted.two", "security.three"}) ok(set("file", name, "value"));
  equal(list("file").size(), 3);
  for (const User& user : {kOwner, kStranger}) {
    const As scope(user);
    equal(list("file").size(), 2);
    equal(list("file")[0], "security.three");
    equal(list("file")[1], "user.one");
    equal(::llistxattr("file", nullptr, 0), 24);
  }
  ok(::unlink("file"));
}

TEST_CASE_FIXTURE(Place, "security.capability goes with a write by root, set-user-id does not") {
  const std::string capabilities("\0\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
  make(Kind::kRegular, "file");
  ok(::chmod("file", 06755));
  ok(set("file", "security.capability", capabilities));
  equal(::lgetxattr("file", "security.capability", nullptr, 0), 20);
  {
    const Open file("file", O_WRONLY);
    equal(::write(file.number(), "x", 1), 1);
  }
  fails(ENODATA, ::lgetxattr("file", "security.capability", nullptr, 0));
  equal(mode_of("file"), 06755);
  ok(set("file", "security.capability", capabilities));
  ok(::chown("file", static_cast<uid_t>(-1), static_cast<gid_t>(-1)));
  equal(mode_of("file"), 0755);
  ok(::unlink("file"));
}

TEST_CASE_FIXTURE(Place, "Attributes of other types: user.* is refused, trusted.* is not") {
  for_kinds({Kind::kFifo, Kind::kBlock, Kind::kCharacter, Kind::kSocket, Kind::kSymlink}, [](Kind kind) {
    make(kind, "file", 0666);
    fails(EPERM, set("file", "user.one", "value"));
    fails(ENODATA, ::lgetxattr("file", "user.one", nullptr, 0));
    ok(set("file", "trusted.one", "value"));
    equal(get("file", "trusted.one"), "value");
    equal(list("file").size(), 1);
    ok(::lremovexattr("file", "trusted.one"));
    equal(list("file").size(), 0);
    ok(remove(kind, "file"));
  });
  write_file("file", "content");
  ok(::symlink("file", "link"));
  ok(::setxattr("link", "user.one", "value", 5, 0));
  equal(get("file", "user.one"), "value");
  const Open file("file", O_RDONLY);
  ok(::fsetxattr(file.number(), "user.two", "x", 1, 0));
  equal(::fgetxattr(file.number(), "user.two", nullptr, 0), 1);
  ok(::fremovexattr(file.number(), "user.two"));
  equal(::flistxattr(file.number(), nullptr, 0), 9);
  fails(EBADF, ::fsetxattr(-1, "user.two", "x", 1, 0));
}

TEST_CASE_FIXTURE(Place, "Attributes: names and sizes that are refused") {
  make(Kind::kRegular, "file");
  const Times times({"file"});
  fails(EOPNOTSUPP, set("file", "noprefix", "value"));
  fails(EOPNOTSUPP, set("file", "other.name", "value"));
  fails_with_one_of({EINVAL, EOPNOTSUPP}, set("file", "user.", "value"));
  fails(ERANGE, set("file", "", "value"));
  fails(ERANGE, set("file", "user." + long_name(251), "value"));
  fails(ERANGE, ::lgetxattr("file", ("user." + long_name(251)).c_str(), nullptr, 0));
  fails(EINVAL, set("file", "user.name", "value", 8));
  fails(E2BIG, set("file", "user.name", std::string(65537, 'x')));
  times.expect_untouched();
  ok(set("file", "user." + long_name(250), "value"));
  equal(get("file", "user." + long_name(250)), "value");
  const long answer = set("file", "user.large", std::string(65536, 'x'));
  fails_with_one_of({0, ENOSPC, E2BIG}, answer);
  if (answer == 0) equal(get("file", "user.large") == std::string(65536, 'x'), true);
}

TEST_CASE_FIXTURE(Place, "EACCES and EPERM: who may read and change attributes") {
  make(Kind::kRegular, "file", 0600, kOwner);
  ok(set("file", "user.one", "value"));
  ok(set("file", "trusted.one", "value"));
  ok(set("file", "security.one", "value"));
  for (const User& user : {kGroupMate, kStranger}) {
    const As scope(user);
    fails(EACCES, ::lgetxattr("file", "user.one", nullptr, 0));
    fails(EACCES, set("file", "user.one", "other"));
    fails(EACCES, ::lremovexattr("file", "user.one"));
    fails(ENODATA, ::lgetxattr("file", "trusted.one", nullptr, 0));
    fails(EPERM, set("file", "trusted.one", "other"));
    fails(EPERM, ::lremovexattr("file", "trusted.one"));
  }
  {
    const As scope(kOwner);
    ok(set("file", "user.one", "owner's"));
    equal(get("file", "user.one"), "owner's");
    fails(EPERM, set("file", "trusted.one", "other"));
    fails(EPERM, set("file", "security.one", "other"));
    fails(EPERM, ::lremovexattr("file", "security.one"));
  }
  REQUIRE(::chmod("file", 0444) == 0);
  fails(EACCES, as(kOwner, [] { return set("file", "user.one", "other"); }));
  equal(as(kStranger, [] { return ::lgetxattr("file", "user.one", nullptr, 0); }), 7);
  equal(get("file", "trusted.one"), "value");
  // In a sticky directory user.* belongs to the owner.
  make(Kind::kDirectory, "sticky", 01777, kOwner);
  fails(EPERM, as(kStranger, [] { return set("sticky", "user.one", "value"); }));
  ok(as(kOwner, [] { return set("sticky", "user.one", "value"); }));
}

TEST_CASE_FIXTURE(Place, "statfs and statvfs") {
  struct statvfs before {};
  ok(::statvfs(".", &before));
  equal(before.f_namemax, 255);
  equal(before.f_bsize > 0, true);
  equal(before.f_blocks > 0, true);
  equal(before.f_bavail <= before.f_bfree, true);
  equal(before.f_bfree <= before.f_blocks, true);
  equal(before.f_ffree <= before.f_files, true);
  equal(before.f_flag & ST_RDONLY, 0);
  make(Kind::kRegular, "file");
  const Open file("file", O_RDONLY);
  struct statvfs after {};
  ok(::fstatvfs(file.number(), &after));
  equal(after.f_fsid, before.f_fsid);
  equal(after.f_blocks, before.f_blocks);
  fails(EBADF, ::fstatvfs(-1, &after));
  equal(::pathconf(".", _PC_NAME_MAX), 255);
  equal(::pathconf(".", _PC_PATH_MAX), 4096);
}

TEST_SUITE_END();

}  // namespace
}  // namespace tarnfs::conformance
