// Resolving a path: what every call that takes one owes for each of its components.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/conformance/calls.h"

namespace tarnfs::conformance {
namespace {

TEST_SUITE_BEGIN("read-write");

constexpr std::initializer_list<Kind> kNeitherDirectoryNorLink = {Kind::kRegular, Kind::kFifo, Kind::kBlock,
                                                                  Kind::kCharacter, Kind::kSocket};

TEST_CASE_FIXTURE(Place, "ENOENT: a component of the path is missing") {
  make(Kind::kSymlink, "dangling");
  make(Kind::kDirectory, "directory");
  for_each_call(any_call, [](const PathCall& call) {
    for (const char* const path : {"none/name", "dangling/name", "directory/none/name", "none/..", "none/../origin"}) {
      INFO("path: ", path);
      fails(ENOENT, call.run(path));
    }
    fails(ENOENT, call.run(""));
  });
  for_each_call(finds, [](const PathCall& call) {
    fails(ENOENT, call.run("none"));
    fails(ENOENT, call.run("directory/none"));
  });
  for_each_call(follows, [](const PathCall& call) { fails(ENOENT, call.run("dangling")); });
  fails(ENOENT, ::symlink("", "empty"));
  fails(ENOENT, ::link("none", "name"));
  fails(ENOENT, ::rename("none", "name"));
  equal(exists("name"), false);
  fails(ENOENT, bind_to("none/name"));
}

TEST_CASE_FIXTURE(Place, "ENOTDIR: a component of the path is no directory") {
  for_kinds(kNeitherDirectoryNorLink, [](Kind kind) {
    const std::string file = name_of(kind);
    make(kind, file);
    REQUIRE(::symlink(file.c_str(), ("to " + file).c_str()) == 0);
    for_each_call(any_call, [&](const PathCall& call) {
      fails(ENOTDIR, call.run((file + "/name").c_str()));
      fails(ENOTDIR, call.run((file + "/name/below").c_str()));
      fails(ENOTDIR, call.run((file + "/../origin").c_str()));
      fails(ENOTDIR, call.run(("to " + file + "/name").c_str()));
    });
    // A slash at the end asks for a directory.
    for_each_call(finds, [&](const PathCall& call) { fails(ENOTDIR, call.run((file + "/").c_str())); });
    fails(ENOTDIR, bind_to((file + "/name").c_str()));
    fails(ENOTDIR, open_and_close(file, O_RDONLY | O_DIRECTORY));
    fails(ENOTDIR, ::chdir(file.c_str()));
    fails(ENOTDIR, ::rmdir(file.c_str()));
  });
  fails(ENOTDIR, ::rmdir("to regular"));
}

TEST_CASE_FIXTURE(Place, "A slash behind a new name asks for a directory") {
  ok(::mkdir("made/", 0755));
  make_origin();
  fails(EISDIR, open_and_close("new/", O_CREAT | O_WRONLY));
  fails(ENOENT, ::mknod("new/", S_IFREG | 0644U, 0));
  fails(ENOENT, ::mkfifo("new/", 0644));
  fails(ENOENT, ::symlink("target", "new/"));
  fails(ENOENT, ::link(kOrigin, "new/"));
  fails(ENOTDIR, ::rename(kOrigin, "new/"));
  fails(ENOTDIR, ::rename("origin/", "new"));
  ok(::rename("made/", "new/"));
  ok(::rmdir("new///"));
  equal(exists("new"), false);
}

TEST_CASE_FIXTURE(Place, "ENAMETOOLONG: names of 255 bytes, not of 256") {
  const std::string longest = long_name(255);
  const std::string too_long = long_name(256);
  make(Kind::kDirectory, "directory");
  for_each_call(any_call, [&](const PathCall& call) {
    fails(ENAMETOOLONG, call.run(too_long.c_str()));
    fails(ENAMETOOLONG, call.run(("directory/" + too_long).c_str()));
    fails(ENAMETOOLONG, call.run((too_long + "/name").c_str()));
  });
  for_each_call(finds, [&](const PathCall& call) {
    fails(ENOENT, call.run(longest.c_str()));
    fails(ENOENT, call.run((longest + "/name").c_str()));
  });
  for_each_call(makes, [&](const PathCall& call) {
    ok(call.run(longest.c_str()));
    equal(names_in(".").size(), exists(kOrigin) ? 3 : 2);
    equal(exists(longest), true);
    ok(S_ISDIR(attributes(longest).st_mode) ? ::rmdir(longest.c_str()) : ::unlink(longest.c_str()));
  });
}

TEST_CASE_FIXTURE(Place, "ENAMETOOLONG: paths of 4095 bytes, not of 4096") {
  for_each_call(any_call, [](const PathCall& call) {
    fails(ENAMETOOLONG, call.run(long_path(4096, "name").c_str()));
    fails(ENAMETOOLONG, call.run(long_path(70000, "name").c_str()));
  });
  for_each_call(finds, [](const PathCall& call) { fails(ENOENT, call.run(long_path(4095, "name").c_str())); });
  for_each_call(makes, [](const PathCall& call) {
    ok(call.run(long_path(4095, "name").c_str()));
    ok(S_ISDIR(attributes("name").st_mode) ? ::rmdir("name") : ::unlink("name"));
  });
  fails(ENAMETOOLONG, ::link(long_path(4096, "name").c_str(), "other"));
  fails(ENAMETOOLONG, ::rename(long_path(4096, "name").c_str(), "other"));
}

TEST_CASE_FIXTURE(Place, "ELOOP: symlinks that lead to themselves") {
  ok(::symlink("self", "self"));
  ok(::symlink("pong", "ping"));
  ok(::symlink("ping", "pong"));
  for_each_call(any_call, [](const PathCall& call) {
    for (const char* const path : {"self/name", "ping/name", "pong/name", "self/"}) {
      INFO("path: ", path);
      // A name that is to be made, or taken away, is looked at before its slash is.
      if (std::string(path) == "self/" && call.changes_parent) continue;
      fails(ELOOP, call.run(path));
    }
  });
  for_each_call(follows, [](const PathCall& call) {
    fails(ELOOP, call.run("self"));
    fails(ELOOP, call.run("pong"));
  });
  fails(ELOOP, open_and_close("self", O_CREAT | O_WRONLY));
  ok(::lchown("self", 0, 0));
  ok(::link("self", "other"));
  ok(::rename("other", "third"));
  ok(::unlink("third"));
  ok(::unlink("self"));
  equal(names_in(".").size(), exists(kOrigin) ? 3 : 2);
}

TEST_CASE_FIXTURE(Place, "ELOOP: a path may lead through 40 symlinks, not through 41") {
  make(Kind::kDirectory, "0");
  for (int number = 1; number <= 41; ++number) {
    ok(::symlink(std::to_string(number - 1).c_str(), std::to_string(number).c_str()));
  }
  make_origin();
  ok(open_and_close("40", O_RDONLY | O_DIRECTORY));
  fails(ELOOP, open_and_close("41", O_RDONLY | O_DIRECTORY));
  for_each_call(any_call, [](const PathCall& call) { fails(ELOOP, call.run("41/name")); });
  for_each_call(finds, [](const PathCall& call) { fails(ENOENT, call.run("40/name")); });
  for_each_call(makes, [](const PathCall& call) {
    ok(call.run("40/name"));
    ok(S_ISDIR(attributes("0/name").st_mode) ? ::rmdir("40/name") : ::unlink("40/name"));
  });
}

TEST_CASE_FIXTURE(Place, "A symlink at the end of a path: who follows it and who does not") {
  ok(::symlink("directory", "link"));
  make(Kind::kDirectory, "directory");
  for_each_call([](const PathCall& call) { return follows(call) && call.asks != Asks::kRegular; },
                [](const PathCall& call) { ok(call.run("link")); });
  fails(ELOOP, open_and_close("link", O_RDONLY | O_NOFOLLOW));
  fails(ENOTDIR, open_and_close("link", O_RDONLY | O_NOFOLLOW | O_DIRECTORY));
  ok(open_and_close("link", O_PATH | O_NOFOLLOW));
  ok(open_and_close("link/", O_RDONLY | O_NOFOLLOW));
  fails(ENOTDIR, ::rmdir("link"));
  fails(ENOTDIR, ::unlink("link/"));
  fails(EEXIST, ::mkdir("link", 0755));
  fails(EEXIST, open_and_close("link", O_CREAT | O_EXCL | O_WRONLY));
  // A file is made where the symlink leads; nothing else is.
  ok(::symlink("directory/made", "way"));
  fails(EEXIST, ::mkdir("way", 0755));
  fails(EEXIST, ::mknod("way", S_IFREG | 0644U, 0));
  fails(EEXIST, open_and_close("way", O_CREAT | O_EXCL | O_WRONLY));
  equal(exists("directory/made"), false);
  ok(open_and_close("way", O_CREAT | O_WRONLY));
  equal(exists("directory/made"), true);
  ok(::unlink("directory/made"));
}

// Which class of users somebody belongs to, and what stops him and what lets him pass.
struct UserClass {
  const char* name;
  User user;
  mode_t stops;
  mode_t passes;
};

std::vector<UserClass> user_classes(mode_t bit) {
  return {{"owner", kOwner, 0777 & ~(bit * 0100), bit * 0100},
          {"group", kGroupMate, 0777 & ~(bit * 0010), bit * 0010},
          {"supplementary group", kSecondMate, 0777 & ~(bit * 0010), bit * 0010},
          {"others", kStranger, 0777 & ~bit, bit}};
}

TEST_CASE_FIXTURE(Place, "EACCES: a directory of the path may not be searched") {
  make(Kind::kDirectory, "directory", 0777, kOwner);
  for (const UserClass& one : user_classes(1)) {
    INFO("class: ", one.name);
    for_each_call(any_call, [&](const PathCall& call) {
      REQUIRE(::chmod("directory", one.stops) == 0);
      fails(EACCES, as(one.user, [&] { return call.run("directory/name"); }));
      fails(EACCES, as(one.user, [&] { return call.run("directory/../name"); }));
    });
    for_each_call(finds, [&](const PathCall& call) {
      REQUIRE(::chmod("directory", one.passes) == 0);
      fails(ENOENT, as(one.user, [&] { return call.run("directory/name"); }));
    });
  }
  equal(names_in("directory").size(), 0);
  REQUIRE(::chmod("directory", 0) == 0);
  for_each_call(finds, [](const PathCall& call) { fails(ENOENT, call.run("directory/name")); });  // root
  fails(EACCES, as(kOwner, [] { return bind_to("directory/name"); }));
}

TEST_CASE_FIXTURE(Place, "EACCES: a directory may not be written") {
  make(Kind::kDirectory, "directory", 0777, kOwner);
  for (const UserClass& one : user_classes(2)) {
    INFO("class: ", one.name);
    for_each_call([](const PathCall& call) { return call.changes_parent; },
                  [&](const PathCall& call) {
                    const bool directory = call.asks == Asks::kDirectory;
                    if (finds(call))
                      make(directory ? Kind::kDirectory : Kind::kRegular, "directory/name", 0777, kOwner);
                    const auto before = attributes("directory");
                    REQUIRE(::chmod("directory", one.stops) == 0);
                    fails(EACCES, as(one.user, [&] { return call.run("directory/name"); }));
                    REQUIRE(::chmod("directory", 0777) == 0);
                    equal(exists("directory/name"), finds(call));
                    equal(attributes("directory").st_mtim.tv_nsec, before.st_mtim.tv_nsec);
                    if (finds(call))
                      REQUIRE(remove(directory ? Kind::kDirectory : Kind::kRegular, "directory/name") == 0);
                  });
    // Only what makes files without asking for more rights.
    for (const char* const name : {"open O_CREAT", "mkdir", "mknod fifo", "symlink", "link to", "rename to"}) {
      for_each_call(
          [&](const PathCall& call) { return call.name == name; },
          [&](const PathCall& call) {
            REQUIRE(::chmod("directory", one.passes | one.passes >> 1U) == 0);
            ok(as(one.user, [&] { return call.run("directory/name"); }));
            const bool directory = std::string(name) == "mkdir";
            ok(as(one.user, [&] { return remove(directory ? Kind::kDirectory : Kind::kRegular, "directory/name"); }));
          });
    }
  }
}

// Not a matter of the file system, but of what stands before it: the address is looked at before the path is.
TEST_CASE_FIXTURE(Place, "EFAULT: the path is outside of the address space") {
  if (kAddressSanitizer) return;  // it reads paths itself
  void* const page = ::mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(page != MAP_FAILED);
  for_each_call(any_call, [&](const PathCall& call) { fails(EFAULT, call.run(static_cast<const char*>(page))); });
  fails(EFAULT, ::symlink(static_cast<const char*>(page), "link"));
  ::munmap(page, 4096);
}

TEST_SUITE_END();

}  // namespace
}  // namespace tarnfs::conformance
