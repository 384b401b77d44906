// What is kept for a mirror is limited by size and by age, each pin for itself, and nothing is given up below.
#include <doctest/doctest.h>

#include <vector>

#include "tests/support/simulated_clock.h"
#include "tests/support/test_volume.h"

using namespace tarnfs;
using namespace tarnfs::testing;

namespace {

constexpr std::uint64_t kSecondNs = 1'000'000'000;
constexpr std::uint64_t kFileBlocks = 100;

// A volume with a clock that the test moves, and what its feed was told.
class LimitedVolume final : public ChangeFeed {
 public:
  explicit LimitedVolume(std::optional<std::uint64_t> size_bytes, std::uint64_t age_ms = 0,
                         std::uint64_t size_blocks = 16384)
      : test(size_blocks) {
    test.options.clock = &clock;
    test.options.feed = this;
    test.options.pin_size_bytes = size_bytes;
    test.options.pin_age_ms = age_ms;
    test.reopen();
    file_ = test.make(kRootDirectory, "file");
    rewrite();
  }

  void on_blocks(Cp, std::span<const BlockWrite>) override {}
  void on_published(const RootBlock&) override {}
  void on_adopted(const RootBlock&, std::uint64_t) override {}
  void on_pin_lost(const LostPin& lost) override {
    MutexLock lock(mutex_);
    lost_.push_back(lost);
  }

  std::vector<LostPin> lost() {
    MutexLock lock(mutex_);
    return lost_;
  }
  // One consistency point, which frees the file's blocks and some more.
  void rewrite(std::uint64_t blocks = kFileBlocks) {
    REQUIRE(test.write(file_, 0, std::string(blocks * kBlockSize, 'x')).ok());
    take_cp();
  }
  void take_cp() { REQUIRE(test.volume->consistency_point().ok()); }
  PinId pin_published() { return test.volume->pin_root(Cp{test.volume->newest_root().cp}); }
  std::uint64_t held_bytes() { return test.volume->status().held_blocks * kBlockSize; }
  // All that `root` refers to can still be read.
  bool is_whole(const RootBlock& root) {
    return test.volume->walk_changed(root, Cp{0}, [](const BlockWrite&) -> Status { return {}; }).ok();
  }

  SimulatedClock clock{1};
  TestVolume test;

 private:
  Mutex mutex_;
  std::vector<LostPin> lost_ TARNFS_GUARDED_BY(mutex_);
  InodeNumber file_;
};

}  // namespace

TEST_CASE("a pin is lost when it holds more than the limit, and not before") {
  constexpr std::uint64_t kLimitBytes = 450 * kBlockSize;
  LimitedVolume limited(kLimitBytes);
  const RootBlock root = limited.test.volume->newest_root();
  const PinId pin = limited.pin_published();
  std::uint64_t before_bytes = 0;
  std::uint64_t cps = 0;
  while (limited.lost().empty()) {
    before_bytes = limited.held_bytes();
    // It was not the size of the newest one that decided.
    CHECK(before_bytes == limited.test.volume->held_bytes(pin));
    CHECK(limited.is_whole(root));
    limited.rewrite();
    REQUIRE(++cps < 10);
  }
  CHECK(before_bytes > kLimitBytes);
  CHECK(before_bytes - kLimitBytes < 2 * kFileBlocks * kBlockSize);
  REQUIRE(limited.lost().size() == 1);
  const LostPin lost = limited.lost().front();
  CHECK(lost.pin == pin);
  CHECK(lost.cp == Cp{root.cp});
  CHECK(lost.why == PinLoss::kSize);
  CHECK(lost.held_bytes > before_bytes);
  CHECK(limited.held_bytes() == 0);
  CHECK(limited.test.volume->held_bytes(pin) == 0);
  for (int i = 0; i < 10; ++i) limited.rewrite();
  CHECK(limited.lost().size() == 1);
  CHECK(limited.held_bytes() == 0);
  limited.test.volume->move_pin(pin, Cp{limited.test.volume->newest_root().cp});
  limited.rewrite();
  CHECK(limited.held_bytes() >= kFileBlocks * kBlockSize);
  CHECK(limited.test.volume->held_bytes(pin) == limited.held_bytes());
  CHECK(limited.lost().size() == 1);
  CHECK(limited.test.problems() == "");
}

TEST_CASE("without a limit by size nothing is lost as long as there is space") {
  LimitedVolume limited(~std::uint64_t{0});
  const RootBlock root = limited.test.volume->newest_root();
  limited.pin_published();
  for (int i = 0; i < 60; ++i) limited.rewrite();
  CHECK(limited.held_bytes() > 6000 * kBlockSize);
  CHECK(limited.lost().empty());
  CHECK(limited.is_whole(root));
}

TEST_CASE("a quarter of the volume is kept by default") {
  LimitedVolume limited(std::nullopt);
  const std::uint64_t quarter_bytes = limited.test.volume->newest_root().size_blocks / 4 * kBlockSize;
  limited.pin_published();
  std::uint64_t before_bytes = 0;
  while (limited.lost().empty()) {
    before_bytes = limited.held_bytes();
    REQUIRE(before_bytes < 2 * quarter_bytes);
    limited.rewrite();
  }
  CHECK(before_bytes > quarter_bytes);
  CHECK(before_bytes < quarter_bytes + 2 * kFileBlocks * kBlockSize);
  CHECK(limited.lost().front().why == PinLoss::kSize);
}

TEST_CASE("what the newest consistency point freed does not count: a mirror that keeps up never loses its pin") {
  LimitedVolume limited(50 * kBlockSize);
  const PinId pin = limited.pin_published();
  for (int i = 0; i < 20; ++i) {
    limited.rewrite();
    CHECK(limited.test.volume->held_bytes(pin) >= kFileBlocks * kBlockSize);
    limited.take_cp();
    limited.test.volume->move_pin(pin, Cp{limited.test.volume->newest_root().cp});
  }
  CHECK(limited.lost().empty());
}

TEST_CASE("a pin is lost when its root was left for too long, without a consistency point too") {
  LimitedVolume limited(~std::uint64_t{0}, 60'000);
  const PinId pin = limited.pin_published();
  limited.clock.advance(1000 * kSecondNs);
  limited.take_cp();
  CHECK(limited.lost().empty());  // it is the newest root
  const Cp pinned{limited.test.volume->newest_root().cp};
  limited.rewrite();
  limited.clock.advance(59 * kSecondNs);
  limited.rewrite();
  CHECK(limited.lost().empty());
  limited.clock.advance(2 * kSecondNs);
  const Cp newest{limited.test.volume->newest_root().cp};
  limited.take_cp();
  CHECK(Cp{limited.test.volume->newest_root().cp} == newest);  // nothing had changed
  REQUIRE(limited.lost().size() == 1);
  const LostPin lost = limited.lost().front();
  CHECK(lost.pin == pin);
  CHECK(lost.cp == pinned);
  CHECK(lost.why == PinLoss::kAge);
  CHECK(lost.held_bytes >= 2 * kFileBlocks * kBlockSize);
  CHECK(lost.age_ns / kSecondNs == 61);
  limited.clock.advance(1000 * kSecondNs);
  limited.rewrite();
  CHECK(limited.lost().size() == 1);
  CHECK(limited.held_bytes() == 0);
}

TEST_CASE("a root that is being copied has no age") {
  LimitedVolume limited(~std::uint64_t{0}, 60'000);
  const PinnedRoot copied = limited.test.volume->pin_newest_root();
  limited.rewrite();
  limited.clock.advance(1000 * kSecondNs);
  limited.rewrite();
  CHECK(limited.lost().empty());
  CHECK(limited.is_whole(copied.root));
}

TEST_CASE("a mirror keeps by its own pin what another one has lost") {
  LimitedVolume limited(550 * kBlockSize, 60'000);
  const PinId far = limited.pin_published();
  for (int i = 0; i < 3; ++i) limited.rewrite();
  const RootBlock root = limited.test.volume->newest_root();
  const PinId near = limited.pin_published();
  const PinId same = limited.pin_published();
  for (int i = 0; i < 4; ++i) limited.rewrite();
  REQUIRE(limited.lost().size() == 1);
  CHECK(limited.lost().front().pin == far);
  CHECK(limited.test.volume->held_bytes(far) == 0);
  CHECK(limited.test.volume->held_bytes(near) == limited.held_bytes());
  CHECK(limited.test.volume->held_bytes(same) == limited.held_bytes());
  CHECK(limited.is_whole(root));
  limited.test.volume->unpin(same);
  limited.rewrite(1);
  CHECK(limited.is_whole(root));
  CHECK(limited.lost().size() == 1);
  // By age each one loses its own too.
  limited.test.volume->move_pin(far, Cp{limited.test.volume->newest_root().cp});
  limited.clock.advance(61 * kSecondNs);
  limited.rewrite(1);
  REQUIRE(limited.lost().size() == 2);
  CHECK(limited.lost().back().pin == near);
  CHECK(limited.test.volume->held_bytes(far) == limited.held_bytes());
}

TEST_CASE("a full volume gives all pins up, and says so of each once") {
  LimitedVolume limited(~std::uint64_t{0}, 0, 4096);
  const PinId first = limited.pin_published();
  const PinId second = limited.test.volume->pin_newest_root().pin;
  while (limited.lost().empty()) limited.rewrite();
  REQUIRE(limited.lost().size() == 2);
  CHECK(limited.lost().front().pin == first);
  CHECK(limited.lost().back().pin == second);
  CHECK(limited.lost().front().why == PinLoss::kSpace);
  for (int i = 0; i < 50; ++i) limited.rewrite();
  CHECK(limited.lost().size() == 2);
}

TEST_CASE("a volume without mirrors holds nothing and loses nothing") {
  LimitedVolume limited(0, 1);
  for (int i = 0; i < 5; ++i) {
    limited.rewrite();
    limited.clock.advance(kSecondNs);
    CHECK(limited.held_bytes() == 0);
  }
  CHECK(limited.lost().empty());
}
