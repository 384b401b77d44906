// Access times as relatime has them, and none with noatime.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include "tests/support/test_volume.h"

using namespace tarnfs;
using tarnfs::testing::TestVolume;

namespace {

bool changes_access_time(TestVolume& test, InodeNumber file) {
  const Timestamp before = test.volume->attributes(file)->accessed;
  CHECK(test.read(file, 0, 10) == "content");
  return test.volume->attributes(file)->accessed != before;
}

}  // namespace

TEST_CASE("a read notes its time when the old one is not after the last change") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "f");
  REQUIRE(test.write(file, 0, "content").ok());
  // The clock may show the same time for some milliseconds.
  const auto access_after_change = [&](std::int64_t seconds) {
    AttributeChanges changes;
    changes.accessed = test.volume->attributes(file)->changed;
    changes.accessed->seconds += seconds;
    REQUIRE(test.volume->change_attributes(file, changes).ok());
  };
  access_after_change(-100);
  const Timestamp before = test.volume->attributes(file)->accessed;
  std::string content(7, '?');
  const auto out = std::as_writable_bytes(std::span(content));
  CHECK(test.volume->read(file, 0, out, {.notes_access = false}).value() == content.size());
  CHECK(test.volume->attributes(file)->accessed == before);
  CHECK(changes_access_time(test, file));
  access_after_change(100);
  CHECK_FALSE(changes_access_time(test, file));
}

// Only reads of files were noted.
TEST_CASE("listing a directory and reading a symlink note their time as well") {
  TestVolume test;
  const InodeNumber directory = test.make(kRootDirectory, "directory", S_IFDIR | 0755);
  const NewNode node{.mode = S_IFLNK | 0777, .symlink_target = "target"};
  const InodeNumber symlink = test.volume->make_node(kRootDirectory, "symlink", node)->inode;
  AttributeChanges changes;
  changes.accessed = Timestamp{1'000, 0};
  for (const InodeNumber inode : {directory, symlink}) REQUIRE(test.volume->change_attributes(inode, changes).ok());
  REQUIRE(test.volume->list(directory, 0, [](const DirectoryEntry& /*entry*/) { return true; }).ok());
  CHECK(test.volume->symlink_target(symlink).value() == "target");
  for (const InodeNumber inode : {directory, symlink}) {
    CHECK(test.volume->attributes(inode)->accessed.seconds > 1'000);
  }
}

TEST_CASE("without access times a read changes nothing") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "f");
  REQUIRE(test.write(file, 0, "content").ok());
  AttributeChanges changes;
  changes.accessed = Timestamp{1'000, 0};
  REQUIRE(test.volume->change_attributes(file, changes).ok());
  test.options.access_times = false;
  test.reopen();
  CHECK_FALSE(changes_access_time(test, file));
  CHECK(test.volume->status().dirty_bytes == 0);
}
