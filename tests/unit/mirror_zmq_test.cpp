// The same over real ZeroMQ on this machine's loopback.
#include <doctest/doctest.h>

#include <optional>

#include "mirror/channel/zmq_channel.h"
#include "tests/support/mirror_pair.h"

using namespace tarnfs;
using namespace tarnfs::testing;

namespace {

constexpr const char* kAnyPort = "tcp://127.0.0.1:0";

std::unique_ptr<ServerChannel> listen() {
  auto server = listen_zmq(kAnyPort);
  REQUIRE(server.ok());
  return *std::move(server);
}

}  // namespace

TEST_CASE("addresses that cannot be used are told") {
  for (const char* url : {"", "tcp://", "tcp://host", "tcp://:5000", "tcp://host:", "tcp://host:0", "tcp://host:65536",
                          "tcp://host:12x", "udp://host:5000", "host:5000", "tcp://a b:5000", "tcp://*:5000"}) {
    CAPTURE(url);
    CHECK(check_connect_url(url).error().code() == ErrorCode::kInvalid);
    CHECK(zmq_channel_factory(url).error().code() == ErrorCode::kInvalid);
  }
  CHECK(check_connect_url("tcp://mirror.example:5000").ok());
  CHECK(check_connect_url("tcp://[::1]:5000").ok());
  CHECK(check_listen_url("tcp://*:5000").ok());
  CHECK(is_loopback_url("tcp://127.0.0.1:5000"));
  CHECK(is_loopback_url("tcp://[::1]:5000"));
  CHECK_FALSE(is_loopback_url("tcp://0.0.0.0:5000"));
  CHECK_FALSE(is_loopback_url("tcp://*:5000"));
  // An address that no interface of this machine has.
  CHECK_FALSE(listen_zmq("tcp://192.0.2.1:5000").ok());
}

TEST_CASE("a port that is taken is told") {
  const auto server = listen();
  const auto second = listen_zmq(server->address());
  CHECK(second.error().code() == ErrorCode::kBusy);
}

TEST_CASE("messages arrive in order and whole; a peer that goes is noticed on both sides") {
  auto server = listen();
  auto channel = *(*zmq_channel_factory(server->address()))();
  constexpr int kMessages = 100;
  for (int i = 0; i < kMessages; ++i) {
    Message message;
    message.header.assign(10, static_cast<std::byte>(i));
    message.payload.push_back(Frame::of(std::vector<std::byte>(100000, static_cast<std::byte>(i))));
    REQUIRE(channel->send(std::move(message)).ok());
  }
  PeerId peer = 0;
  for (int i = 0; i < kMessages; ++i) {
    const auto event = server->receive(kPatience);
    REQUIRE(event.ok());
    REQUIRE(event->has_value());
    REQUIRE((*event)->kind == ServerEvent::Kind::kMessage);
    peer = (*event)->peer;
    CHECK((*event)->message.header.at(9) == static_cast<std::byte>(i));
    REQUIRE((*event)->message.payload.size() == 1);
    CHECK((*event)->message.payload[0].bytes.size() == 100000);
    CHECK((*event)->message.payload[0].bytes.back() == static_cast<std::byte>(i));
  }
  Message answer;
  answer.header.resize(3);
  REQUIRE(server->send(peer, std::move(answer)).ok());
  const auto received = channel->receive(kPatience);
  REQUIRE(received.ok());
  REQUIRE(received->has_value());
  CHECK((*received)->header.size() == 3);

  channel.reset();
  const auto gone = server->receive(kPatience);
  REQUIRE(gone.ok());
  REQUIRE(gone->has_value());
  CHECK((*gone)->kind == ServerEvent::Kind::kGone);
  CHECK((*gone)->peer == peer);
  CHECK(server->send(peer, Message{}).error().code() == ErrorCode::kDisconnected);

  auto second = *(*zmq_channel_factory(server->address()))();
  REQUIRE(second->send(Message{{std::byte{1}}, {}}).ok());
  REQUIRE((*server->receive(kPatience))->kind == ServerEvent::Kind::kMessage);
  server.reset();
  auto lost = second->receive(kPatience);
  CHECK(lost.error().code() == ErrorCode::kDisconnected);
}

TEST_CASE("nobody listens: told soon, and wake() ends a wait") {
  std::string url;
  {
    const auto server = listen();
    url = server->address();
  }
  auto channel = *(*zmq_channel_factory(url))();
  const auto refused = channel->receive(kPatience);
  CHECK(refused.error().code() == ErrorCode::kDisconnected);
  CHECK(refused.error().message().find("tarn-mirrord") != std::string::npos);
  const auto server = listen();
  auto idle = *(*zmq_channel_factory(server->address()))();
  idle->wake();
  const auto woken = idle->receive(kPatience);
  REQUIRE(woken.ok());
  CHECK_FALSE(woken->has_value());
}

TEST_CASE("a peer that sends garbage is told apart from those that do not") {
  auto server = listen();
  auto channel = *(*zmq_channel_factory(server->address()))();
  Message many;
  many.header.resize(1);
  for (int i = 0; i < 20; ++i) many.payload.push_back(Frame::of(std::vector<std::byte>(1)));
  REQUIRE(channel->send(std::move(many)).ok());
  const auto event = server->receive(kPatience);
  REQUIRE(event.ok());
  REQUIRE(event->has_value());
  CHECK((*event)->kind == ServerEvent::Kind::kGarbage);
  // A frame over the limit breaks the connection before it takes memory.
  Message large;
  large.header.resize(1);
  large.payload.push_back(Frame::of(std::vector<std::byte>(kFrameMaxBytes + 1)));
  REQUIRE(channel->send(std::move(large)).ok());
  const auto gone = server->receive(kPatience);
  REQUIRE(gone.ok());
  REQUIRE(gone->has_value());
  CHECK((*gone)->kind == ServerEvent::Kind::kGone);
}

TEST_CASE("first copy, live cps, a restart of the mirror and of the primary") {
  FakePrimary primary;
  fill(primary, 20, 600, 1000);
  primary.commit();
  RecordingDisk disk;
  auto server = listen();
  const std::string url = server->address();
  std::optional<MirrorSide> mirror;
  mirror.emplace(primary.book(), disk, std::move(server));
  std::optional<PrimarySide> sender;
  sender.emplace(primary, *zmq_channel_factory(url), [](SenderOptions& options) { options.batch_blocks_max = 16; });
  REQUIRE(sender->wait_equal());
  REQUIRE(sender->wait_live());
  for (std::uint64_t round = 0; round < 10; ++round) {
    fill(primary, 700 + 20 * round, 20, 2001 + 20 * round);
    primary.commit();
  }
  REQUIRE(sender->wait_equal());
  check_equal(primary, *mirror);

  mirror.reset();
  REQUIRE(sender->wait([](const SenderStatus& status) { return status.state == SenderState::kConnecting; }));
  fill(primary, 20, 30, 8000);
  primary.commit();
  auto again = listen_zmq(url);
  REQUIRE(again.ok());
  mirror.emplace(primary.book(), disk, *std::move(again));
  REQUIRE(sender->wait_equal());
  check_equal(primary, *mirror);

  // A primary that is gone leaves its place at once: the next one is not refused.
  sender.reset();
  sender.emplace(primary, *zmq_channel_factory(url));
  fill(primary, 950, 10, 9001);
  primary.commit();
  REQUIRE(sender->wait_equal());
  check_equal(primary, *mirror);
}
