// What is kept for a mirror while it is away, and the full compare that follows when it was given up.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>

#include "mirror/sender/change_fan_out.h"
#include "tests/support/volume_pair.h"

using namespace tarnfs;
using namespace tarnfs::testing;

namespace {

// Reads all of what a mirror shows, again and again, until it goes.
class Reader {
 public:
  explicit Reader(std::function<bool()> read)
      : thread_([this, read = std::move(read)] {
          do {
            if (!read()) ++failed;
            ++rounds;
            rounds.notify_all();
          } while (!ending_);
        }) {
    rounds.wait(0);
  }
  ~Reader() {
    ending_ = true;
    thread_.join();
  }
  std::atomic<std::uint64_t> rounds{0};
  std::atomic<std::uint64_t> failed{0};

 private:
  std::atomic<bool> ending_{false};
  std::thread thread_;
};

// A state that is left while it is read may be gone: then the next one is read, as a file system does.
bool can_be_read(FakeTarget& target) {
  for (;;) {
    const auto state = target.shown();
    if (target.check().ok()) return true;
    if (target.shown() == state) return false;
  }
}

// A mirror with 100 blocks that has lost its connection.
struct Away {
  Away() {
    fill(primary, 20, 100, 1001);
    primary.commit();
    sender.emplace(primary, network.connector());
    REQUIRE(sender->wait_equal());
    REQUIRE(sender->wait_live());
    network.set_reachable(false);
    network.cut();
    REQUIRE(sender->wait([](const SenderStatus& status) { return status.state == SenderState::kConnecting; }));
    fill(primary, 300, 10, 2001);
    primary.commit();
  }

  FakePrimary primary;
  MemoryNetwork network;
  Traffic traffic{network};
  RecordingDisk disk;
  MirrorSide mirror{primary.book(), disk, network.listen()};
  std::optional<PrimarySide> sender;
};

}  // namespace

TEST_CASE("the mirror's published root is pinned until it has a newer one, also while it is away") {
  Away away;
  CHECK(away.primary.pins() == std::vector<Cp>{Cp{2}});
  CHECK(away.sender->sender().status().held_bytes == FakePrimary::kHeldBytesPerCp);
  away.primary.commit();
  CHECK(away.primary.pins() == std::vector<Cp>{Cp{2}});
  CHECK(away.sender->sender().status().held_bytes == 2 * FakePrimary::kHeldBytesPerCp);
  away.network.set_reachable(true);
  REQUIRE(away.sender->wait_equal());
  REQUIRE(away.sender->wait_live());
  CHECK(away.primary.pins() == std::vector<Cp>{Cp{4}});
  const SenderStatus status = away.sender->sender().status();
  CHECK(status.held_bytes == 0);
  CHECK(status.pins_lost == 0);
  CHECK_FALSE(status.compare_due);
  CHECK(away.traffic.offered == 0);  // nothing was lost, so nothing is compared
  CHECK(away.traffic.sent == 110);
  check_equal(away.primary, away.mirror);
  away.sender->sender().stop();
  CHECK(away.primary.pins().empty());
}

TEST_CASE("a mirror that was given up by policy is compared in full, and can be read all the time") {
  for (const PinLoss why : {PinLoss::kSize, PinLoss::kAge}) {
    CAPTURE(static_cast<int>(why));
    Away away;
    Reader reader([&] { return can_be_read(away.mirror.target()); });
    away.primary.lose_pins(Cp{2}, why);
    SenderStatus status = away.sender->sender().status();
    CHECK(status.pins_lost == 1);
    CHECK(status.compare_due);
    // Now what the mirror shows is used again here.
    for (std::uint64_t address = 20; address < 40; ++address) away.primary.remove(address);
    away.primary.commit();
    fill(away.primary, 20, 10, 3001);
    away.primary.commit();
    CHECK(away.mirror.target().check().ok());
    away.network.set_reachable(true);
    REQUIRE(away.sender->wait_equal());
    REQUIRE(away.sender->wait([](const SenderStatus& now) { return !now.compare_due; }));
    check_equal(away.primary, away.mirror);
    CHECK(away.traffic.offered == 100);  // 100, 10 more, 20 less, 10 again
    CHECK(away.traffic.sent == 120);
    // Once.
    REQUIRE(away.sender->wait_live());
    CHECK(away.primary.pins() == std::vector<Cp>{Cp{5}});
    fill(away.primary, 400, 10, 4001);
    away.primary.commit();
    REQUIRE(away.sender->wait_equal());
    CHECK(away.traffic.offered == 100);
    status = away.sender->sender().status();
    CHECK(status.pins_lost == 1);
    CHECK(status.state == SenderState::kLive);
    CHECK(reader.failed == 0);
  }
}

TEST_CASE("a full compare that is cut off begins again") {
  for (std::uint64_t message = 1; message < 6; ++message) {
    CAPTURE(message);
    Away away;
    Reader reader([&] { return can_be_read(away.mirror.target()); });
    away.primary.lose_pins(Cp{2}, PinLoss::kSize);
    away.network.cut_at_message(message);
    away.network.set_reachable(true);
    REQUIRE(away.sender->wait_equal());
    REQUIRE(away.sender->wait([](const SenderStatus& now) { return !now.compare_due; }));
    check_equal(away.primary, away.mirror);
    CHECK(away.traffic.offered >= 110);
    CHECK(away.sender->sender().status().pins_lost == 1);
    CHECK(reader.failed == 0);
  }
}

TEST_CASE("a mirror that is connected is compared with the next consistency point") {
  FakePrimary primary;
  fill(primary, 20, 100, 1001);
  primary.commit();
  MemoryNetwork network;
  Traffic traffic(network);
  RecordingDisk disk;
  MirrorSide mirror(primary.book(), disk, network.listen());
  PrimarySide sender(primary, network.connector());
  REQUIRE(sender.wait_equal());
  REQUIRE(sender.wait_live());
  primary.lose_pins(Cp{2}, PinLoss::kSize);
  CHECK(sender.sender().status().compare_due);
  CHECK(traffic.offered == 0);
  fill(primary, 200, 10, 2001);
  primary.commit();
  fill(primary, 300, 10, 3001);
  primary.commit();
  REQUIRE(sender.wait_equal());
  if (sender.sender().status().compare_due) primary.commit();  // the two went out before it was looked at
  REQUIRE(sender.wait([](const SenderStatus& now) { return !now.compare_due; }));
  REQUIRE(sender.wait_equal());
  check_equal(primary, mirror);
  CHECK(traffic.offered >= 110);
}

TEST_CASE("a full volume makes no compare: what the mirror lacks is known") {
  Away away;
  away.primary.lose_pins(Cp{2}, PinLoss::kSpace);
  CHECK(away.sender->sender().status().pins_lost == 1);
  CHECK_FALSE(away.sender->sender().status().compare_due);
  away.network.set_reachable(true);
  REQUIRE(away.sender->wait_equal());
  CHECK(away.traffic.offered == 0);
  check_equal(away.primary, away.mirror);
}

TEST_CASE("each mirror has its pin") {
  FakePrimary primary;
  fill(primary, 20, 100, 1001);
  primary.commit();
  struct Mirror {
    explicit Mirror(FakePrimary& primary) : side(primary.book(), disk, network.listen()) {}
    MemoryNetwork network;
    Traffic traffic{network};
    RecordingDisk disk;
    MirrorSide side;
  };
  Mirror away(primary);
  Mirror near(primary);
  const auto options_of = [](Mirror& mirror) {
    SenderOptions options;
    options.connect = mirror.network.connector();
    options.backoff_min_ms = 1;
    options.backoff_max_ms = 10;
    return options;
  };
  const auto to_away = Sender::create(options_of(away));
  const auto to_near = Sender::create(options_of(near));
  ChangeFanOut both;
  both.add(*to_away);
  both.add(*to_near);
  primary.set_feed(&both);
  to_away->start(primary);
  to_near->start(primary);
  REQUIRE(to_away->wait_published(Cp{2}, kPatience).ok());
  away.network.set_reachable(false);
  away.network.cut();
  REQUIRE(to_near->wait_published(Cp{2}, kPatience).ok());
  fill(primary, 300, 10, 2001);
  const Cp cp = primary.commit();
  REQUIRE(to_near->wait_published(cp, kPatience).ok());
  const auto is_live = [](const SenderStatus& status) { return status.state == SenderState::kLive; };
  REQUIRE(to_near->wait_for(is_live, kPatience).ok());
  std::vector<Cp> pins = primary.pins();
  std::sort(pins.begin(), pins.end());
  CHECK(pins == std::vector<Cp>{Cp{2}, cp});
  primary.lose_pins(Cp{2}, PinLoss::kSize);
  CHECK(to_away->status().pins_lost == 1);
  CHECK(to_near->status().pins_lost == 0);
  CHECK_FALSE(to_near->status().compare_due);
  away.network.set_reachable(true);
  REQUIRE(to_away->wait_published(cp, kPatience).ok());
  check_equal(primary, away.side);
  check_equal(primary, near.side);
  CHECK(away.traffic.offered == 110);
  CHECK(near.traffic.offered == 0);
  to_away->stop();
  to_near->stop();
  primary.set_feed(nullptr);
}

TEST_CASE("a volume that has used a mirror's blocks again after the limit makes it equal, and it is read meanwhile") {
  VolumePair pair(300 * kBlockSize);
  REQUIRE(pair.sender->wait_published(Cp{pair.primary.volume->newest_root().cp}, kPatience).ok());
  REQUIRE(pair.wait([](const SenderStatus& status) { return status.state == SenderState::kLive; }));
  Reader reader([&] { return pair.read_mirror(); });
  pair.disconnect();
  const std::uint64_t shown = pair.mirror->newest_root().checksum;
  const std::set<std::uint64_t> shown_blocks = pair.blocks_in_use();
  const auto used_again = [&] {
    const std::set<std::uint64_t> newest_blocks = pair.blocks_in_use();
    return std::count_if(shown_blocks.begin(), shown_blocks.end(), [&](auto a) { return newest_blocks.contains(a); });
  };
  pair.next_state();
  CHECK(used_again() < 10);  // what has not changed
  CHECK(pair.sender->status().pins_lost == 0);
  CHECK(pair.sender->status().held_bytes > 100 * kBlockSize);
  for (int i = 0; used_again() < 50; ++i) {
    REQUIRE(i < 50);
    pair.next_state();
  }
  SenderStatus status = pair.sender->status();
  CHECK(status.pins_lost == 1);
  CHECK(status.held_bytes == 0);
  CHECK(status.compare_due);
  CHECK(pair.mirror->newest_root().checksum == shown);
  CHECK(pair.read_mirror());
  const std::uint64_t offered = pair.traffic.offered;
  const std::uint64_t staging_files = pair.staging_files();
  const std::uint64_t blocks = pair.blocks_in_use().size();
  pair.reads_at_each_message = true;
  pair.network.set_reachable(true);
  const RootBlock newest = pair.primary.volume->newest_root();
  REQUIRE(pair.sender->wait_published(Cp{newest.cp}, kPatience).ok());
  REQUIRE(pair.wait([](const SenderStatus& now) { return !now.compare_due; }));
  pair.check_equal();
  CHECK(pair.traffic.offered - offered == blocks);
  CHECK(pair.staging_files() > staging_files);  // blocks that the mirror showed were used again here
  pair.next_state();
  REQUIRE(pair.sender->wait_published(Cp{newest.cp + 1}, kPatience).ok());
  CHECK(pair.traffic.offered - offered == blocks);
  pair.check_equal();
  CHECK(reader.failed == 0);
  CHECK(pair.reads_at_messages > 3);
  CHECK(pair.failed_at_messages == 0);
}

TEST_CASE("below the limit nothing is compared, and no block that the mirror shows is used again") {
  VolumePair pair(1500 * kBlockSize);
  REQUIRE(pair.sender->wait_published(Cp{pair.primary.volume->newest_root().cp}, kPatience).ok());
  REQUIRE(pair.wait([](const SenderStatus& status) { return status.state == SenderState::kLive; }));
  pair.disconnect();
  const std::uint64_t offered = pair.traffic.offered;
  const std::uint64_t staging_files = pair.staging_files();
  for (int i = 0; i < 4; ++i) pair.next_state();
  CHECK(pair.sender->status().held_bytes > 600 * kBlockSize);
  pair.network.set_reachable(true);
  REQUIRE(pair.sender->wait_published(Cp{pair.primary.volume->newest_root().cp}, kPatience).ok());
  pair.check_equal();
  CHECK(pair.sender->status().pins_lost == 0);
  CHECK(pair.traffic.offered == offered);
  CHECK(pair.staging_files() == staging_files);
}

TEST_CASE("a copy whose root is given up while it is sent begins again with a newer one") {
  VolumePair pair(300 * kBlockSize);
  REQUIRE(pair.sender->wait_published(Cp{pair.primary.volume->newest_root().cp}, kPatience).ok());
  REQUIRE(pair.wait([](const SenderStatus& status) { return status.state == SenderState::kLive; }));
  Reader reader([&] { return pair.read_mirror(); });
  pair.disconnect();
  pair.next_state();
  const std::uint64_t sent_before = pair.sender->status().sent_bytes;
  pair.sender->limit(1000);  // half a minute for all
  pair.network.set_reachable(true);
  REQUIRE(pair.wait([&](const SenderStatus& now) { return now.sent_bytes > sent_before; }));
  // What the mirror shows, and what is being copied.
  for (int i = 0; pair.sender->status().pins_lost < 2; ++i) {
    REQUIRE(i < 20);
    pair.next_state();
  }
  // Where it has begun again by now, the newer root may be given up, too: the copy takes half a minute.
  for (int i = 0; i < 10; ++i) pair.next_state();
  const std::uint64_t pins_lost = pair.sender->status().pins_lost;
  CHECK(pair.sender->status().state == SenderState::kCatchingUp);
  CHECK(pair.sender->status().compare_due);
  pair.sender->limit(0);
  REQUIRE(pair.sender->wait_published(Cp{pair.primary.volume->newest_root().cp}, kPatience).ok());
  pair.next_state();
  REQUIRE(pair.wait([](const SenderStatus& now) { return !now.compare_due; }));
  REQUIRE(pair.sender->wait_published(Cp{pair.primary.volume->newest_root().cp}, kPatience).ok());
  pair.check_equal();
  CHECK(pair.sender->status().pins_lost == pins_lost);
  CHECK(reader.failed == 0);
}
