// Changes that are held back or refused while a mirror is away.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "fs/engine/waiting.h"
#include "tests/support/test_volume.h"

using namespace tarnfs;
using tarnfs::testing::TestVolume;

namespace {

// A change of each kind; each is done, or fails, and is then done again with other names.
std::vector<Status> changes_of(TestVolume& test, InodeNumber file, const std::string& suffix) {
  Volume& volume = *test.volume;
  const NewNode node{.mode = 0100644};
  AttributeChanges mode;
  mode.mode = 0600;
  AttributeChanges size;
  size.size_bytes = 10;
  const auto status_of = [](const auto& result) { return result.ok() ? Status() : Status(result.error()); };
  return {status_of(volume.make_node(kRootDirectory, "new" + suffix, node)),
          status_of(volume.link(file, kRootDirectory, "link" + suffix)),
          volume.rename(kRootDirectory, "gone" + suffix, kRootDirectory, "moved" + suffix, RenameMode::kReplace),
          test.write(file, 0, "text"),
          status_of(volume.change_attributes(file, mode)),
          status_of(volume.change_attributes(file, size)),
          volume.set_xattr(file, "user.a" + suffix, {}, XattrMode::kCreateOrReplace),
          volume.unlink(kRootDirectory, "moved" + suffix)};
}

struct Files {
  InodeNumber file;
  InodeNumber held;  // unlinked, and still held
};

// What changes_of() needs, and a file whose end is still to come.
Files make_files(TestVolume& test) {
  Files files{test.make(kRootDirectory, "name"), test.make(kRootDirectory, "held")};
  REQUIRE(test.write(files.file, 0, "before").ok());
  test.make(kRootDirectory, "gone1");
  REQUIRE(test.volume->unlink(kRootDirectory, "held").ok());
  return files;
}

}  // namespace

TEST_CASE("what is refused is refused whole, and reads, fsyncs and consistency points go on") {
  TestVolume test;
  const Files files = make_files(test);
  test.volume->set_changes(Changes::kRefused);
  for (const Status& change : changes_of(test, files.file, "1")) CHECK(change.error().code() == ErrorCode::kReadOnly);
  CHECK(test.read(files.file, 0, 100) == "before");
  CHECK(test.volume->fsync(files.file, false).ok());
  CHECK(test.volume->consistency_point().ok());
  // The name of this one went before: the rest follows.
  const std::uint64_t inodes = test.volume->usage().inode_count;
  test.volume->forget(files.held, 1);
  CHECK(test.volume->usage().inode_count == inodes - 1);
  test.volume->set_changes(Changes::kTaken);
  for (const Status& change : changes_of(test, files.file, "1")) CHECK(change.ok());
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.problems() == "");
}

TEST_CASE("what is held back is done when it may be, and nothing else waits") {
  TestVolume test;
  const Files files = make_files(test);
  test.volume->set_changes(Changes::kWait);
  {
    const NoWaitScope scope;
    for (const Status& change : changes_of(test, files.file, "1"))
      CHECK(change.error().code() == ErrorCode::kWouldWait);
  }
  std::atomic<bool> done{false};
  std::vector<Status> results;
  std::thread changer([&] {
    results = changes_of(test, files.file, "1");
    done = true;
  });
  CHECK(test.read(files.file, 0, 100) == "before");
  CHECK(test.volume->fsync(files.file, false).ok());
  CHECK(test.volume->consistency_point().ok());
  test.volume->forget(files.held, 1);
  CHECK_FALSE(done.load());
  CHECK(test.volume->lookup(kRootDirectory, "new1").error().code() == ErrorCode::kNotFound);
  test.volume->set_changes(Changes::kTaken);
  changer.join();
  for (const Status& change : results) CHECK(change.ok());
  CHECK(test.volume->lookup(kRootDirectory, "new1").ok());
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.problems() == "");
}

TEST_CASE("a change that is held back ends when it is refused, or the volume is shut down") {
  for (const bool refused : {true, false}) {
    TestVolume test;
    const InodeNumber file = test.make(kRootDirectory, "name");
    test.volume->set_changes(Changes::kWait);
    Status result;
    std::thread changer([&] { result = test.write(file, 0, "text"); });
    if (refused) {
      test.volume->set_changes(Changes::kRefused);
    } else {
      REQUIRE(test.volume->shut_down().ok());
    }
    changer.join();
    CHECK(result.error().code() == (refused ? ErrorCode::kReadOnly : ErrorCode::kIo));
  }
}
