// chmod(2), chown(2) and lchown(2): who may, what changes, and which privileges go.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/conformance/ground.h"

namespace tarnfs::conformance {
namespace {

TEST_SUITE_BEGIN("read-write");

constexpr uid_t kSameUid = static_cast<uid_t>(-1);
constexpr gid_t kSameGid = static_cast<gid_t>(-1);

struct Owner {
  uid_t uid;
  gid_t gid;
};

TEST_CASE_FIXTURE(Place, "chmod: every bit, on every type, by the owner and by root; EPERM for others") {
  for_each_kind([](Kind kind) {
    if (kind == Kind::kSymlink) return;
    make(kind, "file", 0644, kOwner);
    for (const mode_t mode : {0U, 0111U, 0222U, 0444U, 0755U, 0777U, 01777U, 02777U, 04777U, 07777U, 06644U}) {
      for (const User& user : {kRoot, kOwner}) {
        INFO("mode: ", mode, ", uid: ", user.uid);
        REQUIRE(::chmod("file", 0644) == 0);
        ok(as(user, [&] { return ::chmod("file", mode); }));
        equal(mode_of("file"), mode);
        equal(attributes("file").st_mode & S_IFMT, type_of(kind));
      }
      for (const User& user : {kGroupMate, kSecondMate, kStranger}) {
        const Times times({"file"});
        fails(EPERM, as(user, [&] { return ::chmod("file", 0640); }));
        times.expect_untouched();
        equal(mode_of("file"), mode);
      }
    }
    const Times times({".", "file"});
    ok(::chmod("file", 0600));
    times.expect("file", kChanged);
    times.expect(".", kNothing);
    ok(::symlink("file", "link"));
    ok(::chmod("link", 0641));
    equal(mode_of("file"), 0641);
    equal(mode_of("link"), 0777);
    ok(::unlink("link"));
    ok(remove(kind, "file"));
  });
  make(Kind::kSymlink, "link");
  fails(EOPNOTSUPP, ::fchmodat(AT_FDCWD, "link", 0600, AT_SYMLINK_NOFOLLOW));
  fails(ENOENT, ::chmod("link", 0600));
}

TEST_CASE_FIXTURE(Place, "chmod: set-group-id stays off where the owner is not in the file's group") {
  for_each_kind([](Kind kind) {
    if (kind == Kind::kSymlink) return;
    make(kind, "file", 0644);
    REQUIRE(::chown("file", kOwner.uid, kStranger.gid) == 0);
    ok(as(kOwner, [] { return ::chmod("file", 02755); }));
    equal(mode_of("file"), 0755);
    ok(::chmod("file", 02755));
    equal(mode_of("file"), 02755);
    const User member{kOwner.uid, kOwner.gid, {kStranger.gid}};
    ok(as(member, [] { return ::chmod("file", 02750); }));
    equal(mode_of("file"), 02750);
    ok(as(kOwner, [] { return ::chmod("file", 04751); }));
    equal(mode_of("file"), 04751);
    ok(remove(kind, "file"));
  });
}

TEST_CASE_FIXTURE(Place, "fchmod and fchown of an open file") {
  write_file("file", "content");
  const Open file("file", O_RDONLY);
  ok(::fchmod(file.number(), 0612));
  equal(mode_of("file"), 0612);
  ok(::fchown(file.number(), kOwner.uid, kSameGid));
  equal(attributes("file").st_uid, kOwner.uid);
  fails(EPERM, as(kStranger, [&] { return ::fchmod(file.number(), 0777); }));
  fails(EPERM, as(kStranger, [&] { return ::fchown(file.number(), kStranger.uid, kSameGid); }));
  const Open path("file", O_PATH);
  fails(EBADF, ::fchmod(path.number(), 0600));
  fails(EBADF, ::fchown(path.number(), 0, 0));
  fails(EBADF, ::fchmod(-1, 0600));
  ok(::fchownat(path.number(), "", 0, 0, AT_EMPTY_PATH));
  equal(attributes("file").st_uid, 0);
  fails(EINVAL, ::fchownat(AT_FDCWD, "file", 0, 0, 0x8000));
}

TEST_CASE_FIXTURE(Place, "lchown: root gives every type to anybody, of a symlink the link itself") {
  for_each_kind([](Kind kind) {
    make(kind, "file", 0644);
    const std::array<Owner, 5> owners = {{{1, 2}, {kSameUid, 3}, {4, kSameGid}, {4000000000U, 4000000001U}, {0, 0}}};
    struct stat wanted = attributes("file");
    for (const Owner& owner : owners) {
      INFO("uid: ", owner.uid, ", gid: ", owner.gid);
      if (owner.uid != kSameUid) wanted.st_uid = owner.uid;
      if (owner.gid != kSameGid) wanted.st_gid = owner.gid;
      const Times times({".", "file"});
      ok(::lchown("file", owner.uid, owner.gid));
      times.expect("file", kChanged);
      times.expect(".", kNothing);
      equal(attributes("file").st_uid, wanted.st_uid);
      equal(attributes("file").st_gid, wanted.st_gid);
    }
    ok(remove(kind, "file"));
  });
  make(Kind::kRegular, "file");
  ok(::symlink("file", "link"));
  ok(::chown("link", 5, 6));
  equal(attributes("file").st_uid, 5);
  equal(attributes("link").st_uid, 0);
}

TEST_CASE_FIXTURE(Place, "EPERM: users give nothing away, and take only groups of their own") {
  const User member{kOwner.uid, kOwner.gid, {7}};
  for_each_kind([&](Kind kind) {
    make(kind, "file", 0644, kOwner);
    for (const User& user : {kGroupMate, kStranger}) {
      INFO("uid: ", user.uid);
      const Times times({"file"});
      fails(EPERM, as(user, [&] { return ::lchown("file", user.uid, user.gid); }));
      fails(EPERM, as(user, [&] { return ::lchown("file", kSameUid, user.gid); }));
      fails(EPERM, as(user, [&] { return ::lchown("file", kOwner.uid, kOwner.gid); }));
      fails(EPERM, as(kOwner, [&] { return ::lchown("file", user.uid, kSameGid); }));
      fails(EPERM, as(kOwner, [&] { return ::lchown("file", 0, kSameGid); }));
      fails(EPERM, as(kOwner, [&] { return ::lchown("file", kOwner.uid, kStranger.gid); }));
      fails(EPERM, as(kOwner, [&] { return ::lchown("file", kSameUid, 7); }));
      times.expect_untouched();
    }
    const Times times({"file"});
    ok(as(member, [] { return ::lchown("file", kOwner.uid, 7); }));
    times.expect("file", kChanged);
    equal(attributes("file").st_gid, 7);
    ok(as(kOwner, [] { return ::lchown("file", kSameUid, kOwner.gid); }));
    equal(attributes("file").st_gid, kOwner.gid);
    ok(as(kOwner, [] { return ::lchown("file", kOwner.uid, kOwner.gid); }));
    equal(attributes("file").st_uid, kOwner.uid);
    ok(remove(kind, "file"));
  });
}

// Of everything but directories: a program must not keep its power when it changes hands.
TEST_CASE_FIXTURE(Place, "chown takes set-user-id away, and set-group-id of what its group may execute") {
  const std::array<Owner, 4> kinds_of_change = {
      {{kOwner.uid, kOwner.gid}, {kSameUid, kOwner.gid}, {kOwner.uid, kSameGid}, {kSameUid, kSameGid}}};
  for_each_kind([&](Kind kind) {
    if (kind == Kind::kSymlink) return;
    make(kind, "file", 0644, kOwner);
    for (const User& user : {kRoot, kOwner}) {
      for (const mode_t mode : {04755U, 02755U, 06755U, 07777U, 04644U, 06555U}) {
        for (const Owner& owner : kinds_of_change) {
          INFO("caller: ", user.uid, ", mode: ", mode, ", to uid: ", owner.uid, ", gid: ", owner.gid);
          REQUIRE(::chmod("file", mode) == 0);
          ok(as(user, [&] { return ::chown("file", owner.uid, owner.gid); }));
          const mode_t wanted = mode & ~04000U & ~((mode & 0010U) != 0 ? 02000U : 0U);
          equal(mode_of("file"), kind == Kind::kDirectory ? mode : wanted);
        }
      }
    }
    // Without execution by the group it is no power, and stays with root.
    REQUIRE(::chmod("file", 02644) == 0);
    ok(::chown("file", kOwner.uid, kOwner.gid));
    equal(mode_of("file"), 02644);
    ok(remove(kind, "file"));
  });
}

TEST_CASE_FIXTURE(Place, "write and truncate by another take set-user-id away, and leave it with root") {
  const auto with_mode = [](mode_t mode) {
    write_file("file", "content");
    REQUIRE(::chown("file", kOwner.uid, kOwner.gid) == 0);
    REQUIRE(::chmod("file", mode) == 0);
  };
  struct Change {
    const char* name;
    std::function<long()> run;
  };
  const std::vector<Change> changes = {
      {"write",
       [] {
         const Open file("file", O_WRONLY);
         return ::write(file.number(), "x", 1);
       }},
      {"truncate", [] { return ::truncate("file", 3); }},
      {"ftruncate",
       [] {
         const Open file("file", O_WRONLY);
         return ::ftruncate(file.number(), 5);
       }},
      {"O_TRUNC", [] { return open_and_close("file", O_WRONLY | O_TRUNC); }},
      {"fallocate",
       [] {
         const Open file("file", O_WRONLY);
         return ::fallocate(file.number(), 0, 0, 100);
       }},
  };
  for (const Change& change : changes) {
    for (const mode_t mode : {04777U, 02777U, 06777U, 06767U, 02767U}) {
      INFO("change: ", change.name, ", mode: ", mode);
      with_mode(mode);
      equal(as(kStranger, change.run) >= 0, true);
      equal(mode_of("file"), mode & 01777U);
      with_mode(mode);
      equal(as(kOwner, change.run) >= 0, true);
      equal(mode_of("file"), mode & ~04000U & ~((mode & 0010U) != 0 ? 02000U : 0U));
      with_mode(mode);
      equal(change.run() >= 0, true);
      equal(mode_of("file"), mode);
    }
  }
}

TEST_SUITE_END();

}  // namespace
}  // namespace tarnfs::conformance
