// Inside a NoWaitScope an operation that would wait changes nothing and says so.
#include <doctest/doctest.h>

#include <chrono>
#include <thread>

#include "fs/engine/waiting.h"
#include "tests/support/test_volume.h"

using namespace tarnfs;
using tarnfs::testing::TestVolume;

namespace {

template <class Answer>
bool would_wait(const Answer& answer) {
  return !answer.ok() && answer.error().code() == ErrorCode::kWouldWait;
}

}  // namespace

TEST_CASE("what is not in memory is not read there") {
  TestVolume test;
  test.make(kRootDirectory, "f");
  test.reopen();
  {
    const NoWaitScope scope;
    CHECK(would_wait(test.volume->lookup(kRootDirectory, "f")));
    CHECK(would_wait(test.volume->unlink(kRootDirectory, "f")));
    CHECK(would_wait(test.volume->make_node(kRootDirectory, "g", NewNode{.mode = 0100644})));
  }
  REQUIRE(test.volume->lookup(kRootDirectory, "f").ok());
  const NoWaitScope scope;
  CHECK(test.volume->lookup(kRootDirectory, "f").ok());
  CHECK(test.volume->lookup(kRootDirectory, "g").error().code() == ErrorCode::kNotFound);
  CHECK(test.volume->unlink(kRootDirectory, "f").ok());
}

TEST_CASE("the block of the inode file that a new inode will stand in is not read there") {
  TestVolume test;
  for (int i = 0; i < 20; ++i) test.make(kRootDirectory, "f" + std::to_string(i));
  test.reopen();
  const NewNode node{.mode = 0100644};
  REQUIRE_FALSE(test.volume->lookup(kRootDirectory, "new").ok());  // now the directory is in memory
  {
    const NoWaitScope scope;
    CHECK(would_wait(test.volume->make_node(kRootDirectory, "new", node)));
    CHECK(test.volume->lookup(kRootDirectory, "new").error().code() == ErrorCode::kNotFound);
  }
  REQUIRE(test.volume->make_node(kRootDirectory, "new", node).ok());
  const NoWaitScope scope;
  CHECK(test.volume->make_node(kRootDirectory, "newer", node).ok());
}

TEST_CASE("nobody waits there for space") {
  TestVolume test(2048);
  unsigned made = 0;
  for (; made < 100'000; ++made) {
    const NoWaitScope scope;
    const NewNode node{.mode = 0100644};
    const auto answer = test.volume->make_node(kRootDirectory, "f" + std::to_string(made), node);
    if (answer.ok()) continue;
    CHECK(would_wait(answer));
    break;
  }
  // Outside the scope the promises are turned into free blocks first.
  const auto once_more = test.volume->make_node(kRootDirectory, "f" + std::to_string(made), NewNode{.mode = 0100644});
  CHECK(once_more.ok());
}

TEST_CASE("nobody waits there for dirty memory to be written") {
  TestVolume test;
  test.options.dirty_limit_bytes = 1 << 20;
  test.reopen();
  const InodeNumber file = test.make(kRootDirectory, "f");
  const std::string text(1 << 16, 'x');
  bool put_off = false;
  for (std::uint64_t i = 0; i < 1000 && !put_off; ++i) {
    const NoWaitScope scope;
    put_off = would_wait(test.write(file, i * text.size(), text));
  }
  CHECK(put_off);
  CHECK(test.write(file, 0, text).ok());
}

TEST_CASE("scopes nest, and belong to their thread") {
  CHECK_FALSE(NoWaitScope::is_active());
  const NoWaitScope outer;
  {
    const NoWaitScope inner;
    NoWaitScope::put_off();
    CHECK(inner.is_put_off());
  }
  CHECK_FALSE(outer.is_put_off());
  CHECK(NoWaitScope::is_active());
}

TEST_CASE("a consistency point begins before what names were promised is all there is") {
  TestVolume test(32768);
  test.options.dirty_limit_bytes = std::uint64_t{8} << 30;
  test.reopen();
  const std::uint64_t cps_before = test.volume->status().cp_count;
  // Five blocks or more for each; a third of the volume is more than what is left then.
  for (unsigned n = 0; n < 5000 && test.volume->status().cp_count == cps_before; ++n) {
    const NoWaitScope scope;
    REQUIRE(test.volume->make_node(kRootDirectory, "f" + std::to_string(n), NewNode{.mode = 0100644}).ok());
  }
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (test.volume->status().cp_count == cps_before && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  CHECK(test.volume->status().cp_count > cps_before);
}

TEST_CASE("a changed inode counts as what it takes in memory, not as a page") {
  TestVolume test;
  test.make(kRootDirectory, "a");
  const std::uint64_t first_bytes = test.volume->status().dirty_bytes;
  test.make(kRootDirectory, "b");
  CHECK(test.volume->status().dirty_bytes - first_bytes == kBlockSize / 2);
  // The directory, its page, and the file.
  CHECK(first_bytes == 2 * kBlockSize);
}
