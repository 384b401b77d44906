// Immutable and append-only inodes: what cannot be done to them, and how many there are.
#include <doctest/doctest.h>
#include <linux/fs.h>
#include <sys/stat.h>

#include "tests/support/test_volume.h"

using namespace tarnfs;
using tarnfs::testing::TestVolume;

namespace {

Status set_flags(TestVolume& test, InodeNumber inode, std::uint32_t flags) {
  AttributeChanges changes;
  changes.flags = flags;
  const auto changed = test.volume->change_attributes(inode, changes);
  return changed.ok() ? Status() : Status(changed.error());
}

bool is_refused(TestVolume& test, InodeNumber inode, const AttributeChanges& changes) {
  const auto changed = test.volume->change_attributes(inode, changes);
  CHECK((changed.ok() || changed.error().code() == ErrorCode::kNotPermitted));
  return !changed.ok();
}

// As the newest root has it.
std::uint64_t protected_inodes(TestVolume& test) {
  REQUIRE(test.volume->consistency_point().ok());
  return test.volume->newest_root().protected_inodes;
}

}  // namespace

TEST_CASE("the root says how many inodes are immutable or append-only") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  const InodeNumber log = test.make(kRootDirectory, "log");
  const InodeNumber directory = test.make(kRootDirectory, "d", S_IFDIR | 0755);
  CHECK(protected_inodes(test) == 0);
  REQUIRE(set_flags(test, file, FS_IMMUTABLE_FL).ok());
  REQUIRE(set_flags(test, log, FS_APPEND_FL | FS_NODUMP_FL).ok());
  REQUIRE(set_flags(test, directory, FS_IMMUTABLE_FL | FS_APPEND_FL).ok());
  CHECK(protected_inodes(test) == 3);
  REQUIRE(set_flags(test, log, FS_APPEND_FL).ok());
  REQUIRE(set_flags(test, file, FS_APPEND_FL).ok());
  CHECK(protected_inodes(test) == 3);
  test.reopen();
  CHECK(test.problems() == "");
  REQUIRE(set_flags(test, directory, FS_NODUMP_FL).ok());
  CHECK(protected_inodes(test) == 2);
  REQUIRE(set_flags(test, log, 0).ok());
  REQUIRE(set_flags(test, file, 0).ok());
  CHECK(protected_inodes(test) == 0);
  CHECK(test.problems() == "");
}

TEST_CASE("a file without a name that is immutable is not counted any more when it is gone") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  REQUIRE(test.volume->unlink(kRootDirectory, "file").ok());
  REQUIRE(set_flags(test, file, FS_IMMUTABLE_FL).ok());
  CHECK(protected_inodes(test) == 1);
  test.volume->forget(file, 1);
  CHECK(protected_inodes(test) == 0);
  CHECK(test.problems() == "");
}

TEST_CASE("flags that only the journal has are counted after a crash") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  const InodeNumber other = test.make(kRootDirectory, "other");
  REQUIRE(set_flags(test, other, FS_IMMUTABLE_FL).ok());
  CHECK(protected_inodes(test) == 1);
  REQUIRE(set_flags(test, file, FS_APPEND_FL).ok());
  REQUIRE(test.volume->fsync(file, false).ok());
  REQUIRE(set_flags(test, other, 0).ok());
  REQUIRE(set_flags(test, file, FS_IMMUTABLE_FL).ok());
  REQUIRE(test.volume->fsync(other, false).ok());
  REQUIRE(test.volume->fsync(file, false).ok());
  test.crash_and_reopen();
  CHECK(test.volume->newest_root().protected_inodes == 1);
  CHECK(test.volume->attributes(file)->flags == FS_IMMUTABLE_FL);
  CHECK(test.volume->attributes(other)->flags == 0);
  CHECK(test.problems() == "");
}

TEST_CASE("an append-only inode keeps size, mode, owner and the times that somebody chooses") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "log");
  REQUIRE(set_flags(test, file, FS_APPEND_FL).ok());
  AttributeChanges size;
  size.size_bytes = 0;
  AttributeChanges mode;
  mode.mode = 0777;
  AttributeChanges owner;
  owner.uid = 1;
  AttributeChanges group;
  group.gid = 1;
  AttributeChanges times;
  times.accessed = times.modified = Timestamp{0, 0};
  AttributeChanges touched = times;
  times.sets_times = true;
  for (const AttributeChanges& changes : {size, mode, owner, group, times}) {
    CHECK(is_refused(test, file, changes));
  }
  CHECK_FALSE(is_refused(test, file, touched));
  REQUIRE(set_flags(test, file, FS_IMMUTABLE_FL).ok());
  for (const AttributeChanges& changes : {size, mode, owner, group, times, touched}) {
    CHECK(is_refused(test, file, changes));
  }
  touched.writes_back = true;
  CHECK_FALSE(is_refused(test, file, touched));
}

TEST_CASE("nothing is made in an immutable directory, with or without a name") {
  TestVolume test;
  const InodeNumber directory = test.make(kRootDirectory, "d", S_IFDIR | 0755);
  NewNode node;
  node.mode = S_IFREG | 0600;
  REQUIRE(set_flags(test, directory, FS_APPEND_FL).ok());
  CHECK(test.volume->make_node(directory, "file", node).ok());
  CHECK(test.volume->make_unnamed(directory, node).ok());
  REQUIRE(set_flags(test, directory, FS_IMMUTABLE_FL).ok());
  CHECK(test.volume->make_node(directory, "other", node).error().code() == ErrorCode::kNotPermitted);
  CHECK(test.volume->make_unnamed(directory, node).error().code() == ErrorCode::kNotPermitted);
}
