// link(2), unlink(2) and rmdir(2).
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/conformance/ground.h"

namespace tarnfs::conformance {
namespace {

TEST_SUITE_BEGIN("read-write");

constexpr std::initializer_list<Kind> kNoDirectory = {Kind::kRegular,   Kind::kFifo,   Kind::kBlock,
                                                      Kind::kCharacter, Kind::kSocket, Kind::kSymlink};

TEST_CASE_FIXTURE(Place, "link: one file under several names, of every type but directories") {
  make(Kind::kDirectory, "directory");
  for_kinds(kNoDirectory, [](Kind kind) {
    make(kind, "one", 0644);
    const struct stat before = attributes("one");
    ok(::link("one", "two"));
    ok(::link("two", "directory/three"));
    for (const char* const name : {"one", "two", "directory/three"}) {
      const struct stat found = attributes(name);
      equal(found.st_nlink, 3);
      equal(found.st_ino, before.st_ino);
      equal(found.st_mode, before.st_mode);
      equal(found.st_rdev, before.st_rdev);
    }
    if (kind != Kind::kSymlink) ok(::chmod("two", 0201));
    ok(::lchown("directory/three", kOwner.uid, kStranger.gid));
    equal(attributes("one").st_uid, kOwner.uid);
    equal(attributes("two").st_gid, kStranger.gid);
    if (kind != Kind::kSymlink) equal(mode_of("directory/three"), 0201);
    ok(::unlink("one"));
    equal(exists("one"), false);
    equal(links_of("two"), 2);
    ok(::unlink("two"));
    equal(links_of("directory/three"), 1);
    ok(::unlink("directory/three"));
  });
}

TEST_CASE_FIXTURE(Place, "link and unlink: times of the file and of its directory") {
  make(Kind::kDirectory, "from");
  make(Kind::kDirectory, "to");
  for_kinds(kNoDirectory, [](Kind kind) {
    make(kind, "from/file");
    {
      const Times times({"from", "to", "from/file"});
      ok(::link("from/file", "to/link"));
      times.expect("from", kNothing);
      times.expect("to", kContent);
      times.expect("from/file", kChanged);
    }
    {
      const Times times({"from", "to", "from/file"});
      fails(EEXIST, ::link("from/file", "to/link"));
      fails(ENOENT, ::link("from/none", "to/other"));
      times.expect_untouched();
    }
    {
      const Times times({"from", "to", "to/link"});
      ok(::unlink("from/file"));
      times.expect("from", kContent);
      times.expect("to", kNothing);
      times.expect("to/link", kChanged);
    }
    const Times times({"from", "to"});
    fails(ENOENT, ::unlink("from/file"));
    times.expect_untouched();
    ok(::unlink("to/link"));
    times.expect("to", kContent);
  });
}

TEST_CASE_FIXTURE(Place, "link: EPERM for directories, EXDEV between file systems") {
  make(Kind::kDirectory, "directory");
  fails(EPERM, ::link("directory", "link"));
  fails(EPERM, ::link(".", "link"));
  fails(EPERM, as(kStranger, [] { return ::link("directory", "link"); }));
  fails(EEXIST, ::link("directory", "directory"));
  const std::string there = arguments().elsewhere + "/conformance link";
  for_kinds(kNoDirectory, [&](Kind kind) {
    make(kind, "file");
    fails(EXDEV, ::link("file", there.c_str()));
    equal(exists(there), false);
    equal(links_of("file"), 1);
    ok(::unlink("file"));
    make(kind, there);
    fails(EXDEV, ::link(there.c_str(), "file"));
    ok(::unlink(there.c_str()));
  });
  equal(exists("file"), false);
}

TEST_CASE_FIXTURE(Place, "linkat: flags, and whether a symlink is followed") {
  make(Kind::kRegular, "file");
  ok(::symlink("file", "symlink"));
  ok(::linkat(AT_FDCWD, "symlink", AT_FDCWD, "to symlink", 0));
  equal(attributes("to symlink").st_mode & S_IFMT, S_IFLNK);
  ok(::linkat(AT_FDCWD, "symlink", AT_FDCWD, "to file", AT_SYMLINK_FOLLOW));
  equal(attributes("to file").st_mode & S_IFMT, S_IFREG);
  equal(links_of("file"), 2);
  fails(EINVAL, ::linkat(AT_FDCWD, "file", AT_FDCWD, "other", 0x8000));
  fails(EBADF, ::linkat(-1, "file", AT_FDCWD, "other", 0));
  fails(EBADF, ::linkat(AT_FDCWD, "file", -1, "other", 0));
  const Open file("file", O_RDONLY);
  fails(ENOTDIR, ::linkat(file.number(), "file", AT_FDCWD, "other", 0));
  fails(ENOTDIR, ::linkat(AT_FDCWD, "file", file.number(), "other", 0));
}

TEST_CASE_FIXTURE(Place, "EMLINK, or as many links as anybody wants") {
  make(Kind::kRegular, "file");
  make(Kind::kDirectory, "links");
  const int count = full_size() ? 70000 : 1000;
  int made = 1;
  for (; made <= count; ++made) {
    if (::link("file", ("links/" + std::to_string(made)).c_str()) != 0) break;
  }
  if (made <= count) {
    equal(errno, EMLINK);
    equal(made >= 8, true);
  }
  equal(links_of("file"), made);
}

TEST_CASE_FIXTURE(Place, "unlink: EISDIR for directories, and flags of unlinkat") {
  make(Kind::kDirectory, "directory");
  make(Kind::kRegular, "file");
  fails(EISDIR, ::unlink("directory"));
  fails(EISDIR, ::unlink("directory/"));
  fails(EISDIR, ::unlink("."));
  fails(EISDIR, ::unlink(".."));
  fails(EISDIR, as(kStranger, [] { return ::unlink("directory"); }));
  fails(ENOTDIR, ::unlink("file/"));
  fails(EINVAL, ::unlinkat(AT_FDCWD, "file", 0x8000));
  fails(ENOTDIR, ::unlinkat(AT_FDCWD, "file", AT_REMOVEDIR));
  fails(EBADF, ::unlinkat(-1, "file", 0));
  equal(exists("file"), true);
  ok(::unlinkat(AT_FDCWD, "directory", AT_REMOVEDIR));
}

TEST_CASE_FIXTURE(Place, "rmdir: ENOTEMPTY, whatever is in the directory") {
  for_each_kind([](Kind kind) {
    make(Kind::kDirectory, "directory");
    make(kind, "directory/inside");
    const Times times({".", "directory"});
    fails(ENOTEMPTY, ::rmdir("directory"));
    fails(ENOTEMPTY, ::rmdir("directory/"));
    fails(ENOTEMPTY, as(kStranger, [] { return ::rmdir("directory"); }));
    times.expect_untouched();
    equal(links_of("directory"), kind == Kind::kDirectory ? 3 : 2);
    ok(remove(kind, "directory/inside"));
    const Times again({"."});
    const nlink_t links = links_of(".");
    ok(::rmdir("directory"));
    again.expect(".", kContent);
    equal(links_of("."), links - 1);
  });
}

TEST_CASE_FIXTURE(Place, "rmdir: ENOTDIR, and names that mean a directory that is in use") {
  for_kinds(kNoDirectory, [](Kind kind) {
    make(kind, "file");
    fails(ENOTDIR, ::rmdir("file"));
    ok(::unlink("file"));
  });
  make(Kind::kDirectory, "directory");
  make(Kind::kDirectory, "directory/below");
  fails(EINVAL, ::rmdir("."));
  fails(EINVAL, ::rmdir("directory/below/."));
  fails(EINVAL, ::rmdir("directory/./"));
  fails(ENOTEMPTY, ::rmdir(".."));
  fails(ENOTEMPTY, ::rmdir("directory/below/.."));
  fails(EBUSY, ::rmdir("/"));
  ok(::rmdir("directory//below//"));
}

TEST_CASE_FIXTURE(Place, "EBUSY: the name is a mountpoint") {
  make(Kind::kDirectory, "mountpoint");
  make(Kind::kDirectory, "other");
  REQUIRE(::mount("tmpfs", "mountpoint", "tmpfs", 0, "") == 0);
  fails(EBUSY, ::rmdir("mountpoint"));
  fails(EBUSY, ::rename("mountpoint", "new"));
  fails(EBUSY, ::rename("other", "mountpoint"));
  fails(EBUSY, ::renameat2(AT_FDCWD, "other", AT_FDCWD, "mountpoint", RENAME_EXCHANGE));
  fails(EISDIR, ::unlink("mountpoint"));
  REQUIRE(::umount2("mountpoint", MNT_DETACH) == 0);
  ok(::rmdir("mountpoint"));
}

// fs.protected_hardlinks: nobody makes a link to what he may not write anyway, unless it is his.
TEST_CASE_FIXTURE(Place, "link: whose file, and which rights") {
  make(Kind::kRegular, "file", 0644, kOwner);
  make(Kind::kDirectory, "open", 0777);
  ok(as(kOwner, [] { return ::link("file", "open/one"); }));
  ok(as(kRoot, [] { return ::link("file", "open/two"); }));
  REQUIRE(::chmod("file", 0666) == 0);
  ok(as(kStranger, [] { return ::link("file", "open/three"); }));
  equal(attributes("open/three").st_uid, kOwner.uid);
  equal(links_of("file"), 4);
}

TEST_SUITE_END();

}  // namespace
}  // namespace tarnfs::conformance
