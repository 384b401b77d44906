// Sticky directories: only the file's owner, the directory's owner and root take a name out of one, or replace it.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/conformance/ground.h"

namespace tarnfs::conformance {
namespace {

TEST_SUITE_BEGIN("read-write");

struct Owners {
  const User& directory;
  const User& file;
  const User& caller;
};

bool may_take(const Owners& owners) {
  const uid_t caller = owners.caller.uid;
  return caller == 0 || caller == owners.directory.uid || caller == owners.file.uid;
}

// Calls `check` in a place with "sticky", a directory of mode 01777, and "free", one of mode 0777.
void for_all_owners(const std::function<void(const Owners&, Kind)>& check) {
  for (const User* directory : {&kRoot, &kOwner, &kStranger}) {
    REQUIRE(::chown("sticky", directory->uid, directory->gid) == 0);
    for (const User* file : {&kRoot, &kOwner, &kStranger}) {
      for (const User* caller : {&kRoot, &kOwner, &kGroupMate}) {
        INFO("directory: ", directory->uid, ", file: ", file->uid, ", caller: ", caller->uid);
        for_each_kind([&](Kind kind) { check({*directory, *file, *caller}, kind); });
      }
    }
  }
}

class StickyPlace : public Place {
 public:
  StickyPlace() {
    make(Kind::kDirectory, "sticky", 01777);
    make(Kind::kDirectory, "free", 0777);
  }
};

TEST_CASE_FIXTURE(StickyPlace, "EPERM: unlink and rmdir in a sticky directory") {
  for_all_owners([](const Owners& owners, Kind kind) {
    make(kind, "sticky/file", 0777, owners.file);
    const Times times({"sticky", "sticky/file"});
    fails(may_take(owners) ? 0 : EPERM, as(owners.caller, [&] { return remove(kind, "sticky/file"); }));
    if (may_take(owners)) return;
    times.expect_untouched();
    ok(remove(kind, "sticky/file"));
  });
}

TEST_CASE_FIXTURE(StickyPlace, "EPERM: rename out of a sticky directory") {
  for_all_owners([](const Owners& owners, Kind kind) {
    make(kind, "sticky/file", 0777, owners.file);
    const int wanted = may_take(owners) ? 0 : EPERM;
    {
      const As user(owners.caller);
      fails(wanted, ::rename("sticky/file", "free/file"));
      if (wanted == 0) ok(::rename("free/file", "sticky/file"));
      fails(wanted, ::rename("sticky/file", "sticky/other"));
    }
    ok(remove(kind, wanted == 0 ? "sticky/other" : "sticky/file"));
  });
}

TEST_CASE_FIXTURE(StickyPlace, "EPERM: rename over a name in a sticky directory") {
  for_all_owners([](const Owners& owners, Kind kind) {
    make(kind, "sticky/file", 0777, owners.file);
    make(kind, "free/file", 0777, owners.caller);
    const int wanted = may_take(owners) ? 0 : EPERM;
    const ino_t before = attributes("sticky/file").st_ino;
    fails(wanted, as(owners.caller,
                     [] { return ::renameat2(AT_FDCWD, "free/file", AT_FDCWD, "sticky/file", RENAME_EXCHANGE); }));
    if (wanted == 0) REQUIRE(::renameat2(AT_FDCWD, "free/file", AT_FDCWD, "sticky/file", RENAME_EXCHANGE) == 0);
    equal(attributes("sticky/file").st_ino, before);
    fails(wanted, as(owners.caller, [] { return ::rename("free/file", "sticky/file"); }));
    equal(attributes("sticky/file").st_ino == before, wanted != 0);
    ok(remove(kind, "sticky/file"));
    if (wanted != 0) ok(remove(kind, "free/file"));
  });
}

TEST_CASE_FIXTURE(StickyPlace, "A sticky directory takes new names and links from everybody") {
  for_each_kind([](Kind kind) {
    if (kind == Kind::kBlock || kind == Kind::kCharacter) return;
    const As user(kStranger);
    ok(kind == Kind::kDirectory ? ::mkdir("sticky/new", 0755)
       : kind == Kind::kSymlink ? ::symlink("target", "sticky/new")
                                : ::mknod("sticky/new", type_of(kind) | 0644U, 0));
    if (kind == Kind::kRegular) {
      ok(::link("sticky/new", "sticky/link"));
      ok(::unlink("sticky/link"));
    }
    ok(remove(kind, "sticky/new"));
  });
}

TEST_SUITE_END();

}  // namespace
}  // namespace tarnfs::conformance
