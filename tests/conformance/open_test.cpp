// open(2): rights, flags, types of files; and files that are open while their names go.
#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/conformance/ground.h"

namespace tarnfs::conformance {
namespace {

TEST_SUITE_BEGIN("read-write");

// What an access takes of the three bits of a class.
struct Access {
  const char* name;
  int flags;
  mode_t needs;
};
constexpr std::array<Access, 5> kAccesses = {{
    {"read", O_RDONLY, 4},
    {"write", O_WRONLY, 2},
    {"read and write", O_RDWR, 6},
    {"append", O_WRONLY | O_APPEND, 2},
    {"read and truncate", O_RDONLY | O_TRUNC, 6},
}};

TEST_CASE_FIXTURE(Place, "EACCES: a class of users has just its own three bits, whatever the others have") {
  write_file("file", "content");
  REQUIRE(::chown("file", kOwner.uid, kOwner.gid) == 0);
  struct Class {
    const User* user;
    unsigned shift;
  };
  for (const Class one : {Class{&kOwner, 6}, Class{&kGroupMate, 3}, Class{&kSecondMate, 3}, Class{&kStranger, 0}}) {
    for (mode_t bits = 0; bits <= 7; ++bits) {
      // The other classes have the opposite.
      const mode_t mode = (((~bits & 7U) * 0111U) & ~(7U << one.shift)) | bits << one.shift;
      REQUIRE(::chmod("file", mode) == 0);
      for (const Access& access : kAccesses) {
        INFO("uid: ", one.user->uid, ", bits: ", bits, ", access: ", access.name);
        const bool may = (bits & access.needs) == access.needs;
        fails(may ? 0 : EACCES, as(*one.user, [&] { return open_and_close("file", access.flags); }));
      }
      const Times times({"file"});
      if ((bits & 2U) == 0) fails(EACCES, as(*one.user, [] { return open_and_close("file", O_WRONLY | O_TRUNC); }));
      times.expect_untouched();
    }
  }
  REQUIRE(::chmod("file", 0) == 0);
  for (const Access& access : kAccesses) ok(open_and_close("file", access.flags));
}

TEST_CASE_FIXTURE(Place, "A file that its maker may not write is open for writing all the same") {
  const As user(kOwner);
  const Open file("file", O_CREAT | O_EXCL | O_RDWR, 0);
  equal(::write(file.number(), "content", 7), 7);
  equal(::lseek(file.number(), 0, SEEK_END), 7);
  fails(EACCES, open_and_close("file", O_RDONLY));
}

TEST_CASE_FIXTURE(Place, "EISDIR: a directory is not opened for writing") {
  make(Kind::kDirectory, "directory");
  for (const int flags :
       {O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC, O_WRONLY | O_TRUNC, O_RDONLY | O_CREAT, O_WRONLY | O_APPEND}) {
    INFO("flags: ", flags);
    fails(EISDIR, open_and_close("directory", flags));
    fails(EISDIR, open_and_close(".", flags));
  }
  ok(open_and_close("directory", O_RDONLY));
  const Open directory("directory", O_RDONLY);
  char byte = 0;
  fails(EISDIR, ::read(directory.number(), &byte, 1));
  fails(EBADF, ::write(directory.number(), &byte, 1));
}

TEST_CASE_FIXTURE(Place, "open of what is neither file nor directory") {
  make(Kind::kFifo, "fifo");
  fails(ENXIO, open_and_close("fifo", O_WRONLY | O_NONBLOCK));
  ok(open_and_close("fifo", O_RDONLY | O_NONBLOCK));
  make(Kind::kSocket, "socket");
  for (const int flags : {O_RDONLY, O_WRONLY, O_RDWR}) fails(ENXIO, open_and_close("socket", flags));
  for_kinds({Kind::kBlock, Kind::kCharacter}, [](Kind kind) {
    make(kind, name_of(kind));
    for (const int flags : {O_RDONLY, O_WRONLY, O_RDWR}) {
      fails_with_one_of({ENXIO, ENODEV}, open_and_close(name_of(kind), flags));
    }
  });
  ok(::mknod("null", S_IFCHR | 0666U, 0x103));
  const Open null("null", O_RDWR);
  equal(::write(null.number(), "gone", 4), 4);
  char byte = 0;
  equal(::read(null.number(), &byte, 1), 0);
}

TEST_CASE_FIXTURE(Place, "open with O_CREAT and O_TRUNC: times of the file and of its directory") {
  make(Kind::kDirectory, "directory");
  write_file("directory/file", "content");
  {
    const Times times({"directory", "directory/file"});
    ok(open_and_close("directory/file", O_CREAT | O_WRONLY));
    ok(open_and_close("directory/file", O_RDWR));
    times.expect_untouched();
    fails(EEXIST, open_and_close("directory/file", O_CREAT | O_EXCL | O_WRONLY | O_TRUNC));
    times.expect_untouched();
  }
  equal(attributes("directory/file").st_size, 7);
  for (int round = 0; round < 2; ++round) {  // the second time it is empty already
    const Times times({"directory", "directory/file"});
    ok(open_and_close("directory/file", O_WRONLY | O_TRUNC));
    times.expect("directory", kNothing);
    times.expect("directory/file", kContent);
    equal(attributes("directory/file").st_size, 0);
  }
}

TEST_CASE_FIXTURE(Place, "ETXTBSY: a program that runs is not written, one that is written does not run") {
  write_file("program", read_file("/bin/cat"));
  REQUIRE(::chmod("program", 0755) == 0);
  {
    const Child child("./program");
    for (const int flags : {O_WRONLY, O_RDWR, O_WRONLY | O_APPEND, O_WRONLY | O_TRUNC, O_RDONLY | O_TRUNC}) {
      INFO("flags: ", flags);
      fails(ETXTBSY, open_and_close("program", flags));
    }
    fails(ETXTBSY, ::truncate("program", 0));
    ok(open_and_close("program", O_RDONLY));
    ok(::rename("program", "other"));
    ok(::unlink("other"));
  }
  write_file("program", read_file("/bin/cat"));
  REQUIRE(::chmod("program", 0755) == 0);
  const Open writer("program", O_WRONLY);
  std::array<char*, 2> words = {const_cast<char*>("program"), nullptr};
  fails(ETXTBSY, ::execv("./program", words.data()));
}

TEST_CASE_FIXTURE(Place, "execve: EACCES without the right, for directories and for other types") {
  write_file("program", "#!/bin/sh\n");
  std::array<char*, 2> words = {const_cast<char*>("program"), nullptr};
  for (const mode_t mode : {0U, 0644U, 0666U}) {
    REQUIRE(::chmod("program", mode) == 0);
    fails(EACCES, ::execv("./program", words.data()));
    fails(EACCES, as(kStranger, [&] { return ::execv("./program", words.data()); }));
  }
  REQUIRE(::chmod("program", 0710) == 0);
  fails(EACCES, as(kStranger, [&] { return ::execv("./program", words.data()); }));
  for_kinds({Kind::kDirectory, Kind::kFifo, Kind::kSocket, Kind::kBlock, Kind::kCharacter}, [&](Kind kind) {
    make(kind, name_of(kind), 0777);
    fails(EACCES, ::execv(name_of(kind).c_str(), words.data()));
  });
  write_file("text", "no program");
  REQUIRE(::chmod("text", 0755) == 0);
  fails(ENOEXEC, ::execv("./text", words.data()));
}

TEST_CASE_FIXTURE(Place, "Unlinked files live while they are open") {
  make(Kind::kDirectory, "directory");
  write_file("file", "content");
  const Open file("file", O_RDWR);
  ok(::link("file", "directory/file"));
  ok(::unlink("file"));
  struct stat found {};
  ok(::fstat(file.number(), &found));
  equal(found.st_nlink, 1);
  ok(::unlink("directory/file"));
  ok(::rmdir("directory"));
  ok(::fstat(file.number(), &found));
  equal(found.st_nlink, 0);
  equal(found.st_size, 7);
  std::string buffer(7, '\0');
  equal(::pread(file.number(), buffer.data(), 7, 0), 7);
  equal(buffer, "content");
  equal(::pwrite(file.number(), "more", 4, 7), 4);
  ok(::ftruncate(file.number(), 9));
  ok(::fchmod(file.number(), 0600));
  ok(::fchown(file.number(), kOwner.uid, kOwner.gid));
  ok(::fsync(file.number()));
  ok(::fstat(file.number(), &found));
  equal(found.st_size, 9);
  equal(found.st_uid, kOwner.uid);
  equal(::pread(file.number(), buffer.data(), 7, 2), 7);
  equal(buffer, "ntentmo");
  // It is gone for good: a descriptor gives no new name.
  const std::string path = "/proc/self/fd/" + std::to_string(file.number());
  fails(ENOENT, ::linkat(AT_FDCWD, path.c_str(), AT_FDCWD, "again", AT_SYMLINK_FOLLOW));
  write_file("file", "another");
  ok(::fstat(file.number(), &found));
  equal(found.st_size, 9);
}

TEST_CASE_FIXTURE(Place, "A directory that was removed while it is open is empty, and nothing is made in it") {
  make(Kind::kDirectory, "directory");
  const Open directory("directory", O_RDONLY | O_DIRECTORY);
  ok(::rmdir("directory"));
  struct stat found {};
  ok(::fstat(directory.number(), &found));
  equal(found.st_nlink, 0);
  fails(ENOENT, ::openat(directory.number(), "new", O_CREAT | O_WRONLY, 0644));
  fails(ENOENT, ::mkdirat(directory.number(), "new", 0755));
  fails(ENOENT, ::mknodat(directory.number(), "new", S_IFIFO | 0644U, 0));
  fails(ENOENT, ::symlinkat("target", directory.number(), "new"));
  write_file("file", "content");
  fails(ENOENT, ::linkat(AT_FDCWD, "file", directory.number(), "new", 0));
  fails(ENOENT, ::renameat(AT_FDCWD, "file", directory.number(), "new"));
  fails(ENOENT, ::unlinkat(directory.number(), "file", 0));
  DIR* const stream = ::fdopendir(::dup(directory.number()));
  REQUIRE(stream != nullptr);
  while (const dirent* const entry = ::readdir(stream)) {
    const std::string name(entry->d_name);
    CHECK_MESSAGE((name == "." || name == ".."), name);
  }
  ::closedir(stream);
}

TEST_CASE_FIXTURE(Place, "O_TMPFILE: a file without a name, which may be given one") {
  const int number = ::open(".", O_TMPFILE | O_RDWR, 0640);
  REQUIRE(number >= 0);
  struct stat found {};
  ok(::fstat(number, &found));
  equal(found.st_nlink, 0);
  equal(found.st_mode, S_IFREG | 0640U);
  equal(names_in(".").size(), 0);
  const std::string path = "/proc/self/fd/" + std::to_string(number);
  ok(::linkat(AT_FDCWD, path.c_str(), AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
  equal(links_of("named"), 1);
  ::close(number);
  const int other = ::open(".", O_TMPFILE | O_EXCL | O_RDWR, 0640);
  REQUIRE(other >= 0);
  const std::string other_path = "/proc/self/fd/" + std::to_string(other);
  fails(ENOENT, ::linkat(AT_FDCWD, other_path.c_str(), AT_FDCWD, "other", AT_SYMLINK_FOLLOW));
  ::close(other);
  fails(EINVAL, open_and_close(".", O_TMPFILE | O_RDONLY));
  make(Kind::kRegular, "file");
  fails(ENOTDIR, open_and_close("file", O_TMPFILE | O_RDWR));
  make(Kind::kDirectory, "closed", 0555, kOwner);
  fails(EACCES, as(kOwner, [] { return open_and_close("closed", O_TMPFILE | O_RDWR); }));
}

TEST_CASE_FIXTURE(Place,
                  "read and write: descriptors that do not allow them, offsets, and the limit of a file's size") {
  write_file("file", "content");
  char byte = 0;
  {
    const Open reader("file", O_RDONLY);
    const Open writer("file", O_WRONLY);
    fails(EBADF, ::write(reader.number(), &byte, 1));
    fails(EBADF, ::read(writer.number(), &byte, 1));
    fails(EINVAL, ::pread(reader.number(), &byte, 1, -1));
    fails(EINVAL, ::pwrite(writer.number(), &byte, 1, -1));
    fails(EINVAL, ::lseek(reader.number(), -1, SEEK_SET));
    fails(EINVAL, ::lseek(reader.number(), 0, 99));
    equal(::pread(reader.number(), &byte, 1, 7), 0);
    equal(::pread(reader.number(), &byte, 1, 1LL << 40), 0);
    equal(::pread(reader.number(), &byte, 0, 0), 0);
  }
  const Times times({"file"});
  const Open writer("file", O_WRONLY);
  equal(::write(writer.number(), &byte, 0), 0);
  times.expect_untouched();
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const rlimit limit{100, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  equal(::pwrite(writer.number(), &byte, 1, 99), 1);
  fails(EFBIG, ::pwrite(writer.number(), &byte, 1, 100));
  fails(EFBIG, ::ftruncate(writer.number(), 101));
  fails(EFBIG, ::truncate("file", 101));
  const std::string long_content(20, 'x');
  equal(::pwrite(writer.number(), long_content.data(), 20, 90), 10);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  equal(attributes("file").st_size, 100);
}

TEST_CASE_FIXTURE(Place, "read, write and append: times and sizes") {
  write_file("file", "content");
  std::string buffer(16, '\0');
  {
    const Times times({"file"});
    const Open writer("file", O_WRONLY);
    equal(::pwrite(writer.number(), "C", 1, 0), 1);
    times.expect("file", kContent);
  }
  const Open writer("file", O_WRONLY | O_APPEND);
  equal(::write(writer.number(), "+", 1), 1);
  const Open other("file", O_WRONLY | O_APPEND);
  equal(::write(other.number(), "-", 1), 1);
  equal(::write(writer.number(), "*", 1), 1);
  equal(read_file("file"), "Content+-*");
  // A hole reads as zeros.
  const Open sparse("sparse", O_CREAT | O_RDWR);
  equal(::pwrite(sparse.number(), "end", 3, 100000), 3);
  equal(attributes("sparse").st_size, 100003);
  equal(::pread(sparse.number(), buffer.data(), 16, 5000), 16);
  equal(buffer, std::string(16, '\0'));
}

TEST_SUITE_END();

}  // namespace
}  // namespace tarnfs::conformance
