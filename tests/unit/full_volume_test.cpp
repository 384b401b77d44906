// A full volume: what is refused, what still has its space, and who waits for it.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/seed.h"
#include "tests/support/test_volume.h"

using namespace tarnfs;
using namespace tarnfs::testing;

namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

struct Name {
  std::string text;
  InodeNumber inode;
};

// Empty files, as many as there is space for.
std::vector<Name> fill_with_names(TestVolume& test) {
  std::vector<Name> names;
  while (true) {
    std::string text = "file" + std::to_string(names.size());
    const auto made = test.volume->make_node(kRootDirectory, text, NewNode{S_IFREG | 0600, 0, 0, {}, {}});
    if (!made.ok()) {
      CHECK(made.error().code() == ErrorCode::kNoSpace);
      return names;
    }
    names.push_back({std::move(text), made->inode});
  }
}

}  // namespace

TEST_CASE("what was accepted already is written from what is kept for it, and nothing else is") {
  TestVolume test(1 << 16);
  const InodeNumber file = test.make(kRootDirectory, "file");
  const InodeNumber big = test.make(kRootDirectory, "big");
  const std::string chunk(65536, 'b');
  const auto fill = [&](std::uint64_t offset, WriteOptions options) {
    while (test.volume->write(big, offset, bytes_of(chunk), options).ok()) offset += chunk.size();
    return offset;
  };
  const std::uint64_t filled_bytes = fill(0, {});
  const std::string content(2 << 20, 'c');
  const auto write_content = [&](WriteOptions options) {
    return test.volume->write(file, 0, bytes_of(content), options);
  };
  const WriteOptions accepted{.from_page_cache = true, .already_accepted = true};
  CHECK(write_content({.from_page_cache = true}).error().code() == ErrorCode::kNoSpace);
  REQUIRE(write_content(accepted).ok());
  CHECK(test.write(big, filled_bytes, "x").error().code() == ErrorCode::kNoSpace);
  CHECK(test.volume->usage().available_blocks == 0);
  REQUIRE(test.volume->fsync(file, false).ok());
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.read(file, 0, content.size()) == content);
  CHECK(fill(filled_bytes, accepted) > filled_bytes);
  // Deletions have what is kept for them, and then all is as before.
  REQUIRE(test.volume->unlink(kRootDirectory, "big").ok());
  test.volume->forget(big, 1);
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(write_content({}).ok());
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.problems() == "");
}

// A mode took as much as an ACL may need, whether there was one, and a name what others may fill.
TEST_CASE("modes, owners and names can be changed") {
  TestVolume test(1 << 16);
  const InodeNumber directory = test.make(kRootDirectory, "directory", S_IFDIR | 0755);
  const InodeNumber file = test.make(kRootDirectory, "file", S_IFREG | 04755);
  test.make(kRootDirectory, "other");
  const InodeNumber big = test.make(kRootDirectory, "big");
  const std::string chunk(65536, 'b');
  for (std::uint64_t offset = 0; test.volume->write(big, offset, bytes_of(chunk), {}).ok();) offset += chunk.size();
  AttributeChanges changes;
  changes.mode = 0640;
  changes.uid = 1000;
  CHECK(test.volume->change_attributes(file, changes).value().mode == (S_IFREG | 0640));
  const auto rename = [&](std::string_view from, InodeNumber to, std::string_view to_name) {
    return test.volume->rename(kRootDirectory, from, to, to_name, RenameMode::kReplace);
  };
  CHECK(rename("file", kRootDirectory, "file.1").ok());
  CHECK(rename("file.1", kRootDirectory, "other").ok());
  CHECK(rename("other", directory, "moved").ok());
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.problems() == "");
}

// A part of a block that two files share can be cut out of one of them only with a block more, for good.
TEST_CASE("what is cut out of shared blocks leaves deletions what they need") {
  TestVolume test(4096);
  const InodeNumber source = test.make(kRootDirectory, "source");
  const InodeNumber copy = test.make(kRootDirectory, "copy");
  const std::string content(600 * kBlockSize, 's');
  REQUIRE(test.write(source, 0, content).ok());
  REQUIRE(test.volume->consistency_point().ok());
  REQUIRE(test.volume->copy_range(source, 0, copy, 0, content.size()).value() == content.size());
  REQUIRE(test.volume->consistency_point().ok());
  const InodeNumber big = test.make(kRootDirectory, "big");
  const std::string chunk(kBlockSize, 'b');
  for (std::uint64_t offset = 0; test.volume->write(big, offset, bytes_of(chunk), {}).ok();) offset += chunk.size();
  const std::uint64_t first = kBlockSize + 1;
  SUBCASE("by holes") {
    const FallocateOptions punch{.keep_size = true, .punch_hole = true, .zero_range = false};
    for (std::uint64_t at = first; at < content.size(); at += kBlockSize) {
      if (!test.volume->fallocate(copy, at, 1, punch).ok()) break;
    }
  }
  SUBCASE("by zeroes") {
    const FallocateOptions zero{.keep_size = true, .punch_hole = false, .zero_range = true};
    for (std::uint64_t at = first; at < content.size(); at += kBlockSize) {
      if (!test.volume->fallocate(copy, at, 1, zero).ok()) break;
    }
  }
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.volume->unlink(kRootDirectory, "source").ok());
  test.volume->forget(source, 1);
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.problems() == "");
}

TEST_CASE("truncations inside of shared blocks leave deletions what they need") {
  constexpr int kFiles = 1000;
  TestVolume test(8192);
  const InodeNumber source = test.make(kRootDirectory, "source");
  REQUIRE(test.write(source, 0, std::string(4 * kBlockSize, 's')).ok());
  REQUIRE(test.volume->consistency_point().ok());
  std::vector<InodeNumber> copies;
  for (int i = 0; i < kFiles; ++i) {
    copies.push_back(test.make(kRootDirectory, "copy" + std::to_string(i)));
    REQUIRE(test.volume->copy_range(source, 0, copies.back(), 0, 4 * kBlockSize).value() == 4 * kBlockSize);
  }
  REQUIRE(test.volume->consistency_point().ok());
  const InodeNumber big = test.make(kRootDirectory, "big");
  const std::string chunk(kBlockSize, 'b');
  for (std::uint64_t offset = 0; test.volume->write(big, offset, bytes_of(chunk), {}).ok();) offset += chunk.size();
  AttributeChanges changes;
  changes.size_bytes = 4 * kBlockSize - 1;
  for (const InodeNumber copy : copies) {
    if (!test.volume->change_attributes(copy, changes).ok()) break;
  }
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.volume->unlink(kRootDirectory, "copy0").ok());
  changes.size_bytes = 0;
  CHECK(test.volume->change_attributes(copies.back(), changes).ok());
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.problems() == "");
}

// What a consistency point makes free goes to whoever asks first, and one deletion could lose to others again and again
// until it was refused.
TEST_CASE("names can be removed while what was removed before is forgotten") {
  TestVolume test(4096);
  std::vector<Name> names = fill_with_names(test);
  std::shuffle(names.begin(), names.end(), std::mt19937_64(printed_seed()));
  REQUIRE(test.volume->consistency_point().ok());
  std::atomic<std::size_t> removed{0};
  std::thread forgetter([&] {
    constexpr std::size_t kBehind = 1000;
    for (std::size_t i = 0; i < names.size(); ++i) {
      const std::size_t enough = std::min(i + kBehind, names.size());
      for (std::size_t now = removed; now < enough; now = removed) removed.wait(now);
      test.volume->forget(names[i].inode, 1);
    }
  });
  std::size_t refused = 0;
  for (const Name& name : names) {
    if (!test.volume->unlink(kRootDirectory, name.text).ok()) ++refused;
    ++removed;
    removed.notify_one();
  }
  forgetter.join();
  CHECK(refused == 0);
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.problems() == "");
}
