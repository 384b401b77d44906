// Damaged blocks of one file's tree and of the inode file: whoever needs them hears of it, everybody else goes on.
#include <doctest/doctest.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <sys/stat.h>

#include <array>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "common/format.h"
#include "fs/engine/posix_acl.h"
#include "fs/engine/xattr_set.h"
#include "fs/tree/block_tree.h"
#include "tests/support/test_volume.h"

using namespace tarnfs;
using tarnfs::testing::content_of;
using tarnfs::testing::TestVolume;

namespace {

constexpr std::uint64_t kSourcePages = 4096;
constexpr std::uint64_t kManyCopies = 17;  // of the source: more pages than are deleted at once

class DeviceBlocks final : public BlockSource {
 public:
  explicit DeviceBlocks(BlockDevice& device) : device_(device) {}
  Result<PageRef> get(const BlockPointer& pointer) override { return read_block(device_, pointer); }

 private:
  BlockDevice& device_;
};

// As the newest root has it.
InodeRecord record_of(TestVolume& test, InodeNumber number) {
  DeviceBlocks blocks(*test.device);
  const TreeRoot inode_file = tree_of(test.volume->newest_root().inode_file);
  const BlockPointer pointer = find_pointer(inode_file, number.value / kInodesPerBlock, blocks).value();
  InodeRecord record;
  std::memcpy(static_cast<void*>(&record), blocks.get(pointer)->data() + number.value % kInodesPerBlock * sizeof record,
              sizeof record);
  REQUIRE(record.number == number.value);
  return record;
}

// A file with `kManyCopies` times the source's blocks from `first_page` on, in the newest root.
InodeNumber make_large(TestVolume& test, std::uint64_t first_page) {
  const InodeNumber source = test.make(kRootDirectory, "source");
  const std::string chunk(256 * kBlockSize, 's');
  for (std::uint64_t done = 0; done < kSourcePages * kBlockSize; done += chunk.size()) {
    REQUIRE(test.write(source, done, chunk).ok());
  }
  REQUIRE(test.volume->consistency_point().ok());
  const InodeNumber large = test.make(kRootDirectory, "large");
  for (std::uint64_t i = 0; i < kManyCopies; ++i) {
    const std::uint64_t to = (first_page + i * kSourcePages) * kBlockSize;
    const std::uint64_t length = kSourcePages * kBlockSize;
    REQUIRE(test.volume->copy_range(source, 0, large, to, length).value() == length);
  }
  REQUIRE(test.volume->consistency_point().ok());
  REQUIRE(test.volume->attributes(large)->block_count > kManyCopies * kSourcePages);
  return large;
}

bool is_gone(TestVolume& test, InodeNumber number) {
  const auto attributes = test.volume->attributes(number);
  return !attributes.ok() && attributes.error().code() == ErrorCode::kStale;
}

// Returns their names. What is in each is its name.
std::vector<std::string> make_files(TestVolume& test, int count) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) {
    names.push_back("file " + std::to_string(i));
    REQUIRE(test.write(test.make(kRootDirectory, names.back()), 0, names.back()).ok());
  }
  return names;
}

// Of the block, or the node above it at `level`, that the next new inode would be written to.
Address place_of_next_inode(TestVolume& test, unsigned level) {
  DeviceBlocks blocks(*test.device);
  const RootBlock root = test.volume->newest_root();
  REQUIRE(root.next_inode % kInodesPerBlock != 0);
  const TreeRoot inode_file = tree_of(root.inode_file);
  REQUIRE(level <= inode_file.height);
  return Address{find_node(inode_file, root.next_inode / kInodesPerBlock, level, blocks)->address};
}

// Lets a user write who is not the owner: what is made in the directory gets attributes of its own.
Status set_default_acl(TestVolume& test, InodeNumber directory) {
  constexpr std::uint32_t kNoId = 0xffffffff;
  const std::array<AclEntry, 5> entries{AclEntry{ACL_USER_OBJ, 7, kNoId}, AclEntry{ACL_USER, 7, 1000},
                                        AclEntry{ACL_GROUP_OBJ, 5, kNoId}, AclEntry{ACL_MASK, 7, kNoId},
                                        AclEntry{ACL_OTHER, 0, kNoId}};
  const std::uint32_t version = POSIX_ACL_XATTR_VERSION;
  std::vector<std::byte> value(sizeof version + sizeof entries);
  std::memcpy(value.data(), &version, sizeof version);
  std::memcpy(value.data() + sizeof version, entries.data(), sizeof entries);
  return test.volume->set_xattr(directory, kDefaultAclName, value, XattrMode::kCreate);
}

// What takes a new inode number, of a node or of attributes.
using TakeNumber = Status (*)(TestVolume&);

Status make_named(TestVolume& test) {
  const auto made = test.volume->make_node(kRootDirectory, "new", NewNode{S_IFREG | 0644, 0, 0, {}, {}});
  return made.ok() ? test.write(made->inode, 0, "new") : made.error();
}
Status make_unnamed(TestVolume& test) {
  const auto made = test.volume->make_unnamed(kRootDirectory, NewNode{S_IFREG | 0644, 0, 0, {}, {}});
  if (!made.ok()) return made.error();
  TARNFS_TRY(test.write(made->inode, 0, "new"));
  const auto named = test.volume->link(made->inode, kRootDirectory, "new");
  return named.ok() ? Status() : named.error();
}
Status leave_behind(TestVolume& test) {
  const NewNode left{S_IFCHR, 0, 0, {}, {}};
  return test.volume->rename_leaving(kRootDirectory, "file 0", kRootDirectory, "new", RenameMode::kReplace, left);
}
Status set_first_attribute(TestVolume& test) {
  const InodeNumber file = test.volume->lookup(kRootDirectory, "file 1")->inode;
  TARNFS_TRY(test.volume->set_xattr(file, "user.new", {}, XattrMode::kCreate));
  return test.volume->fsync(file, false);
}
Status inherit_attributes(TestVolume& test) {
  const InodeNumber directory = test.volume->lookup(kRootDirectory, "directory")->inode;
  const auto made = test.volume->make_node(directory, "new", NewNode{S_IFREG | 0644, 0, 0, {}, {}});
  return made.ok() ? Status() : made.error();
}

// What one of these has done is there, and what was there before is too.
void check_new_and_old(TestVolume& test, TakeNumber take, const std::vector<std::string>& names) {
  for (std::size_t i = 1; i < 8; ++i) CHECK(content_of(*test.volume, names[i]) == names[i]);
  const auto inode_of = [&](InodeNumber directory, std::string_view name) {
    return test.volume->lookup(directory, name)->inode;
  };
  if (take == leave_behind) {
    CHECK(content_of(*test.volume, "new") == "file 0");
    CHECK(S_ISCHR(test.volume->lookup(kRootDirectory, "file 0")->mode));
  } else if (take == set_first_attribute) {
    CHECK(test.volume->xattr(inode_of(kRootDirectory, "file 1"), "user.new").ok());
  } else if (take == inherit_attributes) {
    CHECK(test.volume->xattr(inode_of(inode_of(kRootDirectory, "directory"), "new"), kAccessAclName).ok());
  } else {
    CHECK(test.volume->lookup(kRootDirectory, "new").ok());
  }
}

// That orphans are deleted takes a few.
void take_consistency_points(TestVolume& test) {
  for (int i = 0; i < 4; ++i) REQUIRE(test.volume->consistency_point().ok());
}

}  // namespace

// What lay below the damaged node stayed counted, so that the file never became small enough to be deleted, and one
// consistency point followed the other to make it smaller.
TEST_CASE("a file whose blocks all lie below a damaged node is deleted, and then there is peace") {
  TestVolume test;
  constexpr std::uint64_t kFirst = std::uint64_t{1} << 21;  // below the second pointer of a tree of height 3
  const InodeNumber large = make_large(test, kFirst);
  test.reopen();
  const InodeRecord record = record_of(test, large);
  REQUIRE(record.height == 3);
  test.device->damage(Address{record.pointers[1].address});
  AttributeChanges empty;
  empty.size_bytes = 0;
  REQUIRE(test.volume->change_attributes(large, empty).ok());
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.volume->attributes(large)->block_count == 0);
  REQUIRE(test.volume->lookup(kRootDirectory, "large").ok());
  REQUIRE(test.volume->unlink(kRootDirectory, "large").ok());
  test.volume->forget(large, 1);
  take_consistency_points(test);
  CHECK(is_gone(test, large));
  const std::uint64_t taken = test.volume->status().cp_count;
  take_consistency_points(test);
  CHECK(test.volume->status().cp_count == taken);
}

// A large file is cut down by parts. The node above the place of the cut could not be read, and the volume stopped,
// with this mount and with each one after it.
TEST_CASE("a large file with a damaged node is deleted, now or after a crash") {
  for (const bool crash : {false, true}) {
    for (const bool above_all : {true, false}) {
      CAPTURE(crash);
      CAPTURE(above_all);
      TestVolume test;
      const InodeNumber large = make_large(test, above_all ? 0 : 3 * (std::uint64_t{1} << 21) - kSourcePages);
      test.reopen();
      const InodeRecord record = record_of(test, large);
      REQUIRE(record.height == 3);
      test.device->damage(Address{record.pointers[above_all ? 0 : 2].address});
      REQUIRE(test.volume->lookup(kRootDirectory, "large").ok());
      REQUIRE(test.volume->unlink(kRootDirectory, "large").ok());
      REQUIRE(test.volume->fsync(kRootDirectory, false).ok());
      if (crash) {
        test.crash_and_reopen();
      } else {
        test.volume->forget(large, 1);
      }
      take_consistency_points(test);
      CHECK_FALSE(test.volume->status().stopped);
      test.crash_and_reopen();
      take_consistency_points(test);
      CHECK(is_gone(test, large));
      CHECK(content_of(*test.volume, "source").size() == kSourcePages * kBlockSize);
    }
  }
}

// The consistency point that was to write the new inode failed, with every mount again: the next number comes from the
// root.
TEST_CASE("a new inode does not go where the inode file cannot be read") {
  const std::array<TakeNumber, 5> ways{make_named, make_unnamed, leave_behind, set_first_attribute, inherit_attributes};
  for (const unsigned level : {0U, 1U}) {
    for (std::size_t way = 0; way < ways.size(); ++way) {
      CAPTURE(level);
      CAPTURE(way);
      TestVolume test;
      const InodeNumber directory = test.make(kRootDirectory, "directory", S_IFDIR | 0755);
      REQUIRE(set_default_acl(test, directory).ok());
      const auto names = make_files(test, level == 0 ? 20 : 2100);
      test.reopen();
      const std::uint64_t next_before = test.volume->newest_root().next_inode;
      const std::uint64_t covered = kInodesPerBlock << (kNodeShift * level);
      test.device->damage(place_of_next_inode(test, level));
      const Status taken = ways[way](test);
      REQUIRE_MESSAGE(taken.ok(), (taken.ok() ? "" : taken.error().describe()));
      REQUIRE(test.volume->fsync(kRootDirectory, false).ok());
      test.crash_and_reopen();
      check_new_and_old(test, ways[way], names);
      REQUIRE(test.volume->consistency_point().ok());
      CHECK(test.volume->newest_root().next_inode > (next_before / covered + 1) * covered);
      test.reopen();
      check_new_and_old(test, ways[way], names);
      test.make(kRootDirectory, "one more");
      CHECK(test.volume->consistency_point().ok());
      // fsck still tells of what is damaged, and of nothing that follows from the numbers that were left out.
      const std::string problems = test.problems();
      CHECK(problems.find("checksum") != std::string::npos);
      CHECK(problems.find("root block says") == std::string::npos);
    }
  }
}

// What fsync had promised was there, but no mount came that far: the consistency point at the end of recovery failed.
TEST_CASE("new files that the journal has are there, also when their place in the inode file has been damaged since") {
  for (const unsigned level : {0U, 1U}) {
    CAPTURE(level);
    TestVolume test;
    const auto names = make_files(test, level == 0 ? 20 : 2100);
    test.reopen();
    const Address damaged = place_of_next_inode(test, level);
    // More than the damaged block has room for: what was numbered behind it keeps its number, or makes way.
    const InodeNumber directory = test.make(kRootDirectory, "new directory", S_IFDIR | 0755);
    for (int i = 0; i < 40; ++i) {
      const std::string name = std::to_string(i);
      const InodeNumber file = test.make(directory, name);
      REQUIRE(test.write(file, 0, name).ok());
      REQUIRE(test.volume->set_xattr(file, "user.name", std::as_bytes(std::span(name)), XattrMode::kCreate).ok());
      REQUIRE(test.volume->fsync(file, false).ok());
    }
    const InodeNumber old_file = test.volume->lookup(kRootDirectory, names[1])->inode;
    REQUIRE(test.volume->set_xattr(old_file, "user.name", {}, XattrMode::kCreate).ok());
    REQUIRE(test.volume->fsync(old_file, false).ok());
    REQUIRE(test.volume->unlink(directory, "0").ok());
    REQUIRE(test.volume->rename(directory, "1", directory, "2", RenameMode::kReplace).ok());
    REQUIRE(test.volume->rename(directory, "3", kRootDirectory, names[2], RenameMode::kExchange).ok());
    REQUIRE(test.volume->link(test.volume->lookup(directory, "4")->inode, kRootDirectory, "linked").ok());
    REQUIRE(test.volume->fsync(directory, false).ok());
    test.device->damage(damaged);
    const auto check_all = [&](Volume& volume) {
      const InodeNumber there = volume.lookup(kRootDirectory, "new directory")->inode;
      CHECK_FALSE(volume.lookup(there, "0").ok());
      CHECK_FALSE(volume.lookup(there, "1").ok());
      std::set<std::uint64_t> numbers;
      for (int i = 4; i < 40; ++i) {
        const std::string name = std::to_string(i);
        const Attributes file = volume.lookup(there, name).value();
        CHECK(numbers.insert(file.inode.value).second);
        std::string text(file.size_bytes, '?');
        CHECK(volume.read(file.inode, 0, std::as_writable_bytes(std::span(text))).ok());
        CHECK(text == name);
        CHECK(volume.xattr(file.inode, "user.name").value() == name);
      }
      CHECK(volume.xattr(volume.lookup(there, "2")->inode, "user.name").value() == "1");
      CHECK(content_of(volume, names[2]) == "3");
      CHECK(content_of(volume, "linked") == "4");
      CHECK(volume.lookup(kRootDirectory, "linked")->link_count == 2);
      CHECK(volume.xattr(volume.lookup(kRootDirectory, names[1])->inode, "user.name").ok());
      CHECK(content_of(volume, names[3]) == names[3]);
    };
    {
      const auto copy = test.device->clone();
      VolumeOptions options;
      options.mode = VolumeMode::kReadOnly;
      const auto shown = Volume::open(*copy, options);
      REQUIRE(shown.ok());
      check_all(**shown);
    }
    test.crash_and_reopen();
    check_all(*test.volume);
    test.crash_and_reopen();
    check_all(*test.volume);
    test.make(kRootDirectory, "one more");
    CHECK(test.volume->consistency_point().ok());
    CHECK(test.problems().find("root block says") == std::string::npos);
  }
}

// It said which block, and nobody knows whose that is.
TEST_CASE("a mount that cannot do a file's changes again says which file") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  REQUIRE(test.write(file, 0, std::string(10 * kBlockSize, 'x')).ok());
  make_files(test, 20);
  test.reopen();
  Address damaged{record_of(test, file).pointers[0].address};
  SUBCASE("its tree") {}
  SUBCASE("itself") {
    DeviceBlocks blocks(*test.device);
    const TreeRoot inode_file = tree_of(test.volume->newest_root().inode_file);
    damaged = Address{find_pointer(inode_file, file.value / kInodesPerBlock, blocks)->address};
  }
  REQUIRE(test.write(file, kBlockSize, std::string(kBlockSize, 'y')).ok());
  REQUIRE(test.volume->fsync(file, false).ok());
  test.device->damage(damaged);
  const auto copy = test.device->clone();
  const auto opened = Volume::open(*copy, test.options);
  REQUIRE_FALSE(opened.ok());
  CHECK(opened.error().describe().find("inode " + std::to_string(file.value)) != std::string::npos);
}
