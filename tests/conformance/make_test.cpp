// mkdir(2), mknod(2), mkfifo(3), symlink(2), bind(2) and open(2) with O_CREAT: what comes into being, and what cannot.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "tests/conformance/calls.h"

namespace tarnfs::conformance {
namespace {

TEST_SUITE_BEGIN("read-write");

constexpr const char* kNew = "directory/new";

// The call that makes a file of each type, with its mode as the caller gives it.
long make_with_mode(Kind kind, mode_t mode) {
  switch (kind) {
    case Kind::kRegular:
      return open_and_close(kNew, O_CREAT | O_EXCL | O_WRONLY, mode);
    case Kind::kDirectory:
      return ::mkdir(kNew, mode);
    case Kind::kFifo:
      return ::mkfifo(kNew, mode);
    case Kind::kSymlink:
      return ::symlink("target", kNew);
    default:
      return ::mknod(kNew, type_of(kind) | mode, kind == Kind::kSocket ? 0 : makedev(240, 77));
  }
}

TEST_CASE_FIXTURE(Place, "A new file has the type and the mode that was asked for, less the umask") {
  make(Kind::kDirectory, "directory", 0755);
  for_each_kind([](Kind kind) {
    for (const mode_t mask : {0U, 022U, 077U, 0345U, 0777U}) {
      for (const mode_t mode : {0U, 0151U, 0644U, 0755U, 0777U, 01777U, 07777U}) {
        INFO("mode: ", mode, ", umask: ", mask);
        ::umask(mask);
        ok(make_with_mode(kind, mode));
        ::umask(0);
        const struct stat made = attributes(kNew);
        equal(made.st_mode & S_IFMT, type_of(kind));
        // mkdir(2) takes no set-id bits from its argument.
        const mode_t wanted = kind == Kind::kDirectory ? mode & 01777U : mode;
        equal(made.st_mode & 07777U, kind == Kind::kSymlink ? 0777 : wanted & ~mask);
        equal(made.st_nlink, kind == Kind::kDirectory ? 2 : 1);
        if (kind != Kind::kDirectory) equal(made.st_size, kind == Kind::kSymlink ? 6 : 0);
        ok(remove(kind, kNew));
      }
    }
  });
}

TEST_CASE_FIXTURE(Place, "A new file belongs to the caller, and to the directory's group where that is set-group-id") {
  make(Kind::kDirectory, "directory", 0777, kOwner);
  for_each_kind([](Kind kind) {
    for (const User& user : {kRoot, kOwner, kGroupMate, kSecondMate, kStranger}) {
      if (user.uid != 0 && (kind == Kind::kBlock || kind == Kind::kCharacter)) continue;
      for (const mode_t directory_mode : {0777U, 02777U}) {
        INFO("uid: ", user.uid, ", directory's mode: ", directory_mode);
        REQUIRE(::chmod("directory", directory_mode) == 0);
        ok(as(user, [&] { return make_with_mode(kind, 0755); }));
        const struct stat made = attributes(kNew);
        equal(made.st_uid, user.uid);
        equal(made.st_gid, directory_mode == 02777 ? kOwner.gid : user.gid);
        const bool inherits = kind == Kind::kDirectory && directory_mode == 02777;
        if (kind != Kind::kSymlink) equal(made.st_mode & 07777U, inherits ? 02755 : 0755);
        ok(remove(kind, kNew));
      }
    }
  });
}

// A set-group-id program for a group that its maker is not in would be a gift.
TEST_CASE_FIXTURE(Place, "A file in a set-group-id directory is set-group-id only if its maker belongs to the group") {
  make(Kind::kDirectory, "directory", 02777, kOwner);
  for (const User& user : {kRoot, kOwner, kGroupMate, kSecondMate, kStranger}) {
    INFO("uid: ", user.uid);
    for (const mode_t mode : {02775U, 02765U}) {
      ok(as(user, [&] { return make_with_mode(Kind::kRegular, mode); }));
      const bool loses = user.uid == kStranger.uid && (mode & S_IXGRP) != 0;
      equal(mode_of(kNew), loses ? mode & ~02000U : mode);
      ok(::unlink(kNew));
    }
  }
}

TEST_CASE_FIXTURE(Place, "Devices keep their numbers") {
  make(Kind::kDirectory, "directory");
  for (const dev_t device :
       {makedev(0, 0), makedev(1, 2), makedev(255, 255), makedev(4095, 1048575), makedev(8, 300)}) {
    for (const mode_t type : {S_IFCHR, S_IFBLK}) {
      ok(::mknod(kNew, type | 0600U, device));
      equal(attributes(kNew).st_rdev, device);
      ok(::unlink(kNew));
    }
  }
}

TEST_CASE_FIXTURE(Place, "EEXIST: the name is taken, by whatever type of file") {
  for_each_kind([](Kind kind) {
    make(kind, "taken");
    make_origin();
    const struct stat before = attributes("taken");
    for_each_call(
        [](const PathCall& call) { return makes(call) && call.name != "open O_CREAT" && call.name != "rename to"; },
        [](const PathCall& call) {
          fails(EEXIST, call.run("taken"));
          equal(exists(kOrigin), true);
        });
    fails(EADDRINUSE, bind_to("taken"));
    const struct stat after = attributes("taken");
    equal(after.st_ino, before.st_ino);
    equal(after.st_mode, before.st_mode);
    ok(remove(kind, "taken"));
  });
  for (const char* const path : {".", "..", "/", "./", "directory/.."}) {
    INFO("path: ", path);
    if (!exists("directory")) make(Kind::kDirectory, "directory");
    fails(EEXIST, ::mkdir(path, 0755));
    fails(EEXIST, ::mknod(path, S_IFREG | 0644U, 0));
    fails(EEXIST, ::mkfifo(path, 0644));
    fails(EEXIST, ::symlink("target", path));
    fails(EISDIR, open_and_close(path, O_CREAT | O_WRONLY));
  }
}

TEST_CASE_FIXTURE(Place, "mknod: types that it does not make, and what only root may make") {
  fails(EPERM, ::mknod("new", S_IFDIR | 0755U, 0));
  fails(EINVAL, ::mknod("new", S_IFLNK | 0777U, 0));
  fails(EINVAL, ::mknod("new", S_IFMT | 0644U, 0));
  ok(::mknod("new", 0644, 0));
  equal(attributes("new").st_mode, S_IFREG | 0644U);
  ok(::unlink("new"));
  for (const User& user : {kOwner, kStranger}) {
    fails(EPERM, as(user, [] { return ::mknod("new", S_IFBLK | 0644U, makedev(240, 77)); }));
    fails(EPERM, as(user, [] { return ::mknod("new", S_IFCHR | 0644U, makedev(240, 77)); }));
    // A whiteout of overlayfs is none of the devices that need a privilege.
    ok(as(user, [] { return ::mknod("new", S_IFCHR | 0644U, 0); }));
    ok(::unlink("new"));
    for (const mode_t type : {S_IFREG, S_IFIFO, S_IFSOCK}) {
      ok(as(user, [&] { return ::mknod("new", type | 0644U, 0); }));
      ok(::unlink("new"));
    }
  }
}

TEST_CASE_FIXTURE(Place,
                  "Making a file updates the directory's times, and gives the file its own; failing does neither") {
  make(Kind::kDirectory, "directory");
  for_each_kind([](Kind kind) {
    const Times times({"directory"});
    const struct stat before = attributes("directory");
    ok(make_with_mode(kind, 0644));
    times.expect("directory", kContent);
    const struct stat made = attributes(kNew);
    for (const timespec& time : {made.st_atim, made.st_mtim, made.st_ctim}) {
      const bool later = time.tv_sec != before.st_mtim.tv_sec ? time.tv_sec > before.st_mtim.tv_sec
                                                              : time.tv_nsec > before.st_mtim.tv_nsec;
      equal(later, true);
    }
    const Times again({"directory", kNew});
    fails(EEXIST, make_with_mode(kind, 0644));
    again.expect_untouched();
    ok(remove(kind, kNew));
  });
}

TEST_CASE_FIXTURE(Place, "Directories: links, and what is in a new one") {
  make(Kind::kDirectory, "directory");
  for (int count = 1; count <= 10; ++count) {
    make(Kind::kDirectory, "directory/" + std::to_string(count));
    equal(links_of("directory"), 2 + count);
    // Files of other types do not count.
    make(Kind::kRegular, "directory/file " + std::to_string(count));
    equal(links_of("directory"), 2 + count);
  }
  equal(attributes("directory/1/..").st_ino, attributes("directory").st_ino);
  equal(attributes("directory/1/.").st_ino, attributes("directory/1").st_ino);
  equal(names_in("directory/1").size(), 0);
  equal(names_in("directory").size(), 20);
}

TEST_CASE_FIXTURE(Place, "symlink and readlink: what is written is what is read, up to 4095 bytes") {
  for (const std::size_t bytes : {1U, 2U, 59U, 60U, 61U, 255U, 256U, 1023U, 1024U, 4000U, 4094U, 4095U}) {
    const std::string target = long_name(bytes);
    ok(::symlink(target.c_str(), "link"));
    std::string buffer(5000, '\0');
    equal(::readlink("link", buffer.data(), buffer.size()), bytes);
    equal(buffer.substr(0, bytes), target);
    equal(attributes("link").st_size, bytes);
    // A short buffer gets what fits.
    equal(::readlink("link", buffer.data(), 1), 1);
    ok(::unlink("link"));
  }
  fails(ENAMETOOLONG, ::symlink(std::string(4096, 't').c_str(), "link"));
  equal(exists("link"), false);
  std::string buffer(8, '\0');
  ok(::symlink("target", "link"));
  fails(EINVAL, ::readlink("link", buffer.data(), 0));
  for_kinds({Kind::kRegular, Kind::kDirectory, Kind::kFifo, Kind::kBlock, Kind::kCharacter, Kind::kSocket},
            [&](Kind kind) {
              make(kind, "other");
              fails(EINVAL, ::readlink("other", buffer.data(), buffer.size()));
              ok(remove(kind, "other"));
            });
}

TEST_CASE_FIXTURE(Place, "bind: a socket in the file system") {
  const mode_t mask = ::umask(022);
  ok(bind_to("socket"));
  ::umask(mask);
  equal(attributes("socket").st_mode, S_IFSOCK | 0755U);
  fails(EADDRINUSE, bind_to("socket"));
  ok(::unlink("socket"));
  ok(bind_to("socket"));
}

TEST_SUITE_END();

}  // namespace
}  // namespace tarnfs::conformance
