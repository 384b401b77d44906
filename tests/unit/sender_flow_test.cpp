// The flow to a mirror: its limit, its pauses, and how far it is behind at every moment.
#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <thread>

#include "mirror/sender/flow_window.h"
#include "mirror/sender/lag_tracker.h"
#include "mirror/sender/token_bucket.h"
#include "tests/support/memory_channel.h"
#include "tests/support/mirror_pair.h"

using namespace tarnfs;
using namespace tarnfs::testing;

namespace {

constexpr std::uint64_t kSecondNs = 1'000'000'000;

// Time as the test says.
class StillClock final : public Clock {
 public:
  Timestamp now() override { return {1000 + static_cast<std::int64_t>(ns / kSecondNs), 0}; }
  std::uint64_t monotonic_ns() override { return ns; }
  std::uint64_t random() override { return 4; }

  std::uint64_t ns = 0;
};

}  // namespace

TEST_CASE("a bucket lets through what its rate allows, whatever the size of messages") {
  for (const std::uint64_t message : {std::uint64_t{100}, std::uint64_t{5000}, std::uint64_t{1} << 20}) {
    CAPTURE(message);
    constexpr std::uint64_t kRate = 100'000;
    TokenBucket bucket;
    bucket.set_rate(kRate, 0);
    std::uint64_t now_ns = 0;
    std::uint64_t sent = 0;
    while (now_ns < 100 * kSecondNs) {
      const std::uint64_t wait_ns = bucket.wait_ns(now_ns);
      now_ns += wait_ns;
      if (wait_ns > 0) CHECK(bucket.wait_ns(now_ns) == 0);
      bucket.spend(message);
      sent += message;
      const double allowed =
          static_cast<double>(now_ns) / kSecondNs * kRate + kRate / 10.0 + static_cast<double>(message);
      REQUIRE(static_cast<double>(sent) <= allowed + 1);
    }
    CHECK(sent >= now_ns / kSecondNs * kRate);
  }
}

TEST_CASE("a bucket without a rate never waits, and one that gets a rate owes nothing of before") {
  TokenBucket bucket;
  bucket.spend(1 << 30);
  CHECK(bucket.wait_ns(5) == 0);
  bucket.set_rate(1000, 10 * kSecondNs);
  CHECK(bucket.wait_ns(10 * kSecondNs) == 0);
  bucket.spend(1100);
  CHECK(bucket.wait_ns(10 * kSecondNs) >= kSecondNs - 1000);
  bucket.set_rate(10'000, 10 * kSecondNs);  // what is owed is paid sooner
  CHECK(bucket.wait_ns(10 * kSecondNs) <= kSecondNs / 10 + 1000);
  bucket.set_rate(0, 10 * kSecondNs);
  CHECK(bucket.wait_ns(10 * kSecondNs) == 0);
}

namespace {

struct Line {
  double bytes_per_second;
  std::uint64_t round_trip_ns;
};

struct Passed {
  double seconds_of_longest_ping = 0;
  double bytes_per_second = 0;
};

// A minute of a session that always has something to send, over a line that takes one thing after the other.
Passed pass(const Line& line, std::uint64_t dead_ns) {
  FlowWindow window(16 << 20, dead_ns / 4);
  struct Answer {
    std::uint64_t arrives_ns;
    std::uint64_t bytes;    // of blocks; 0: a ping
    std::uint64_t sent_ns;  // of a ping
  };
  std::deque<Answer> answers;  // one after the other, as the line is
  std::uint64_t now_ns = 0;
  std::uint64_t free_ns = 0;  // from when on the line takes something
  std::uint64_t next_ping_ns = 0;
  std::uint64_t on_its_way = 0;
  Passed passed;
  const auto send = [&](std::uint64_t bytes) {
    free_ns = std::max(free_ns, now_ns) +
              static_cast<std::uint64_t>(static_cast<double>(bytes) / line.bytes_per_second * 1e9);
    answers.push_back({free_ns + line.round_trip_ns, bytes, now_ns});
  };
  constexpr std::uint64_t kEndSeconds = 60;
  constexpr std::uint64_t kEndNs = kEndSeconds * kSecondNs;
  while (now_ns < kEndNs) {
    if (now_ns >= next_ping_ns) {
      send(0);
      next_ping_ns += dead_ns / 5;
    }
    const std::uint64_t batch = std::clamp<std::uint64_t>(window.bytes() / 4, 4096, 1 << 20);
    while (on_its_way + batch <= window.bytes()) {
      on_its_way += batch;
      send(batch);
    }
    now_ns = std::min(next_ping_ns, answers.front().arrives_ns);
    if (now_ns < answers.front().arrives_ns) continue;
    const Answer answer = answers.front();
    answers.pop_front();
    if (answer.bytes == 0) {
      window.on_answer(answer.sent_ns, now_ns);
      const double seconds = static_cast<double>(now_ns - answer.sent_ns) / kSecondNs;
      passed.seconds_of_longest_ping = std::max(passed.seconds_of_longest_ping, seconds);
    } else {
      window.on_applied(answer.bytes, on_its_way);
      on_its_way -= answer.bytes;
      passed.bytes_per_second += static_cast<double>(answer.bytes) / kEndSeconds;
    }
  }
  return passed;
}

}  // namespace

// With a window of 16 MiB, or with one message of 1 MiB, a mirror behind a line of 1 Mbit/s was dead each time.
TEST_CASE("on every line pings come back in time, and the line is used") {
  for (const double rate : {2e4, 1.25e5, 1.25e6, 1.25e7, 1.25e8, 2e9}) {
    for (const std::uint64_t round_trip_ms : {0, 1, 20, 200, 600}) {
      const Passed passed = pass({rate, round_trip_ms * 1'000'000 + 50'000}, 5 * kSecondNs);
      CAPTURE(rate);
      CAPTURE(round_trip_ms);
      CAPTURE(passed.bytes_per_second);
      CHECK(passed.seconds_of_longest_ping < 4.5);
      const double window_limit = (16 << 20) / (static_cast<double>(round_trip_ms) / 1e3 + 5e-5);
      CHECK(passed.bytes_per_second > 0.6 * std::min(rate, window_limit));
    }
  }
}

TEST_CASE("the lag is never too small: before the mirror is known, when it is met, and while it is away") {
  StillClock clock;
  LagTracker lag(clock);
  clock.ns = 50 * kSecondNs;
  lag.begin(Cp{20}, 9000, {1010, 0});
  CHECK(lag.lag_cps() == 20);
  CHECK(lag.lag_bytes() == 9000);
  CHECK(lag.lag_ns() == 40 * kSecondNs);

  lag.meet_mirror(Cp{15}, {1030, 0});
  CHECK(lag.lag_cps() == 5);
  CHECK(lag.lag_bytes() == 9000);
  CHECK(lag.lag_ns() == 20 * kSecondNs);
  lag.set_mirror(Cp{20});
  CHECK(lag.lag_cps() == 0);
  CHECK(lag.lag_bytes() == 0);
  CHECK(lag.lag_ns() == 0);

  lag.add_bytes(100);
  CHECK(lag.lag_bytes() == 0);  // no consistency point has them yet
  lag.add_cp(Cp{21}, 9100);
  clock.ns += 3 * kSecondNs;
  lag.add_bytes(200);
  lag.add_cp(Cp{22}, 9200);
  clock.ns += 4 * kSecondNs;
  CHECK(lag.lag_cps() == 2);
  CHECK(lag.lag_bytes() == 300);
  CHECK(lag.lag_ns() == 7 * kSecondNs);
  lag.meet_mirror(Cp{20}, {1056, 0});  // the same again: what is known exactly stays
  CHECK(lag.lag_ns() == 7 * kSecondNs);
  lag.set_mirror(Cp{21});
  CHECK(lag.lag_bytes() == 200);
  CHECK(lag.lag_ns() == 4 * kSecondNs);

  for (std::uint64_t cp = 23; cp < 5000; ++cp) {  // a hot set: the mirror cannot lack more than there is
    lag.add_bytes(100);
    lag.add_cp(Cp{cp}, 9200);
  }
  CHECK(lag.lag_bytes() == 9200);
  CHECK(lag.lag_ns() == 4 * kSecondNs);

  lag.set_mirror(Cp{4999});
  CHECK(lag.lag_ns() == 0);
  lag.meet_mirror(Cp{}, {});  // another one, which is empty
  CHECK(lag.lag_cps() == 4999);
  CHECK(lag.lag_bytes() == 9200);
  CHECK(lag.lag_ns() == 47 * kSecondNs);
  lag.meet_mirror(Cp{7}, {INT64_MIN, 0});
  CHECK(lag.lag_ns() == 47 * kSecondNs);
  lag.meet_mirror(Cp{7}, {INT64_MAX, 0});
  CHECK(lag.lag_ns() == 0);
}

TEST_CASE("a pause ends the connection, who waits is told, and the mirror catches up when it is over") {
  FakePrimary primary;
  fill(primary, 20, 10, 1001);
  primary.commit();
  MemoryNetwork network;
  RecordingDisk disk;
  MirrorSide mirror(primary.book(), disk, network.listen());
  PrimarySide sender(primary, network.connector());
  REQUIRE(sender.wait_equal());
  std::thread pauses([&] {
    CHECK(sender.wait([](const SenderStatus& status) { return status.lag_cps == 1; }));
    sender.sender().pause();
  });
  network.hold(true);  // so that it is waited for
  fill(primary, 40, 10, 2001);
  const Cp cp = primary.commit();
  const Status waited = sender.sender().wait_published(cp, kPatience);
  CHECK(waited.error().code() == ErrorCode::kRefused);
  CHECK(waited.error().message().find("tarn resume") != std::string::npos);
  pauses.join();
  network.hold(false);
  REQUIRE(sender.wait([](const SenderStatus& status) { return status.state == SenderState::kPaused; }));
  CHECK(name_of(sender.sender().status().state) == "paused");
  CHECK(primary.pins() == std::vector<Cp>{Cp{2}});
  const std::uint64_t connections = network.connections();
  const std::uint64_t sent_bytes = sender.sender().status().sent_bytes;
  fill(primary, 60, 10, 3001);
  primary.commit();
  sender.sender().reconnect_now();
  CHECK(sender.sender().status().lag_cps == 2);
  CHECK(sender.sender().status().lag_bytes == 20 * kBlockSize);
  CHECK(network.connections() == connections);
  CHECK(sender.sender().status().sent_bytes == sent_bytes);
  sender.sender().resume();
  REQUIRE(sender.wait_equal());
  check_equal(primary, mirror);
  sender.sender().pause();
  sender.sender().stop();  // while it is paused
}

TEST_CASE("a limit holds, can be changed while it is waited for, and is in the status") {
  FakePrimary primary;
  fill(primary, 20, 400, 1001);
  primary.commit();
  MemoryNetwork network;
  RecordingDisk disk;
  MirrorSide mirror(primary.book(), disk, network.listen());
  network.set_reachable(false);
  PrimarySide sender(primary, network.connector());
  constexpr std::uint64_t kRate = 200'000;  // 8 seconds for all
  sender.sender().limit(kRate);
  CHECK(sender.sender().status().limit_bytes_per_second == kRate);
  network.set_reachable(true);
  const auto begin = std::chrono::steady_clock::now();
  REQUIRE(sender.wait([](const SenderStatus& status) { return status.wire_bytes >= 200'000; }));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  CHECK(seconds >= 0.7);  // a tenth of a second may come at once, and one message more
  sender.sender().limit(0);
  REQUIRE(sender.wait_equal());
  check_equal(primary, mirror);
}
