// rename(2) and renameat2(2) with its flags.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/conformance/ground.h"

namespace tarnfs::conformance {
namespace {

TEST_SUITE_BEGIN("read-write");

long rename_with(const std::string& from, const std::string& to, unsigned flags) {
  return ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags);
}

ino_t inode_of(const std::string& path) {
  return attributes(path).st_ino;
}

TEST_CASE_FIXTURE(Place, "rename: to a new name, in the same directory and in another, of every type") {
  make(Kind::kDirectory, "from");
  make(Kind::kDirectory, "to");
  for_each_kind([](Kind kind) {
    make(kind, "from/old", 0640, kOwner);
    const struct stat before = attributes("from/old");
    const bool directory = kind == Kind::kDirectory;
    {
      const Times times({"from", "to", "from/old"});
      ok(::rename("from/old", "from/new"));
      times.expect("from", kContent);
      times.expect("to", kNothing);
      times.expect_moved("from/old", "from/new", kChanged);
    }
    {
      const Times times({"from", "to", "from/new"});
      ok(::rename("from/new", "to/moved"));
      times.expect("from", kContent);
      times.expect("to", kContent);
      times.expect_moved("from/new", "to/moved", kChanged);
    }
    const struct stat after = attributes("to/moved");
    equal(after.st_ino, before.st_ino);
    equal(after.st_mode, before.st_mode);
    equal(after.st_uid, before.st_uid);
    equal(after.st_nlink, directory ? 2 : 1);
    equal(links_of("from"), 2);
    equal(links_of("to"), directory ? 3 : 2);
    if (directory) equal(inode_of("to/moved/.."), inode_of("to"));
    equal(exists("from/old"), false);
    equal(exists("from/new"), false);
    ok(remove(kind, "to/moved"));
  });
}

// What rename(2) says of a file of one type that goes to the name of another.
int error_of_replacing(Kind from, Kind to) {
  if (from == Kind::kDirectory) return to == Kind::kDirectory ? 0 : ENOTDIR;
  return to == Kind::kDirectory ? EISDIR : 0;
}

TEST_CASE_FIXTURE(Place, "rename: every type over every type") {
  make(Kind::kDirectory, "from");
  make(Kind::kDirectory, "to");
  for_each_kind([](Kind from) {
    for_each_kind([&](Kind to) {
      make(from, "from/a");
      make(to, "to/b");
      const ino_t moved = inode_of("from/a");
      const ino_t replaced = inode_of("to/b");
      const int wanted = error_of_replacing(from, to);
      const Times times({"from", "to", "from/a", "to/b"});
      fails(wanted, ::rename("from/a", "to/b"));
      if (wanted != 0) {
        times.expect_untouched();
        equal(inode_of("from/a"), moved);
        equal(inode_of("to/b"), replaced);
        ok(remove(from, "from/a"));
        ok(remove(to, "to/b"));
        return;
      }
      times.expect("from", kContent);
      times.expect("to", kContent);
      equal(exists("from/a"), false);
      equal(inode_of("to/b"), moved);
      equal(links_of("from"), 2);
      equal(links_of("to"), from == Kind::kDirectory ? 3 : 2);
      ok(remove(from, "to/b"));
    });
  });
}

TEST_CASE_FIXTURE(Place, "rename: what is replaced loses a link, and lives on under its others") {
  for_kinds({Kind::kRegular, Kind::kFifo, Kind::kBlock, Kind::kCharacter, Kind::kSocket, Kind::kSymlink},
            [](Kind kind) {
              make(Kind::kRegular, "new");
              make(kind, "old");
              ok(::link("old", "other"));
              const Times times({"other"});
              ok(::rename("new", "old"));
              times.expect("other", kChanged);
              equal(links_of("other"), 1);
              // Two names of one file: nothing happens.
              ok(::link("other", "third"));
              const Times again({".", "other", "third"});
              ok(::rename("other", "third"));
              again.expect_untouched();
              equal(links_of("other"), 2);
              equal(links_of("third"), 2);
              ok(::rename("other", "other"));
              for (const char* const name : {"old", "other", "third"}) ok(::unlink(name));
            });
  make(Kind::kDirectory, "directory");
  ok(::rename("directory", "directory"));
  write_file("kept", "content");
  const Open kept("kept", O_RDONLY);
  make(Kind::kRegular, "new");
  ok(::rename("new", "kept"));
  std::string buffer(7, '\0');
  equal(::read(kept.number(), buffer.data(), 7), 7);
  equal(buffer, "content");
}

TEST_CASE_FIXTURE(Place, "rename: ENOTEMPTY for a directory that is replaced") {
  make(Kind::kDirectory, "from");
  make(Kind::kDirectory, "to");
  for_each_kind([](Kind kind) {
    make(kind, "to/inside");
    const Times times({".", "from", "to"});
    fails_with_one_of({ENOTEMPTY, EEXIST}, ::rename("from", "to"));
    times.expect_untouched();
    ok(remove(kind, "to/inside"));
  });
  make(Kind::kRegular, "from/inside");
  ok(::rename("from", "to"));
  equal(exists("to/inside"), true);
  equal(exists("from"), false);
}

TEST_CASE_FIXTURE(Place, "rename: EINVAL into itself, EBUSY and EINVAL for dots, EXDEV between file systems") {
  make(Kind::kDirectory, "a");
  make(Kind::kDirectory, "a/b");
  make(Kind::kDirectory, "a/b/c");
  make(Kind::kRegular, "file");
  for (const unsigned flags : {0U, static_cast<unsigned>(RENAME_NOREPLACE)}) {
    INFO("flags: ", flags);
    for (const char* const to : {"a/new", "a/b/new", "a/b/c/new", "a/b/c/../../new", "a/./new/"}) {
      INFO("to: ", to);
      fails(EINVAL, rename_with("a", to, flags));
    }
    for (const char* const dots : {".", "..", "a/.", "a/..", "a/b/../."}) {
      INFO("dots: ", dots);
      fails(EBUSY, rename_with(dots, "new", flags));
      fails(flags == 0 ? EBUSY : EEXIST, rename_with("a", dots, flags));
      fails(flags == 0 ? EBUSY : EEXIST, rename_with("file", dots, flags));
    }
  }
  // The other way round, the target cannot be empty.
  for (const char* const from : {"a/b", "a/b/c", "file"}) {
    INFO("from: ", from);
    if (std::string(from) != "file") fails(ENOTEMPTY, ::rename(from, "a"));
  }
  fails(ENOTEMPTY, ::rename("a/b/c", "a/b"));
  for (const char* const in : {"a/b", "a/b/c"}) {
    fails(EINVAL, rename_with("a", in, RENAME_EXCHANGE));
    fails(EINVAL, rename_with(in, "a", RENAME_EXCHANGE));
  }
  const std::string there = arguments().elsewhere + "/conformance rename";
  for_each_kind([&](Kind kind) {
    make(kind, "mover");
    for (const unsigned flags : {0U, static_cast<unsigned>(RENAME_NOREPLACE), static_cast<unsigned>(RENAME_EXCHANGE)}) {
      fails(EXDEV, rename_with("mover", there, flags));
    }
    equal(exists("mover"), true);
    equal(exists(there), false);
    ok(remove(kind, "mover"));
    make(kind, there);
    fails(EXDEV, ::rename(there.c_str(), "mover"));
    ok(remove(kind, there));
  });
  equal(exists("mover"), false);
}

TEST_CASE_FIXTURE(Place, "RENAME_NOREPLACE: EEXIST for every type over every type") {
  for_each_kind([](Kind from) {
    for_each_kind([&](Kind to) {
      make(from, "a");
      make(to, "b");
      const Times times({".", "a", "b"});
      fails(EEXIST, rename_with("a", "b", RENAME_NOREPLACE));
      times.expect_untouched();
      ok(remove(to, "b"));
      ok(rename_with("a", "b", RENAME_NOREPLACE));
      times.expect(".", kContent);
      ok(remove(from, "b"));
    });
  });
  make(Kind::kRegular, "a");
  fails(EEXIST, rename_with("a", "a", RENAME_NOREPLACE));
}

TEST_CASE_FIXTURE(Place, "RENAME_EXCHANGE: every type with every type") {
  make(Kind::kDirectory, "from");
  make(Kind::kDirectory, "to");
  for_each_kind([](Kind from) {
    for_each_kind([&](Kind to) {
      make(from, "from/a");
      make(to, "to/b");
      const ino_t one = inode_of("from/a");
      const ino_t other = inode_of("to/b");
      const Times times({"from", "to", "from/a", "to/b"});
      ok(rename_with("from/a", "to/b", RENAME_EXCHANGE));
      equal(inode_of("from/a"), other);
      equal(inode_of("to/b"), one);
      times.expect("from", kContent);
      times.expect("to", kContent);
      times.expect_moved("from/a", "to/b", kChanged);
      times.expect_moved("to/b", "from/a", kChanged);
      equal(links_of("from"), to == Kind::kDirectory ? 3 : 2);
      equal(links_of("to"), from == Kind::kDirectory ? 3 : 2);
      if (from == Kind::kDirectory) equal(inode_of("to/b/.."), inode_of("to"));
      if (to == Kind::kDirectory) equal(inode_of("from/a/.."), inode_of("from"));
      ok(remove(to, "from/a"));
      ok(remove(from, "to/b"));
    });
  });
  make(Kind::kRegular, "a");
  const Times times({".", "a"});
  fails(ENOENT, rename_with("a", "none", RENAME_EXCHANGE));
  fails(ENOENT, rename_with("none", "a", RENAME_EXCHANGE));
  ok(rename_with("a", "a", RENAME_EXCHANGE));
  times.expect_untouched();
  // Neither has to be empty.
  make(Kind::kRegular, "from/inside");
  make(Kind::kRegular, "to/other");
  ok(rename_with("from", "to", RENAME_EXCHANGE));
  equal(exists("from/other"), true);
  equal(exists("to/inside"), true);
}

TEST_CASE_FIXTURE(Place, "renameat2: flags that are none, or contradict each other") {
  make(Kind::kRegular, "a");
  make(Kind::kRegular, "b");
  fails(EINVAL, rename_with("a", "b", RENAME_NOREPLACE | RENAME_EXCHANGE));
  for (const unsigned flags : {8U, 0x80U, 0x80000000U}) fails(EINVAL, rename_with("a", "b", flags));
  fails(EBADF, ::renameat(-1, "a", AT_FDCWD, "c"));
  fails(EBADF, ::renameat(AT_FDCWD, "a", -1, "c"));
  const Open file("a", O_RDONLY);
  fails(ENOTDIR, ::renameat(file.number(), "a", AT_FDCWD, "c"));
  fails(ENOTDIR, ::renameat(AT_FDCWD, "a", file.number(), "c"));
}

TEST_CASE_FIXTURE(Place, "rename: EACCES where one of the two directories may not be written or searched") {
  make(Kind::kDirectory, "closed", 0755, kOwner);
  make(Kind::kDirectory, "open", 0777, kOwner);
  for_each_kind([](Kind kind) {
    make(kind, "closed/a", 0777, kOwner);
    make(kind, "open/a", 0777, kOwner);
    for (const mode_t mode : {0755U, 0766U}) {
      INFO("mode: ", mode);
      REQUIRE(::chmod("closed", mode) == 0);
      const As user(kStranger);
      fails(EACCES, ::rename("closed/a", "open/b"));
      fails(EACCES, ::rename("closed/a", "open/a"));
      fails(EACCES, ::rename("open/a", "closed/b"));
      fails(EACCES, ::rename("open/a", "closed/a"));
      fails(EACCES, rename_with("open/a", "closed/b", RENAME_NOREPLACE));
      fails(EACCES, rename_with("open/a", "closed/a", RENAME_EXCHANGE));
    }
    ok(as(kStranger, [] { return ::rename("open/a", "open/b"); }));
    ok(as(kOwner, [] { return ::rename("closed/a", "open/a"); }));
    ok(remove(kind, "open/a"));
    ok(remove(kind, "open/b"));
  });
  // Its ".." changes: a directory that goes elsewhere is written too.
  make(Kind::kDirectory, "open/a", 0555, kStranger);
  make(Kind::kDirectory, "other", 0777, kStranger);
  const As user(kStranger);
  ok(::rename("open/a", "open/b"));
  fails(EACCES, ::rename("open/b", "other/b"));
  equal(exists("open/b"), true);
}

TEST_SUITE_END();

}  // namespace
}  // namespace tarnfs::conformance
