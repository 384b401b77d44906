// truncate(2), ftruncate(2), fallocate(2), posix_fallocate(3) and lseek(2).
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <limits>

#include "tests/conformance/ground.h"

namespace tarnfs::conformance {
namespace {

TEST_SUITE_BEGIN("read-write");

constexpr off_t kLargest = std::numeric_limits<off_t>::max();

TEST_CASE_FIXTURE(Place, "truncate and ftruncate: shorter, longer with zeros, and their times") {
  for (const bool by_descriptor : {false, true}) {
    INFO("by descriptor: ", by_descriptor);
    write_file("file", std::string(10000, 'x'));
    const Open file("file", O_RDWR);
    const auto resize = [&](off_t size) {
      return by_descriptor ? ::ftruncate(file.number(), size) : ::truncate("file", size);
    };
    std::string wanted(10000, 'x');
    for (const std::size_t size : {9999U, 5000U, 4096U, 4097U, 8192U, 100U, 20000U, 1U, 0U, 3U}) {
      INFO("size: ", size);
      const Times times({".", "file"});
      ok(resize(static_cast<off_t>(size)));
      times.expect("file", kContent);
      times.expect(".", kNothing);
      wanted.resize(size, '\0');
      equal(attributes("file").st_size, size);
      equal(read_file("file") == wanted, true);
    }
    const Times times({"file"});
    fails(EINVAL, resize(-1));
    fails(EINVAL, resize(std::numeric_limits<off_t>::min()));
    times.expect_untouched();
    ok(resize(1LL << 40));
    equal(attributes("file").st_size, 1LL << 40);
    equal(attributes("file").st_blocks < 64, true);
    ok(resize(0));
    // What the file system does not have is EFBIG.
    const long answer = resize(kLargest);
    fails_with_one_of({0, EFBIG}, answer);
    equal(attributes("file").st_size, answer == 0 ? kLargest : 0);
    ok(resize(0));
  }
}

TEST_CASE_FIXTURE(Place, "truncate of what is no regular file, and without the right") {
  make(Kind::kDirectory, "directory");
  fails(EISDIR, ::truncate("directory", 0));
  for_kinds({Kind::kFifo, Kind::kSocket, Kind::kBlock, Kind::kCharacter}, [](Kind kind) {
    make(kind, name_of(kind));
    fails(EINVAL, ::truncate(name_of(kind).c_str(), 0));
  });
  write_file("file", "content");
  REQUIRE(::chown("file", kOwner.uid, kOwner.gid) == 0);
  for (const User& user : {kOwner, kGroupMate, kSecondMate, kStranger}) {
    for (const mode_t mode : {0555U, 0222U}) {
      INFO("uid: ", user.uid, ", mode: ", mode);
      REQUIRE(::chmod("file", mode) == 0);
      fails(mode == 0222 ? 0 : EACCES, as(user, [] { return ::truncate("file", 7); }));
    }
  }
  const Open reader("file", O_RDONLY);
  fails_with_one_of({EINVAL, EBADF}, ::ftruncate(reader.number(), 0));
  const Open path("file", O_PATH);
  fails(EBADF, ::ftruncate(path.number(), 0));
  fails(EBADF, ::ftruncate(-1, 0));
  const Open directory("directory", O_RDONLY);
  fails(EINVAL, ::ftruncate(directory.number(), 0));
}

TEST_CASE_FIXTURE(Place, "fallocate: sizes, holes and zeros, and their times") {
  write_file("file", std::string(20000, 'x'));
  const Open file("file", O_RDWR);
  std::string wanted(20000, 'x');
  const auto check = [&](int mode, off_t offset, off_t length, bool zeroes, std::size_t size) {
    INFO("mode: ", mode, ", offset: ", offset, ", length: ", length);
    const Times times({"file"});
    ok(::fallocate(file.number(), mode, offset, length));
    times.expect("file", kContent);
    wanted.resize(size, '\0');
    const auto end = std::min(size, static_cast<std::size_t>(offset + length));
    for (auto i = static_cast<std::size_t>(offset); zeroes && i < end; ++i) wanted[i] = '\0';
    equal(attributes("file").st_size, size);
    equal(read_file("file") == wanted, true);
  };
  check(0, 100, 1000, false, 20000);
  check(0, 15000, 10000, false, 25000);
  check(FALLOC_FL_KEEP_SIZE, 20000, 30000, false, 25000);
  check(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4000, 5000, true, 25000);
  check(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 24000, 5000, true, 25000);
  check(FALLOC_FL_ZERO_RANGE, 1, 1, true, 25000);
  check(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 24999, 4096, true, 25000);
  check(FALLOC_FL_ZERO_RANGE, 24000, 6000, true, 30000);
}

TEST_CASE_FIXTURE(Place, "fallocate and posix_fallocate: what they refuse") {
  write_file("file", "content");
  const Open file("file", O_RDWR);
  const Times times({"file"});
  for (const auto& [offset, length] : {std::pair<off_t, off_t>{-1, 1}, {0, 0}, {0, -1}, {-1, 0}}) {
    fails(EINVAL, ::fallocate(file.number(), 0, offset, length));
    equal(::posix_fallocate(file.number(), offset, length), EINVAL);
  }
  fails(EFBIG, ::fallocate(file.number(), 0, kLargest, 1));
  equal(::posix_fallocate(file.number(), kLargest, 1), EFBIG);
  fails(EOPNOTSUPP, ::fallocate(file.number(), FALLOC_FL_PUNCH_HOLE, 0, 1));
  fails(EOPNOTSUPP, ::fallocate(file.number(), 0x4000, 0, 1));
  const Open reader("file", O_RDONLY);
  fails(EBADF, ::fallocate(reader.number(), 0, 0, 1));
  equal(::posix_fallocate(reader.number(), 0, 1), EBADF);
  fails(EBADF, ::fallocate(-1, 0, 0, 1));
  times.expect_untouched();
  make(Kind::kFifo, "fifo");
  const Open fifo("fifo", O_RDWR);
  fails(ESPIPE, ::fallocate(fifo.number(), 0, 0, 1));
  equal(::posix_fallocate(fifo.number(), 0, 1), ESPIPE);
  make(Kind::kDirectory, "directory");
  const Open directory("directory", O_RDONLY);
  fails(EBADF, ::fallocate(directory.number(), 0, 0, 1));
  equal(::posix_fallocate(file.number(), 3, 10), 0);
  equal(read_file("file"), std::string("content") + std::string(6, '\0'));
}

TEST_CASE_FIXTURE(Place, "lseek: data and holes") {
  write_file("file", "content");
  const Open file("file", O_RDWR);
  equal(::lseek(file.number(), 0, SEEK_DATA), 0);
  equal(::lseek(file.number(), 3, SEEK_DATA), 3);
  equal(::lseek(file.number(), 0, SEEK_HOLE), 7);
  fails(ENXIO, ::lseek(file.number(), 7, SEEK_DATA));
  fails(ENXIO, ::lseek(file.number(), 7, SEEK_HOLE));
  fails(ENXIO, ::lseek(file.number(), -1, SEEK_DATA));
  equal(::lseek(file.number(), 100, SEEK_SET), 100);
  equal(::lseek(file.number(), -50, SEEK_CUR), 50);
  fails(EINVAL, ::lseek(file.number(), -51, SEEK_CUR));
  fails(EINVAL, ::lseek(file.number(), -8, SEEK_END));
  equal(::lseek(file.number(), 0, SEEK_END), 7);
  make(Kind::kFifo, "fifo");
  const Open fifo("fifo", O_RDWR);
  fails(ESPIPE, ::lseek(fifo.number(), 0, SEEK_SET));
  fails(EBADF, ::lseek(-1, 0, SEEK_SET));
}

TEST_SUITE_END();

}  // namespace
}  // namespace tarnfs::conformance
