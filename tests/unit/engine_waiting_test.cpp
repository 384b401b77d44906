// Inside a NoWaitScope an operation that would wait changes nothing and says so.
#include <doctest/doctest.h>

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
