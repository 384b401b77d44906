// Names are changed in the directory's pages themselves where nobody else has these: what a consistency point writes,
// what a mirror is still to be sent, and what an operation has refused stay as they were.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <array>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "common/checksum.h"
#include "tests/support/gated_block_device.h"
#include "tests/support/seed.h"
#include "tests/support/test_volume.h"

using namespace tarnfs;
using tarnfs::testing::GatedBlockDevice;
using tarnfs::testing::problems_of;
using tarnfs::testing::TestVolume;

namespace {

constexpr int kNames = 400;  // of a few leaves

std::string name_of(int number) {
  return "name " + std::to_string(number);
}

std::set<std::string> names_in(Volume& volume, InodeNumber directory) {
  std::set<std::string> names;
  const auto visit = [&](const DirectoryEntry& entry) { return names.emplace(entry.name), true; };
  const Status listed = volume.list(directory, 0, visit);
  REQUIRE_MESSAGE(listed.ok(), (listed.ok() ? "" : listed.error().describe()));
  names.erase(".");
  names.erase("..");
  return names;
}

// Removes a third of the names, renames a third, and adds as many new ones.
void change_names(Volume& volume, InodeNumber directory, int round) {
  for (int i = 0; i < kNames; i += 3) {
    const std::string tag = " of round " + std::to_string(round);
    const std::string last_tag = round == 0 ? "" : " of round " + std::to_string(round - 1);
    REQUIRE(volume.unlink(directory, name_of(i) + last_tag).ok());
    REQUIRE(volume.make_node(directory, name_of(i) + tag, NewNode{S_IFREG | 0644, 0, 0, {}, {}}).ok());
    REQUIRE(volume.rename(directory, name_of(i + 1) + last_tag, directory, name_of(i + 1) + tag, RenameMode::kReplace)
                .ok());
  }
}

void make_names(TestVolume& test, InodeNumber directory) {
  for (int i = 0; i <= kNames + 1; ++i) test.make(directory, name_of(i));
}

class KeepingFeed final : public ChangeFeed {
 public:
  void on_blocks(Cp /*cp*/, std::span<const BlockWrite> blocks) override {
    kept.insert(kept.end(), blocks.begin(), blocks.end());
  }
  void on_published(const RootBlock& /*root*/) override {}
  void on_adopted(const RootBlock& /*root*/, std::uint64_t /*received_bytes*/) override {}
  void on_pin_lost(const LostPin& /*lost*/) override {}

  std::vector<BlockWrite> kept;
};

}  // namespace

TEST_CASE("the names that a consistency point is writing stay as they were") {
  TestVolume test;
  const InodeNumber directory = test.make(kRootDirectory, "directory", S_IFDIR | 0755);
  make_names(test, directory);
  test.reopen();
  GatedBlockDevice gated(*test.device, GatedBlockDevice::Gate::kWrites);
  test.volume.reset();
  test.volume = Volume::open(gated, test.options).value();
  change_names(*test.volume, directory, 0);
  const std::set<std::string> written = names_in(*test.volume, directory);
  gated.close();
  std::thread consistency_point([&] { CHECK(test.volume->consistency_point().ok()); });
  gated.wait_for_a_write();
  change_names(*test.volume, directory, 1);
  const std::set<std::string> newer = names_in(*test.volume, directory);
  CHECK(newer != written);
  gated.open();
  consistency_point.join();
  const auto crashed = test.device->clone();
  CHECK(names_in(*test.volume, directory) == newer);
  CHECK(problems_of(*crashed).empty());
  CHECK(names_in(*Volume::open(*crashed, test.options).value(), directory) == written);
  REQUIRE(test.volume->close().ok());
  test.volume.reset();
  CHECK(problems_of(*test.device).empty());
}

TEST_CASE("the pages of directories that a mirror has not taken yet stay as they were") {
  KeepingFeed feed;
  TestVolume test;
  test.volume.reset();
  test.options.feed = &feed;
  test.open();
  const InodeNumber directory = test.make(kRootDirectory, "directory", S_IFDIR | 0755);
  make_names(test, directory);
  for (int round = 0; round < 5; ++round) {
    REQUIRE(test.volume->consistency_point().ok());
    change_names(*test.volume, directory, round);
  }
  REQUIRE(test.volume->close().ok());
  CHECK(feed.kept.size() > 50);
  for (const BlockWrite& block : feed.kept) CHECK(checksum_of(block.page.bytes()) == block.checksum);
}

TEST_CASE("a name whose removal is refused is still there, before and after a consistency point") {
  TestVolume test;
  const InodeNumber directory = test.make(kRootDirectory, "directory", S_IFDIR | 0755);
  const InodeNumber below = test.make(directory, "below", S_IFDIR | 0755);
  test.make(below, "file");
  for (const bool is_written : {false, true}) {
    CAPTURE(is_written);
    if (is_written) REQUIRE(test.volume->consistency_point().ok());
    CHECK(test.volume->unlink(directory, "below").error().code() == ErrorCode::kIsDirectory);
    CHECK(test.volume->remove_directory(directory, "below").error().code() == ErrorCode::kNotEmpty);
    CHECK(test.volume->remove_directory(below, "file").error().code() == ErrorCode::kNotDirectory);
    CHECK(test.volume->rename(directory, "below", below, "inside", RenameMode::kReplace).error().code() ==
          ErrorCode::kInvalid);
    CHECK(test.volume->rename(below, "file", directory, "below", RenameMode::kReplace).error().code() ==
          ErrorCode::kNotEmpty);
    CHECK(names_in(*test.volume, directory) == std::set<std::string>{"below"});
    CHECK(names_in(*test.volume, below) == std::set<std::string>{"file"});
    CHECK(test.volume->attributes(directory)->link_count == 3);
  }
  REQUIRE(test.volume->close().ok());
  CHECK(test.problems().empty());
}

// The locks of both are taken in the order of their numbers, which is then not the order in which they are found.
TEST_CASE("what is older than the directory that it is in can be removed from it") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  const InodeNumber old_directory = test.make(kRootDirectory, "old directory", S_IFDIR | 0755);
  const InodeNumber directory = test.make(kRootDirectory, "directory", S_IFDIR | 0755);
  REQUIRE(file < directory);
  REQUIRE(test.volume->rename(kRootDirectory, "file", directory, "file", RenameMode::kReplace).ok());
  REQUIRE(test.volume->rename(kRootDirectory, "old directory", directory, "below", RenameMode::kReplace).ok());
  CHECK(test.volume->unlink(directory, "below").error().code() == ErrorCode::kIsDirectory);
  CHECK(test.volume->unlink(directory, "file").ok());
  CHECK(test.volume->unlink(directory, "file").error().code() == ErrorCode::kNotFound);
  CHECK(test.volume->remove_directory(directory, "below").ok());
  test.volume->forget(file, 1);
  test.volume->forget(old_directory, 1);
  CHECK(names_in(*test.volume, directory).empty());
  REQUIRE(test.volume->close().ok());
  CHECK(test.problems().empty());
}

TEST_CASE("what is older than the directories that it is in can be renamed between them, over others and exchanged") {
  TestVolume test;
  Volume& volume = *test.volume;
  const InodeNumber old_file = test.make(kRootDirectory, "old file");
  const InodeNumber old_directory = test.make(kRootDirectory, "old directory", S_IFDIR | 0755);
  const InodeNumber a = test.make(kRootDirectory, "a", S_IFDIR | 0755);
  const InodeNumber b = test.make(kRootDirectory, "b", S_IFDIR | 0755);
  const InodeNumber young_file = test.make(kRootDirectory, "young file");
  const auto rename = [&](InodeNumber from, const char* from_name, InodeNumber to, const char* to_name,
                          RenameMode mode = RenameMode::kReplace) {
    const Status renamed = volume.rename(from, from_name, to, to_name, mode);
    return renamed.ok() ? std::string() : std::string(name_of(renamed.error().code()));
  };
  const auto inode_of = [&](InodeNumber directory, const char* name) {
    const auto found = volume.lookup(directory, name);
    if (!found.ok()) return InodeNumber{};
    volume.forget(found->inode, 1);
    return found->inode;
  };
  CHECK(rename(kRootDirectory, "old file", a, "file").empty());
  CHECK(rename(kRootDirectory, "young file", b, "file").empty());
  CHECK(rename(kRootDirectory, "old directory", a, "directory").empty());
  CHECK(inode_of(a, "directory") == old_directory);

  CHECK(rename(b, "file", a, "file", RenameMode::kExchange).empty());
  CHECK(inode_of(a, "file") == young_file);
  CHECK(inode_of(b, "file") == old_file);
  CHECK(rename(a, "directory", b, "file", RenameMode::kExchange).empty());
  CHECK(inode_of(b, "file") == old_directory);
  CHECK(volume.lookup(old_directory, "..")->inode == b);
  CHECK(rename(b, "file", a, "directory", RenameMode::kExchange).empty());

  REQUIRE(volume.link(old_file, a, "link").ok());
  CHECK(rename(a, "link", b, "file").empty());  // two names of one inode
  CHECK(rename(a, "link", b, "file", RenameMode::kExchange).empty());
  CHECK(names_in(volume, a) == std::set<std::string>{"directory", "file", "link"});

  CHECK(rename(a, "file", b, "file").empty());
  CHECK(inode_of(b, "file") == young_file);
  CHECK(volume.attributes(old_file)->link_count == 1);
  CHECK(rename(a, "link", b, "file").empty());
  CHECK(inode_of(b, "file") == old_file);
  CHECK(names_in(volume, a) == std::set<std::string>{"directory"});
  REQUIRE(volume.close().ok());
  CHECK(test.problems().empty());
}

TEST_CASE("a rename from a name to itself changes nothing, and says when there is no such name") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  for (const RenameMode mode : {RenameMode::kReplace, RenameMode::kExchange, RenameMode::kNoReplace}) {
    const Status same = test.volume->rename(kRootDirectory, "file", kRootDirectory, "file", mode);
    CHECK(same.ok() == (mode != RenameMode::kNoReplace));
    const Status missing = test.volume->rename(kRootDirectory, "none", kRootDirectory, "none", mode);
    CHECK(missing.error().code() == ErrorCode::kNotFound);
  }
  CHECK(test.volume->lookup(kRootDirectory, "file")->inode == file);
  REQUIRE(test.volume->close().ok());
  CHECK(test.problems().empty());
}

// In no order that the kernel would keep: what one thread finds another may have moved or removed by then.
TEST_CASE("threads that move and remove the same names leave a whole volume") {
  constexpr int kThreads = 3;
  constexpr int kTurns = 1500;
  constexpr unsigned kFiles = 8;
  TestVolume test;
  const std::array<InodeNumber, 2> directories{test.make(kRootDirectory, "one", S_IFDIR | 0755),
                                               test.make(kRootDirectory, "two", S_IFDIR | 0755)};
  const std::uint64_t seed = tarnfs::testing::printed_seed();
  const auto turn = [&](std::mt19937_64& random) {
    const InodeNumber from = directories[random() % 2];
    const InodeNumber to = directories[random() % 2];
    const std::string name = name_of(static_cast<int>(random() % kFiles));
    switch (random() % 4) {
      case 0:
        if (const auto made = test.volume->make_node(from, name, NewNode{S_IFREG | 0644, 0, 0, {}, {}}); made.ok()) {
          test.volume->forget(made->inode, 1);
        }
        return;
      case 1:
        (void)test.volume->unlink(from, name);
        return;
      case 2:
        (void)test.volume->rename(from, name, to, name_of(static_cast<int>(random() % kFiles)), RenameMode::kReplace);
        return;
      default:
        (void)test.volume->rename(from, name, to, name, RenameMode::kExchange);
        return;
    }
  };
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937_64 random(seed + static_cast<std::uint64_t>(thread));
      for (int i = 0; i < kTurns; ++i) {
        turn(random);
        if (thread == 0 && i % 100 == 0) CHECK(test.volume->consistency_point().ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  REQUIRE(test.volume->close().ok());
  CHECK(test.problems().empty());
}
