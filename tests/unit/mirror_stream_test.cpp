// The real sender against the real receiver over a network in memory, with all that can happen to it.
#include <doctest/doctest.h>

#include <atomic>
#include <thread>

#include "tests/support/memory_channel.h"
#include "tests/support/mirror_pair.h"

#include "mirror/wire/messages.h"

using namespace tarnfs;
using namespace tarnfs::testing;

namespace {

// Speaks to a receiver as a primary that knows no manners.
class RawPeer {
 public:
  explicit RawPeer(MemoryNetwork& network) : channel_(*network.connector()()) {}

  void send(const wire::AnyMessage& message) { send_bytes(wire::encode(message)); }
  void send_bytes(std::vector<std::byte> header) {
    Message message;
    message.header = std::move(header);
    REQUIRE(channel_->send(std::move(message)).ok());
  }
  template <class T>
  T expect() {
    for (;;) {
      const auto received = channel_->receive(kPatience);
      REQUIRE(received.ok());
      REQUIRE(received->has_value());
      const auto message = wire::decode((*received)->header);
      REQUIRE(message.ok());
      if (const auto* typed = std::get_if<T>(&*message)) return *typed;
      REQUIRE(std::holds_alternative<wire::Pong>(*message));
    }
  }

 private:
  std::unique_ptr<Channel> channel_;
};

wire::Hello hello_of(const FakePrimary& primary) {
  wire::Hello hello;
  const Superblock superblock = primary.superblock();
  hello.volume = volume_of(superblock);
  std::memcpy(hello.superblock.data(), &superblock, kBlockSize);
  hello.epoch = state_of(primary.newest_root()).epoch;
  hello.newest = Cp{primary.newest_root().cp};
  return hello;
}

}  // namespace

TEST_CASE("first copy, then live consistency points, each streamed without a walk") {
  FakePrimary primary;
  fill(primary, 20, 300, 1000);
  primary.commit();
  MemoryNetwork network;
  RecordingDisk disk;
  MirrorSide mirror(primary.book(), disk, network.listen());
  PrimarySide sender(primary, network.connector());
  REQUIRE(sender.wait_equal());
  check_equal(primary, mirror);
  REQUIRE(sender.wait_live());
  const std::uint64_t walks = primary.walks();
  CHECK(walks == 1);
  for (std::uint64_t round = 0; round < 20; ++round) {
    fill(primary, 400 + 10 * round, 10, 2001 + 20 * round);
    if (round % 5 == 0) REQUIRE(sender.wait([](const SenderStatus& status) { return status.queued_bytes == 0; }));
    const Cp cp = primary.commit();
    CHECK(sender.sender().wait_published(cp, kPatience).ok());
    check_equal(primary, mirror);
  }
  CHECK(primary.walks() == walks);
  const SenderStatus status = sender.sender().status();
  CHECK(status.state == SenderState::kLive);
  CHECK(status.sent_bytes == 500 * kBlockSize);
  CHECK(status.lag_cps == 0);
  CHECK(status.lag_bytes == 0);
  CHECK(status.lag_seconds == 0);
  CHECK(status.last_error.empty());
  CHECK(status.compression_ratio > 1);
  const ReceiverStatus seen = mirror.receiver().status();
  CHECK(seen.received_bytes == 500 * kBlockSize);
  CHECK(seen.published == state_of(primary.newest_root()));
  CHECK(seen.label == "test");
  CHECK(seen.connected);
}

TEST_CASE("the mirror's published root is pinned until it has a newer one, and no longer than the sender runs") {
  FakePrimary primary;
  fill(primary, 20, 10, 1000);
  primary.commit();
  MemoryNetwork network;
  RecordingDisk disk;
  MirrorSide mirror(primary.book(), disk, network.listen());
  {
    PrimarySide sender(primary, network.connector());
    REQUIRE(sender.wait_equal());
    REQUIRE(sender.wait_live());
    CHECK(primary.pins() == std::vector<Cp>{Cp{2}});
    fill(primary, 100, 10, 1);
    primary.commit();
    REQUIRE(sender.wait_equal());
    CHECK(primary.pins() == std::vector<Cp>{Cp{3}});
  }
  CHECK(primary.pins().empty());
}

TEST_CASE("blocks are sent before their consistency point ends") {
  FakePrimary primary;
  MemoryNetwork network;
  RecordingDisk disk;
  MirrorSide mirror(primary.book(), disk, network.listen());
  PrimarySide sender(primary, network.connector());
  REQUIRE(sender.wait_equal());
  REQUIRE(sender.wait_live());
  fill(primary, 100, 10, 1);
  REQUIRE(mirror.wait([](const ReceiverStatus& status) { return status.received_bytes == 10 * kBlockSize; }));
  CHECK(mirror.target().root()->cp == 1);
  primary.commit();
  REQUIRE(sender.wait_equal());
  check_equal(primary, mirror);
}

TEST_CASE("a full queue drops the cp's blocks, never waits, and the mirror catches up by a walk") {
  FakePrimary primary;
  MemoryNetwork network;
  RecordingDisk disk;
  MirrorSide mirror(primary.book(), disk, network.listen());
  PrimarySide sender(primary, network.connector(), [](SenderOptions& options) {
    options.queue_limit_bytes = 20 * kBlockSize;
    options.window_bytes = 4 * kBlockSize;
    options.batch_blocks_max = 2;
    options.dead_ms = 60000;
  });
  REQUIRE(sender.wait_equal());
  REQUIRE(sender.wait_live());
  network.hold(true);
  for (std::uint64_t round = 0; round < 5; ++round) {
    fill(primary, 100 + 40 * round, 40, 5000 + 100 * round);
    primary.commit();
  }
  const SenderStatus behind = sender.sender().status();
  CHECK(behind.overflow_count > 0);
  CHECK(behind.queued_bytes <= 20 * kBlockSize);
  CHECK(behind.lag_cps == 5);
  CHECK(behind.lag_bytes == 200 * kBlockSize);
  CHECK(mirror.target().root()->cp == 1);
  network.hold(false);
  REQUIRE(sender.wait_equal());
  check_equal(primary, mirror);
  CHECK(primary.walks() >= 1);
  REQUIRE(sender.wait_live());
  fill(primary, 400, 5, 1);
  primary.commit();
  REQUIRE(sender.wait_equal());
  check_equal(primary, mirror);
}

TEST_CASE("the connection breaks at every message in turn, and the mirror gets there all the same") {
  for (std::uint64_t cut = 0; cut < 24; ++cut) {
    CAPTURE(cut);
    FakePrimary primary;
    fill(primary, 20, 20, 1000);
    primary.commit();
    MemoryNetwork network;
    RecordingDisk disk;
    MirrorSide mirror(primary.book(), disk, network.listen());
    network.cut_at_message(cut);
    PrimarySide sender(primary, network.connector(), [](SenderOptions& options) { options.batch_blocks_max = 4; });
    for (std::uint64_t round = 0; round < 3; ++round) {
      fill(primary, 100 + 20 * round, 12, 3000 + 100 * round);
      REQUIRE(sender.wait([](const SenderStatus& status) { return status.state == SenderState::kLive; }));
      primary.commit();
      REQUIRE(sender.wait_equal());
      check_equal(primary, mirror);
    }
  }
}

TEST_CASE("addresses that were used again while the mirror was away are staged, and readers see one state throughout") {
  FakePrimary primary;
  fill(primary, 20, 100, 1000);
  primary.commit();
  MemoryNetwork network;
  RecordingDisk disk;
  MirrorSide mirror(primary.book(), disk, network.listen());
  PrimarySide sender(primary, network.connector());
  REQUIRE(sender.wait_equal());
  network.set_reachable(false);
  network.cut();
  REQUIRE(sender.wait([](const SenderStatus& status) { return status.state == SenderState::kConnecting; }));
  for (std::uint64_t round = 0; round < 4; ++round) {
    fill(primary, 20 + 10 * round, 30, 7000 + 100 * round);
    primary.remove(100 + round);
    primary.commit();
  }
  std::atomic<bool> done{false};
  std::thread reader([&] {
    // A reader that began on a state may see it go; one that begins anew must not fail.
    while (!done.load()) {
      const auto shown = mirror.target().root();
      const bool whole = mirror.target().check().ok();
      const bool moved = mirror.target().root()->checksum != shown->checksum;
      if (!whole && !moved) FAIL_CHECK("a reader of the mirror saw a state that is none");
    }
  });
  network.set_reachable(true);
  sender.sender().reconnect_now();
  CHECK(sender.wait_equal());
  done.store(true);
  reader.join();
  check_equal(primary, mirror);
  CHECK_FALSE(disk.exists(RecordingDisk::File::kStaging));
}

TEST_CASE("sender and receiver restart, and go on from the published root") {
  FakePrimary primary;
  fill(primary, 20, 50, 1000);
  primary.commit();
  MemoryNetwork network;
  RecordingDisk disk;
  {
    MirrorSide mirror(primary.book(), disk, network.listen());
    PrimarySide sender(primary, network.connector());
    REQUIRE(sender.wait_equal());
  }
  fill(primary, 200, 10, 3001);
  primary.commit();
  MirrorSide mirror(primary.book(), disk, network.listen());
  CHECK(mirror.target().root()->cp == 2);
  PrimarySide sender(primary, network.connector());
  REQUIRE(sender.wait_equal());
  check_equal(primary, mirror);
  CHECK(sender.sender().status().sent_bytes == 10 * kBlockSize);
}

TEST_CASE("a mirror of an ended epoch is brought forward; one beyond its end has diverged and keeps its data") {
  for (const bool beyond : {false, true}) {
    CAPTURE(beyond);
    FakePrimary primary;
    fill(primary, 20, 10, 1000);
    primary.commit();
    MemoryNetwork network;
    RecordingDisk disk;
    MirrorSide mirror(primary.book(), disk, network.listen());
    {
      PrimarySide sender(primary, network.connector());
      REQUIRE(sender.wait_equal());
    }
    const RootBlock before = *mirror.target().root();
    primary.begin_epoch(50, Cp{beyond ? 1U : 2U});
    fill(primary, 100, 10, 2001);
    primary.commit();
    PrimarySide sender(primary, network.connector());
    if (!beyond) {
      REQUIRE(sender.wait_equal());
      check_equal(primary, mirror);
      continue;
    }
    CHECK(sender.sender().wait_published(Cp{3}, kPatience).error().code() == ErrorCode::kRefused);
    const SenderStatus status = sender.sender().status();
    CHECK(name_of(status.state) == "diverged");
    CHECK(status.last_error.find("diverged") != std::string::npos);
    CHECK(mirror.target().root()->checksum == before.checksum);
    CHECK(mirror.target().check().ok());
    CHECK(primary.pins().empty());
  }
}

TEST_CASE("a primary that went back to an older state and then on from there has diverged from its mirror") {
  FakePrimary primary;
  MemoryNetwork network;
  RecordingDisk disk;
  MirrorSide mirror(primary.book(), disk, network.listen());
  fill(primary, 20, 10, 1000);
  primary.commit();
  fill(primary, 40, 10, 2000);
  primary.commit();
  {
    PrimarySide sender(primary, network.connector());
    REQUIRE(sender.wait_equal());
  }
  // As from a copy of the image, made at its first cp, while the mirror was away.
  for (const int cps_more : {1, 5}) {
    FakePrimary restored;
    fill(restored, 20, 12, 3000);
    restored.commit();
    restored.commit();
    for (int i = 0; i < cps_more; ++i) restored.commit();
    REQUIRE(restored.newest_root().cp == primary.newest_root().cp + cps_more);
    PrimarySide sender(restored, network.connector());
    CHECK(sender.sender().wait_published(Cp{restored.newest_root().cp}, kPatience).error().code() ==
          ErrorCode::kRefused);
    CHECK(sender.sender().status().state == SenderState::kDiverged);
    check_equal(primary, mirror);
  }
}

// Only the number of the mirror's cp was compared then: the blocks born up to it were not sent, though they were others
// at the mirror, and it became a mixture.
TEST_CASE("a primary that went back to an older state, too long ago for its ring, compares its mirror in full") {
  FakePrimary primary;
  fill(primary, 20, 10, 1000);
  primary.commit();
  const FakePrimary::ImageCopy copy = primary.copy_image();
  MemoryNetwork network;
  RecordingDisk disk;
  MirrorSide mirror(primary.book(), disk, network.listen());
  fill(primary, 40, 10, 2000);
  primary.commit();
  fill(primary, 45, 10, 2100);
  primary.commit();
  {
    PrimarySide sender(primary, network.connector());
    REQUIRE(sender.wait_equal());
  }
  const std::uint64_t mirror_cp = primary.newest_root().cp;
  primary.restore(copy);
  fill(primary, 40, 12, 3000);
  primary.commit();
  while (primary.newest_root().cp <= mirror_cp + kRootSlots) primary.commit();
  PrimarySide sender(primary, network.connector());
  REQUIRE(sender.wait_equal());
  check_equal(primary, mirror);
  // What both have was not sent again.
  CHECK(sender.sender().status().sent_bytes == 12 * kBlockSize);
  // It is noted right after the mirror has said that it has the state.
  CHECK(sender.wait([](const SenderStatus& status) { return !status.compare_due; }));
}

TEST_CASE("a mirror that was away for long is sent what differs, and is compared only where nobody knows its root") {
  enum class Since { kSameMount, kSameMountUnheard, kNewEpoch, kNewMount };
  for (const Since since : {Since::kSameMount, Since::kSameMountUnheard, Since::kNewEpoch, Since::kNewMount}) {
    CAPTURE(static_cast<int>(since));
    FakePrimary primary;
    primary.begin_epoch(50, Cp{1});
    fill(primary, 20, 100, 1000);
    primary.commit();
    MemoryNetwork network;
    RecordingDisk disk;
    MirrorSide mirror(primary.book(), disk, network.listen());
    std::optional<PrimarySide> sender;
    sender.emplace(primary, network.connector());
    REQUIRE(sender->wait_equal());
    REQUIRE(sender->wait_live());
    if (since == Since::kSameMountUnheard) {
      network.lose_answers(true);
      const Cp cp = primary.commit();
      REQUIRE(mirror.wait([cp](const ReceiverStatus& status) { return status.published.cp == cp; }));
    }
    network.set_reachable(false);
    network.cut();
    network.lose_answers(false);
    REQUIRE(sender->wait([](const SenderStatus& status) { return status.state == SenderState::kConnecting; }));
    const bool is_new_mount = since == Since::kNewMount || since == Since::kNewEpoch;
    if (is_new_mount) sender.reset();
    if (since == Since::kNewEpoch) primary.begin_epoch(51, Cp{primary.newest_root().cp});
    for (std::uint64_t round = 0; round < kRootSlots + 3; ++round) {
      fill(primary, 40, 10, 5000 + 100 * round);
      primary.commit();
    }
    const std::uint64_t sent_before_bytes = is_new_mount ? 0 : sender->sender().status().sent_bytes;
    const std::uint64_t walks_before = primary.walks();
    network.set_reachable(true);
    if (is_new_mount) sender.emplace(primary, network.connector());
    sender->sender().reconnect_now();
    REQUIRE(sender->wait_equal());
    check_equal(primary, mirror);
    CHECK(sender->sender().status().sent_bytes - sent_before_bytes == 10 * kBlockSize);
    // A compare lists blocks and walks none.
    CHECK(primary.walks() - walks_before == (since == Since::kNewMount ? 0 : 1));
  }
}

TEST_CASE("a second primary is refused with a text, and may come when the first has gone") {
  FakePrimary primary;
  fill(primary, 20, 10, 1000);
  primary.commit();
  MemoryNetwork network;
  RecordingDisk disk;
  MirrorSide mirror(primary.book(), disk, network.listen());
  std::optional<PrimarySide> first;
  first.emplace(primary, network.connector());
  REQUIRE(first->wait_equal());
  RawPeer raw(network);
  raw.send(hello_of(primary));
  const auto refuse = raw.expect<wire::Refuse>();
  CHECK(refuse.code == wire::RefuseCode::kBusy);
  CHECK(refuse.text.find("already serves a primary") != std::string::npos);
  first.reset();
  REQUIRE(mirror.wait([](const ReceiverStatus& status) { return !status.connected; }));
  PrimarySide second(primary, network.connector());
  fill(primary, 100, 10, 2001);
  primary.commit();
  REQUIRE(second.wait_equal());
  check_equal(primary, mirror);
}

// The mirror had not heard that the connection was gone, and refused its own primary until it did.
TEST_CASE("a primary that connects anew takes the place of its old connection; another one is refused") {
  FakePrimary primary;
  MemoryNetwork network;
  RecordingDisk disk;
  MirrorSide mirror(primary.book(), disk, network.listen());
  wire::Hello hello = hello_of(primary);
  hello.sender.bytes.fill(7);
  RawPeer first(network);
  first.send(hello);
  (void)first.expect<wire::Welcome>();
  RawPeer again(network);
  again.send(hello);
  (void)again.expect<wire::Welcome>();
  RawPeer other(network);
  hello.sender.bytes.fill(8);
  other.send(hello);
  CHECK(other.expect<wire::Refuse>().code == wire::RefuseCode::kBusy);
  again.send(wire::Ping{5});
  CHECK(again.expect<wire::Pong>().stamp == 5);
}

TEST_CASE("another volume is refused, and its primary told which one is mirrored here") {
  FakePrimary primary;
  MemoryNetwork network;
  RecordingDisk disk;
  MirrorSide mirror(primary.book(), disk, network.listen());
  {
    PrimarySide sender(primary, network.connector());
    REQUIRE(sender.wait_equal());
  }
  FakePrimary stranger(2);
  PrimarySide sender(stranger, network.connector(), [](SenderOptions& options) { options.refusal_patience_ms = 50; });
  const Status refused = sender.sender().wait_published(Cp{1}, kPatience);
  CHECK(refused.error().code() == ErrorCode::kRefused);
  CHECK(refused.error().message().find("mirrors volume") != std::string::npos);
  CHECK(sender.sender().status().last_error.find(volume_of(primary.superblock()).to_string()) != std::string::npos);
  CHECK(mirror.target().root()->checksum == primary.newest_root().checksum);
}

TEST_CASE("another version, garbage and wrong manners end the peer's session and nothing else") {
  FakePrimary primary;
  fill(primary, 20, 10, 1000);
  primary.commit();
  MemoryNetwork network;
  RecordingDisk disk;
  MirrorSide mirror(primary.book(), disk, network.listen());
  {
    RawPeer raw(network);
    auto hello = wire::encode(hello_of(primary));
    hello[4] = std::byte{9};
    raw.send_bytes(hello);
    const auto refuse = raw.expect<wire::Refuse>();
    CHECK(refuse.code == wire::RefuseCode::kVersion);
    CHECK(refuse.text.find("version 9") != std::string::npos);
  }
  {
    RawPeer raw(network);
    raw.send_bytes(std::vector<std::byte>(100, std::byte{0x5a}));
    CHECK(raw.expect<wire::Refuse>().code == wire::RefuseCode::kProtocol);
  }
  {
    RawPeer raw(network);
    raw.send(wire::Published{Cp{5}, 1});
    CHECK(raw.expect<wire::Refuse>().code == wire::RefuseCode::kProtocol);
  }
  const auto after_welcome = [&](const wire::AnyMessage& message) {
    RawPeer raw(network);
    raw.send(hello_of(primary));
    (void)raw.expect<wire::Welcome>();
    raw.send(message);
    CHECK(raw.expect<wire::Refuse>().code == wire::RefuseCode::kProtocol);
  };
  wire::Blocks blocks;
  blocks.cp = Cp{9};
  blocks.sequence = 1;
  blocks.entries = {{Address{100}, 1}};
  blocks.raw_bytes = kBlockSize;
  after_welcome(blocks);  // without a payload
  after_welcome(wire::Root{});
  after_welcome(hello_of(primary));
  after_welcome(wire::Credit{1, 1});
  // The peer that follows the rules is served as if nothing had been.
  PrimarySide sender(primary, network.connector());
  REQUIRE(sender.wait_equal());
  check_equal(primary, mirror);
}

TEST_CASE("blocks and roots that were changed on the way are not let in, and the sender tries again") {
  for (const std::string_view what : {"checksum", "count", "payload", "header"}) {
    CAPTURE(what);
    FakePrimary primary;
    fill(primary, 20, 10, 1000);
    primary.commit();
    MemoryNetwork network;
    RecordingDisk disk;
    MirrorSide mirror(primary.book(), disk, network.listen());
    std::atomic<int> spoilt{0};
    network.set_filter([&](Message& message) {
      auto decoded = wire::decode(message.header);
      if (!decoded.ok() || spoilt.load() > 0) return;
      if (auto* blocks = std::get_if<wire::Blocks>(&*decoded); blocks != nullptr && what == "checksum") {
        blocks->entries[0].checksum ^= 1;
      } else if (auto* root = std::get_if<wire::Root>(&*decoded); root != nullptr && what == "count") {
        ++root->block_count;
      } else if (std::holds_alternative<wire::Blocks>(*decoded) && what == "payload") {
        std::vector<std::byte> bytes(message.payload[0].bytes.begin(), message.payload[0].bytes.end());
        bytes.resize(bytes.size() / 2);
        message.payload[0] = Frame::of(std::move(bytes));
      } else if (std::holds_alternative<wire::Blocks>(*decoded) && what == "header") {
        message.header.resize(20);
        ++spoilt;
        return;
      } else {
        return;
      }
      ++spoilt;
      message.header = wire::encode(*decoded);
    });
    PrimarySide sender(primary, network.connector());
    REQUIRE(sender.wait_equal());
    CHECK(spoilt.load() == 1);
    check_equal(primary, mirror);
    CHECK(network.connections() == 2);
    CHECK(mirror.receiver().status().refused_count == 1);
  }
}

TEST_CASE("a mirror that does not answer is given up after a while, and tried again") {
  FakePrimary primary;
  fill(primary, 20, 10, 1000);
  primary.commit();
  MemoryNetwork network;
  RecordingDisk disk;
  MirrorSide mirror(primary.book(), disk, network.listen());
  network.hold(true);
  PrimarySide sender(primary, network.connector(), [](SenderOptions& options) {
    options.ping_interval_ms = 10;
    options.dead_ms = 100;
  });
  REQUIRE(sender.wait([](const SenderStatus& status) { return !status.last_error.empty(); }));
  CHECK(sender.sender().status().last_error.find("has not answered") != std::string::npos);
  network.hold(false);
  REQUIRE(sender.wait_equal());
  check_equal(primary, mirror);
}

TEST_CASE("a primary that falls silent loses its session") {
  FakePrimary primary;
  MemoryNetwork network;
  RecordingDisk disk;
  ReceiverOptions options;
  options.silence_max_ms = 50;
  MirrorSide mirror(primary.book(), disk, network.listen(), options);
  RawPeer raw(network);
  raw.send(hello_of(primary));
  (void)raw.expect<wire::Welcome>();
  CHECK(mirror.wait([](const ReceiverStatus& status) { return !status.connected; }));
  PrimarySide sender(primary, network.connector());
  REQUIRE(sender.wait_equal());
}

TEST_CASE("nobody listens: the sender keeps trying, waits are answered in time, stop is prompt") {
  FakePrimary primary;
  MemoryNetwork network;
  network.set_reachable(false);
  PrimarySide sender(primary, network.connector());
  REQUIRE(sender.wait([](const SenderStatus& status) { return !status.last_error.empty(); }));
  CHECK(sender.sender().wait_published(Cp{1}, std::chrono::milliseconds(1)).error().code() == ErrorCode::kTimeout);
  CHECK(sender.sender().status().lag_cps == 1);
  sender.sender().stop();
  CHECK(sender.sender().wait_published(Cp{1}, kPatience).error().code() == ErrorCode::kCanceled);
}

// A mirror whose disk was full let the sender in each time, and was tried again eight times a second.
TEST_CASE("a mirror that lets us in and goes is tried again ever more seldom, until it has published something") {
  FakePrimary primary;
  fill(primary, 20, 10, 1000);
  primary.commit();
  MemoryNetwork network;
  std::atomic<bool> stop{false};
  unsigned welcomes = 0;
  std::thread moody([&, server = network.listen()] {
    while (!stop) {
      const auto event = server->receive(std::chrono::milliseconds(1));
      if (!event.ok() || !event->has_value() || (*event)->kind != ServerEvent::Kind::kMessage) continue;
      const auto message = wire::decode((*event)->message.header);
      if (!message.ok() || !std::holds_alternative<wire::Hello>(*message)) continue;
      wire::Welcome welcome;
      welcome.window_bytes = 1 << 20;
      ++welcomes;
      // Fails when the sender has gone, as it may.
      for (const wire::AnyMessage& answer : {wire::AnyMessage(welcome), wire::AnyMessage(wire::Bye{})}) {
        Message reply;
        reply.header = wire::encode(answer);
        const Status sent = server->send((*event)->peer, std::move(reply));
        if (!sent.ok()) break;
      }
    }
  });
  PrimarySide sender(primary, network.connector(), [](SenderOptions& options) { options.backoff_max_ms = 16; });
  CHECK(sender.wait([](const SenderStatus& status) { return status.backoff_ms == 16; }));
  stop = true;
  moody.join();
  CHECK(welcomes >= 4);  // 1, 2, 4 and 8 ms, and none of them set it back
  RecordingDisk disk;
  MirrorSide mirror(primary.book(), disk, network.listen());
  REQUIRE(sender.wait_equal());
  network.cut();
  CHECK(sender.wait([](const SenderStatus& status) { return status.backoff_ms < 16; }));
}

TEST_CASE("a mirror that cannot write says so, and its readers stay on the published state") {
  FakePrimary primary;
  fill(primary, 20, 10, 1000);
  primary.commit();
  MemoryNetwork network;
  RecordingDisk disk;
  MirrorSide mirror(primary.book(), disk, network.listen());
  PrimarySide sender(primary, network.connector());
  REQUIRE(sender.wait_equal());
  disk.fail_from(0);
  fill(primary, 100, 10, 2001);
  primary.commit();
  REQUIRE(mirror.wait([](const ReceiverStatus& status) { return status.state == ReceiverState::kStopped; }));
  REQUIRE(sender.wait([](const SenderStatus& status) {
    return status.last_error.find("stopped after a failed write") != std::string::npos;
  }));
  CHECK(mirror.target().root()->cp == 2);
  CHECK(mirror.target().check().ok());
}

TEST_CASE("a volume that grows takes its mirror along, live and in a catch-up") {
  FakePrimary primary;
  fill(primary, 20, 10, 1000);
  primary.commit();
  MemoryNetwork network;
  RecordingDisk disk;
  MirrorSide mirror(primary.book(), disk, network.listen());
  std::uint64_t size_blocks = kVolumeBlocks;
  {
    PrimarySide sender(primary, network.connector());
    REQUIRE(sender.wait_equal());
    for (int round = 0; round < 3; ++round) {
      const std::uint64_t old_size_blocks = std::exchange(size_blocks, size_blocks + 500);
      primary.grow(size_blocks);
      primary.commit();
      fill(primary, old_size_blocks - 20, 30, 3000 + static_cast<std::uint64_t>(round));
      primary.commit();
      REQUIRE(sender.wait_equal());
      check_equal(primary, mirror);
      CHECK(sender.sender().status().last_error.empty());
    }
  }
  size_blocks += 1000;
  primary.grow(size_blocks);
  primary.commit();
  fill(primary, size_blocks - 600, 50, 4000);
  primary.commit();
  PrimarySide again(primary, network.connector());
  REQUIRE(again.wait_equal());
  check_equal(primary, mirror);
  CHECK(mirror.receiver().status().size_blocks == size_blocks);
}

TEST_CASE("a primary sees that its mirror cannot grow, and is followed again when it can") {
  FakePrimary primary;
  fill(primary, 20, 10, 1000);
  primary.commit();
  MemoryNetwork network;
  RecordingDisk disk;
  MirrorSide mirror(primary.book(), disk, network.listen());
  PrimarySide sender(primary, network.connector());
  REQUIRE(sender.wait_equal());
  disk.fail_from(0, ErrorCode::kNoSpace);
  primary.grow(2 * kVolumeBlocks);
  primary.commit();
  REQUIRE(sender.wait([](const SenderStatus& status) {
    return status.last_error.find("cannot grow with the volume") != std::string::npos;
  }));
  CHECK(mirror.target().check().ok());
  disk.fail_from(std::nullopt);
  REQUIRE(sender.wait_equal());
  check_equal(primary, mirror);
}
