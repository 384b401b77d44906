// The engine's operations, what a consistency point keeps of them, and what a full or failing device leaves.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <set>
#include <thread>

#include "tests/support/test_volume.h"

using namespace tarnfs;
using tarnfs::testing::TestVolume;

namespace {

std::set<std::string> names_in(Volume& volume, InodeNumber directory) {
  std::set<std::string> names;
  const Status status = volume.list(directory, 0, [&](const DirectoryEntry& entry) {
    names.insert(std::string(entry.name));
    return true;
  });
  REQUIRE(status.ok());
  return names;
}

}  // namespace

TEST_CASE("a fresh volume is clean and empty") {
  TestVolume test;
  CHECK(names_in(*test.volume, kRootDirectory) == std::set<std::string>{".", ".."});
  CHECK(test.problems() == "");
  test.reopen();
  CHECK(test.volume->attributes(kRootDirectory)->link_count == 2);
}

TEST_CASE("what was written is read back from memory, from the image and after a remount") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  REQUIRE(test.write(file, 0, "hello").ok());
  REQUIRE(test.write(file, 10000, "world").ok());
  const auto check = [&] {
    CHECK(test.read(file, 0, 5) == "hello");
    CHECK(test.read(file, 9998, 100) == std::string(2, '\0') + "world");
    CHECK(test.read(file, 5, 3) == std::string(3, '\0'));
    CHECK(test.volume->attributes(file)->size_bytes == 10005);
  };
  check();
  REQUIRE(test.volume->consistency_point().ok());
  check();
  CHECK(test.problems() == "");
  test.reopen();
  check();
  CHECK(test.volume->lookup(kRootDirectory, "file")->inode == file);
}

TEST_CASE("a new file has as many blocks before it is written as after") {
  TestVolume test;
  for (const std::size_t pages : {1U, 5U, 100U, 513U, 1027U}) {
    const InodeNumber file = test.make(kRootDirectory, std::to_string(pages));
    for (std::size_t page = 0; page < pages; ++page) REQUIRE(test.write(file, page * kBlockSize, "x").ok());
    const std::uint64_t before = test.volume->attributes(file)->block_count;
    REQUIRE(test.volume->consistency_point().ok());
    CHECK(test.volume->attributes(file)->block_count == before);
  }
}

TEST_CASE("a crash goes back to the last consistency point") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "kept");
  REQUIRE(test.write(file, 0, "one").ok());
  REQUIRE(test.volume->consistency_point().ok());
  REQUIRE(test.write(file, 0, "two").ok());
  test.make(kRootDirectory, "lost");
  test.crash_and_reopen();
  CHECK(test.read(file, 0, 3) == "one");
  CHECK(test.volume->lookup(kRootDirectory, "lost").error().code() == ErrorCode::kNotFound);
  CHECK(test.problems() == "");
}

TEST_CASE("an fsync takes what it covers over a crash") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  REQUIRE(test.write(file, 0, "safe").ok());
  REQUIRE(test.volume->fsync(file, false).ok());
  const std::uint64_t writes = test.device->written_blocks();
  REQUIRE(test.volume->fsync(file, false).ok());
  CHECK(test.device->written_blocks() == writes);  // nothing to do the second time
  test.crash_and_reopen();
  CHECK(test.read(file, 0, 4) == "safe");
}

TEST_CASE("truncating cuts, zeroes the tail, and growing shows zeroes") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  REQUIRE(test.write(file, 0, std::string(20000, 'x')).ok());
  REQUIRE(test.volume->consistency_point().ok());
  AttributeChanges cut;
  cut.size_bytes = 5000;
  REQUIRE(test.volume->change_attributes(file, cut).ok());
  cut.size_bytes = 9000;
  REQUIRE(test.volume->change_attributes(file, cut).ok());
  const std::string expected = std::string(5000, 'x') + std::string(4000, '\0');
  CHECK(test.read(file, 0, 30000) == expected);
  test.reopen();
  CHECK(test.read(file, 0, 30000) == expected);
  CHECK(test.problems() == "");
}

TEST_CASE("holes: punching, seeking and sparse files of 16 TiB") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "sparse");
  const std::uint64_t far = (std::uint64_t{16} << 40) - 4096;
  REQUIRE(test.write(file, far, std::string(4096, 'z')).ok());
  REQUIRE(test.write(file, 0, std::string(3 * kBlockSize, 'a')).ok());
  FallocateOptions punch;
  punch.keep_size = punch.punch_hole = true;
  REQUIRE(test.volume->fallocate(file, 4096, 4096, punch).ok());
  const auto check = [&] {
    CHECK(*test.volume->seek(file, 0, SeekKind::kHole) == 4096);
    CHECK(*test.volume->seek(file, 4096, SeekKind::kData) == 8192);
    CHECK(*test.volume->seek(file, 12288, SeekKind::kData) == far);
    CHECK(*test.volume->seek(file, far, SeekKind::kHole) == far + 4096);
    CHECK(test.volume->seek(file, far + 4096, SeekKind::kData).error().code() == ErrorCode::kNoData);
    CHECK(test.read(file, far, 10) == std::string(10, 'z'));
  };
  check();
  test.reopen();
  check();
  CHECK(test.problems() == "");
}

TEST_CASE("an unlinked file lives while it is held, and its blocks come back after") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  REQUIRE(test.write(file, 0, std::string(1 << 20, 'x')).ok());
  REQUIRE(test.volume->consistency_point().ok());
  const std::uint64_t used = test.volume->status().root.used_blocks;
  REQUIRE(test.volume->unlink(kRootDirectory, "file").ok());
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.read(file, 0, 2) == "xx");
  CHECK(test.problems() == "");
  SUBCASE("forgotten") {
    test.volume->forget(file, 1);
  }
  SUBCASE("left by a crash") {
    test.crash_and_reopen();
  }
  REQUIRE(test.volume->consistency_point().ok());
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.volume->status().root.used_blocks + 250 < used);
  CHECK(test.volume->attributes(file).error().code() == ErrorCode::kStale);
  CHECK(test.problems() == "");
}

TEST_CASE("directories: links, renames and what they refuse") {
  TestVolume test;
  Volume& volume = *test.volume;
  const InodeNumber a = test.make(kRootDirectory, "a", S_IFDIR | 0755);
  const InodeNumber b = test.make(kRootDirectory, "b", S_IFDIR | 0755);
  const InodeNumber inner = test.make(a, "inner", S_IFDIR | 0755);
  const InodeNumber file = test.make(inner, "file");
  CHECK(volume.remove_directory(kRootDirectory, "a").error().code() == ErrorCode::kNotEmpty);
  CHECK(volume.unlink(kRootDirectory, "a").error().code() == ErrorCode::kIsDirectory);
  CHECK(volume.remove_directory(inner, "file").error().code() == ErrorCode::kNotDirectory);
  CHECK(volume.rename(kRootDirectory, "a", inner, "loop", RenameMode::kReplace).error().code() == ErrorCode::kInvalid);
  REQUIRE(volume.rename(a, "inner", b, "moved", RenameMode::kReplace).ok());
  CHECK(volume.attributes(a)->link_count == 2);
  CHECK(volume.attributes(b)->link_count == 3);
  CHECK(volume.lookup(inner, "..")->inode == b);
  REQUIRE(volume.link(file, a, "other").ok());
  CHECK(volume.attributes(file)->link_count == 2);
  CHECK(volume.rename(a, "other", inner, "file", RenameMode::kNoReplace).error().code() == ErrorCode::kExists);
  REQUIRE(volume.rename(kRootDirectory, "a", b, "moved", RenameMode::kExchange).ok());
  CHECK(volume.lookup(kRootDirectory, "a")->inode == inner);
  CHECK(volume.lookup(b, "moved")->inode == a);
  CHECK(volume.make_node(a, "other", NewNode{S_IFREG | 0600, 0, 0, {}, {}}).error().code() == ErrorCode::kExists);
  CHECK(volume.rename_leaving(a, "other", b, "moved", RenameMode::kExchange, NewNode{S_IFCHR, 0, 0, {}, {}})
            .error()
            .code() == ErrorCode::kInvalid);
  CHECK(volume.rename_leaving(a, "other", inner, "file", RenameMode::kNoReplace, NewNode{S_IFCHR, 0, 0, {}, {}})
            .error()
            .code() == ErrorCode::kExists);
  CHECK(volume.lookup(a, "other")->inode == file);
  CHECK(volume.make_node(a, std::string(256, 'n'), NewNode{S_IFREG, 0, 0, {}, {}}).error().code() ==
        ErrorCode::kNameTooLong);
  REQUIRE(volume.consistency_point().ok());
  CHECK(test.problems() == "");
  test.reopen();
  CHECK(names_in(*test.volume, a) == std::set<std::string>{".", "..", "other"});
}

TEST_CASE("symlinks short and long, device nodes, attributes and xattrs survive a remount") {
  TestVolume test;
  NewNode link;
  link.mode = S_IFLNK | 0777;
  const std::string long_target(3000, 't');
  link.symlink_target = "short";
  const InodeNumber near = test.volume->make_node(kRootDirectory, "near", link)->inode;
  link.symlink_target = long_target;
  const InodeNumber far = test.volume->make_node(kRootDirectory, "far", link)->inode;
  NewNode device;
  device.mode = S_IFCHR | 0600;
  device.device_major = 1;
  device.device_minor = 300;
  const InodeNumber null = test.volume->make_node(kRootDirectory, "null", device)->inode;
  const InodeNumber file = test.make(kRootDirectory, "file");
  AttributeChanges changes;
  changes.mode = 0640;
  changes.uid = 12;
  changes.modified = Timestamp{-5, 7};
  REQUIRE(test.volume->change_attributes(file, changes).ok());
  const std::string value(60000, 'v');
  REQUIRE(test.volume->set_xattr(file, "user.big", std::as_bytes(std::span(value)), XattrMode::kCreate).ok());
  REQUIRE(test.volume->set_xattr(file, "user.gone", {}, XattrMode::kCreate).ok());
  REQUIRE(test.volume->remove_xattr(file, "user.gone").ok());
  for (int round = 0; round < 2; ++round) {
    CHECK(*test.volume->symlink_target(near) == "short");
    CHECK(*test.volume->symlink_target(far) == long_target);
    CHECK(test.volume->attributes(null)->device_minor == 300);
    const Attributes attributes = test.volume->attributes(file).value();
    CHECK(attributes.mode == (S_IFREG | 0640));
    CHECK(attributes.uid == 12);
    CHECK(attributes.modified == Timestamp{-5, 7});
    CHECK(*test.volume->xattr(file, "user.big") == value);
    CHECK(*test.volume->xattr_names(file) == std::vector<std::string>{"user.big"});
    test.reopen();
  }
  CHECK(test.problems() == "");
}

TEST_CASE("a full volume refuses before it promises, and deleting works and helps") {
  TestVolume test(2048);
  const InodeNumber keep = test.make(kRootDirectory, "keep");
  REQUIRE(test.write(keep, 0, "kept").ok());
  const InodeNumber big = test.make(kRootDirectory, "big");
  const std::string chunk(65536, 'b');
  std::uint64_t written = 0;
  Status status;
  while ((status = test.write(big, written, chunk)).ok()) written += chunk.size();
  CHECK(status.error().code() == ErrorCode::kNoSpace);
  CHECK(written > std::uint64_t{1200} * 4096);
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.read(big, written - 3, 3) == "bbb");
  CHECK(test.problems() == "");
  REQUIRE(test.volume->unlink(kRootDirectory, "big").ok());
  test.volume->forget(big, 1);
  REQUIRE(test.volume->consistency_point().ok());
  const InodeNumber again = test.make(kRootDirectory, "again");
  CHECK(test.write(again, 0, std::string(std::size_t{600} * 4096, 'c')).ok());
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.read(keep, 0, 4) == "kept");
  CHECK(test.problems() == "");
}

TEST_CASE("thousands of small files fill and empty a volume again and again") {
  TestVolume test(4096);
  for (int round = 0; round < 3; ++round) {
    std::vector<std::pair<std::string, InodeNumber>> files;
    while (true) {
      const std::string name = "file" + std::to_string(files.size());
      const auto made = test.volume->make_node(kRootDirectory, name, NewNode{S_IFREG | 0600, 0, 0, {}, {}});
      if (!made.ok()) {
        CHECK(made.error().code() == ErrorCode::kNoSpace);
        break;
      }
      files.emplace_back(name, made->inode);
      if (!test.write(made->inode, 0, name).ok()) break;
    }
    CHECK(files.size() > 1500);
    for (const auto& [name, inode] : files) {
      REQUIRE(test.volume->unlink(kRootDirectory, name).ok());
      test.volume->forget(inode, 1);
    }
    REQUIRE(test.volume->consistency_point().ok());
    CHECK(test.problems() == "");
  }
  CHECK(test.volume->status().root.used_blocks < 20 + test.volume->superblock().journal_blocks);
}

TEST_CASE("after a failed write nothing is published and nothing changed any more") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  REQUIRE(test.write(file, 0, "good").ok());
  REQUIRE(test.volume->consistency_point().ok());
  const std::uint64_t cp = test.volume->status().root.cp;
  REQUIRE(test.write(file, 0, "lost").ok());
  test.device->fail_from_call(0);
  CHECK(test.volume->fsync(file, false).error().code() == ErrorCode::kIo);
  test.device->fail_from_call(std::nullopt);
  CHECK(test.volume->fsync(file, false).error().code() == ErrorCode::kIo);
  CHECK(test.write(file, 0, "no").error().code() == ErrorCode::kReadOnly);
  CHECK(test.volume->status().stopped);
  CHECK(test.volume->status().root.cp == cp);
  CHECK(test.read(file, 0, 4) == "lost");  // what is in memory can still be copied away
  test.crash_and_reopen();
  CHECK(test.read(file, 0, 4) == "good");
  CHECK(test.problems() == "");
}

TEST_CASE("a damaged block is an error of its file alone") {
  TestVolume test;
  const InodeNumber bad = test.make(kRootDirectory, "bad");
  const InodeNumber good = test.make(kRootDirectory, "good");
  REQUIRE(test.write(bad, 0, std::string(4096, 'b')).ok());
  REQUIRE(test.write(good, 0, "fine").ok());
  test.reopen();
  // The first block that the first consistency point gives out is the first file's data.
  const std::uint64_t first = test.first_block_behind_journal();
  for (std::uint64_t address = first; address < first + 100; ++address) {
    PageRef page = PageRef::uninitialised();
    REQUIRE(test.device->read(Address{address}, page.mutable_bytes()).ok());
    if (page.bytes()[0] == std::byte{'b'} && page.bytes()[4095] == std::byte{'b'})
      test.device->damage(Address{address});
  }
  CHECK(test.read(bad, 0, 4096).starts_with("error"));
  CHECK(test.read(good, 0, 4) == "fine");
  REQUIRE(test.write(good, 0, "also").ok());
  REQUIRE(test.volume->consistency_point().ok());
}

TEST_CASE("operations go on from many threads beside consistency points") {
  TestVolume test;
  constexpr int kThreads = 4;
  constexpr int kFiles = 300;
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const InodeNumber directory = test.make(kRootDirectory, "t" + std::to_string(t), S_IFDIR | 0755);
      for (int i = 0; i < kFiles; ++i) {
        const std::string name = std::to_string(i);
        const InodeNumber file = test.make(directory, name);
        const std::string text = name + " of " + std::to_string(t) + std::string(5000, 'x');
        TARNFS_ASSERT(test.write(file, 0, text).ok());
        if (i % 3 == 0) TARNFS_ASSERT(test.volume->unlink(directory, name).ok());
        if (i % 3 == 1)
          TARNFS_ASSERT(
              test.volume->rename(directory, name, kRootDirectory, name + "r" + std::to_string(t), RenameMode::kReplace)
                  .ok());
        TARNFS_ASSERT(test.read(file, 0, 10000) == text);
        if (i % 3 == 0) test.volume->forget(file, 1);
      }
    });
  }
  for (int i = 0; i < 50; ++i) REQUIRE(test.volume->consistency_point().ok());
  for (std::thread& thread : threads) thread.join();
  test.reopen();
  CHECK(test.problems() == "");
  CHECK(names_in(*test.volume, kRootDirectory).size() == 2 + kThreads + kThreads * kFiles / 3);
}

TEST_CASE("a read-only volume shows the last state and refuses changes") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  REQUIRE(test.write(file, 0, "text").ok());
  test.options.mode = VolumeMode::kReadOnly;
  test.reopen();
  const std::uint64_t writes = test.device->written_blocks();
  CHECK(test.read(file, 0, 4) == "text");
  CHECK(test.write(file, 0, "no").error().code() == ErrorCode::kReadOnly);
  CHECK(test.volume->unlink(kRootDirectory, "file").error().code() == ErrorCode::kReadOnly);
  CHECK(test.device->written_blocks() == writes);
}
