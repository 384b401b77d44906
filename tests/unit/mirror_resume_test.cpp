// A copy that is cut off goes on where it was: what the mirror has is offered and compared, not sent again.
//
// A copy of 10 GiB has a window of 16 MiB of blocks that may be lost on the way; here the proportions are the same.
#include <doctest/doctest.h>

#include <atomic>

#include "mirror/wire/payload.h"
#include "tests/support/image_driver.h"
#include "tests/support/memory_channel.h"
#include "tests/support/mirror_pair.h"

using namespace tarnfs;
using namespace tarnfs::testing;

namespace {

constexpr std::uint64_t kFirst = 20;
constexpr std::uint64_t kCount = 960;

void small_window(SenderOptions& options) {
  options.batch_blocks_max = 1;
  options.window_bytes = kBlockSize;
  options.dead_ms = 60000;
}

// A volume with a first copy to come, and a count of what the primary puts on the wire.
struct Copy {
  Copy() {
    fill(primary, kFirst, kCount, 1001);
    primary.commit();
    network.set_filter([this](Message& message) {
      wire_bytes += message.size_bytes();
      const auto decoded = wire::decode(message.header);
      if (decoded.ok() && std::holds_alternative<wire::Blocks>(*decoded)) ++blocks_sent;
    });
  }

  FakePrimary primary;
  MemoryNetwork network;
  RecordingDisk disk;
  std::atomic<std::uint64_t> wire_bytes{0};
  std::atomic<std::uint64_t> blocks_sent{0};
};

std::uint64_t wire_bytes_of_a_whole_copy() {
  Copy copy;
  MirrorSide mirror(copy.primary.book(), copy.disk, copy.network.listen());
  PrimarySide sender(copy.primary, copy.network.connector(), small_window);
  REQUIRE(sender.wait_equal());
  check_equal(copy.primary, mirror);
  CHECK(copy.blocks_sent == kCount);
  return copy.wire_bytes;
}

bool wait_half(MirrorSide& mirror) {
  return mirror.wait([](const ReceiverStatus& status) { return status.received_bytes >= kCount / 2 * kBlockSize; });
}

}  // namespace

TEST_CASE("a cut in the middle of a first copy loses under a hundredth of the work") {
  const std::uint64_t whole_bytes = wire_bytes_of_a_whole_copy();
  for (const std::string_view what : {"connection", "mirror", "primary"}) {
    CAPTURE(what);
    Copy copy;
    std::optional<MirrorSide> mirror;
    std::optional<PrimarySide> sender;
    mirror.emplace(copy.primary.book(), copy.disk, copy.network.listen());
    sender.emplace(copy.primary, copy.network.connector(), small_window);
    REQUIRE(wait_half(*mirror));
    if (what == "connection") {
      copy.network.cut();
    } else if (what == "mirror") {
      mirror.reset();
      mirror.emplace(copy.primary.book(), copy.disk, copy.network.listen());
    } else {
      sender.reset();
      sender.emplace(copy.primary, copy.network.connector(), small_window);
    }
    CHECK_FALSE(mirror->target().root());
    REQUIRE(sender->wait_equal());
    check_equal(copy.primary, *mirror);
    MESSAGE("cut the " << what << ": sent " << copy.blocks_sent.load() << " blocks of " << kCount << ", "
                       << copy.wire_bytes.load() << " bytes instead of " << whole_bytes);
    CHECK(copy.blocks_sent <= kCount + kCount / 100);
    CHECK(copy.wire_bytes <= whole_bytes + whole_bytes / 100);
  }
}

TEST_CASE("what changed at the primary after the cut is sent, and nothing else") {
  Copy copy;
  MirrorSide mirror(copy.primary.book(), copy.disk, copy.network.listen());
  PrimarySide sender(copy.primary, copy.network.connector(), small_window);
  REQUIRE(wait_half(mirror));
  copy.network.set_reachable(false);
  copy.network.cut();
  const std::uint64_t before = copy.blocks_sent;
  fill(copy.primary, kFirst + 5, 20, 9001);
  copy.primary.remove(kFirst + 1);
  copy.primary.commit();
  copy.network.set_reachable(true);
  REQUIRE(sender.wait_equal());
  check_equal(copy.primary, mirror);
  const std::uint64_t lacking = kCount - std::min(kCount, before) + 20;
  CHECK(copy.blocks_sent - before >= lacking);
  CHECK(copy.blocks_sent - before <= lacking + 2);  // on their way when it was cut
}

TEST_CASE("a catch-up on top of a published state goes on too, where blocks have places of their own") {
  FakePrimary primary;
  fill(primary, kFirst, 300, 1001);
  primary.commit();
  MemoryNetwork network;
  RecordingDisk disk;
  MirrorSide mirror(primary.book(), disk, network.listen());
  PrimarySide sender(primary, network.connector(), small_window);
  REQUIRE(sender.wait_equal());
  network.set_reachable(false);
  network.cut();
  REQUIRE(sender.wait([](const SenderStatus& status) { return status.state == SenderState::kConnecting; }));
  fill(primary, kFirst + 250, 500, 5001);  // 50 of them at addresses of the published state
  primary.commit();
  const std::uint64_t before = sender.sender().status().sent_bytes;
  network.set_reachable(true);
  REQUIRE(mirror.wait([&](const ReceiverStatus& status) { return status.received_bytes >= 600 * kBlockSize; }));
  network.cut();
  REQUIRE(sender.wait_equal());
  check_equal(primary, mirror);
  const std::uint64_t sent = (sender.sender().status().sent_bytes - before) / kBlockSize;
  CHECK(sent >= 500);
  CHECK(sent <= 500 + 50 + 2);  // what was staged is dropped with the session
}

TEST_CASE("after a loss of power what the mirror still has counts, and nothing else") {
  std::mt19937_64 random(4711);
  Copy copy;
  {
    MirrorSide mirror(copy.primary.book(), copy.disk, copy.network.listen());
    copy.network.cut_at_message(kCount * 3 / 4);
    PrimarySide sender(copy.primary, copy.network.connector(), [](SenderOptions& options) {
      small_window(options);
      options.backoff_min_ms = options.backoff_max_ms = 60000;  // the copy stays cut off
    });
    REQUIRE(wait_half(mirror));
  }
  const auto log = copy.disk.log();
  for (int round = 0; round < 5; ++round) {
    RecordingDisk disk(RecordingDisk::after_power_loss({}, log, log.size(), random));
    MirrorSide mirror(copy.primary.book(), disk, copy.network.listen());
    const std::uint64_t before = copy.blocks_sent;
    PrimarySide sender(copy.primary, copy.network.connector(), small_window);
    REQUIRE(sender.wait_equal());
    check_equal(copy.primary, mirror);
    CHECK(copy.blocks_sent - before > kCount / 2);  // a third of the writes did not survive at all
    CHECK(copy.blocks_sent - before < kCount);
  }
}

TEST_CASE("an offer that breaks the rules ends the session, and changes nothing") {
  FakePrimary primary;
  fill(primary, kFirst, 10, 1001);
  primary.commit();
  RecordingDisk disk;
  OpenedMirror mirror(disk, primary);
  const auto refused = [&](Cp cp, std::vector<BlockPointer> blocks, std::uint32_t count) {
    REQUIRE(mirror.driver.begin().ok());
    Message message = wire::pack_offer(cp, blocks);
    const auto answer = mirror.image->compare(wire::Offer{cp, count}, message.payload);
    CHECK(answer.error().code() == ErrorCode::kCorrupt);
    CHECK(mirror.image->compare(wire::Offer{cp, 1}, message.payload).error().code() == ErrorCode::kCorrupt);
  };
  BlockPointer block;
  block.address = kFirst;
  refused(Cp{2}, {block}, 2);
  refused(Cp{2}, {block, block}, 1);
  refused(Cp{0}, {block}, 1);
  block.address = kVolumeBlocks;
  refused(Cp{2}, {block}, 1);
  block.address = 0;
  refused(Cp{2}, {block}, 1);
  REQUIRE(mirror.driver.begin().ok());
  REQUIRE(mirror.driver.catch_up().ok());
  CHECK(mirror.target.check().ok());
}

// A block that went to the staging file is written over what is in place, however well that fits what is offered then.
TEST_CASE("what is in place does not count where something is staged") {
  FakePrimary primary;
  fill(primary, kFirst, 10, 1001);
  primary.commit();
  RecordingDisk disk;
  OpenedMirror mirror(disk, primary);
  REQUIRE(mirror.driver.begin().ok());
  REQUIRE(mirror.driver.catch_up().ok());
  primary.put(kFirst, 5001);
  const std::vector<BlockWrite> passing = primary.written();
  const Cp passed = primary.commit();
  REQUIRE(mirror.driver.send_blocks(passed, passing).ok());  // and its root never comes
  primary.put(kFirst, 1001, false);                          // what the mirror has there
  const std::vector<BlockWrite> again = primary.written();
  const Cp cp = primary.commit();
  BlockPointer block;
  block.address = kFirst;
  block.checksum = again.front().checksum;
  Message message = wire::pack_offer(cp, std::vector<BlockPointer>{block});
  const auto want = mirror.image->compare(wire::Offer{cp, 1}, message.payload);
  REQUIRE(want.ok());
  CHECK(want->bits == std::vector<std::uint8_t>{1});
  REQUIRE(mirror.driver.send_blocks(cp, again).ok());
  REQUIRE(mirror.driver.send_root(primary.newest_root()).ok());
  CHECK(mirror.target.root()->checksum == primary.newest_root().checksum);
  CHECK(mirror.target.check().ok());
}
