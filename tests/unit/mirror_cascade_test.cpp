// A mirror that feeds another one, with real engines at all three places.
//
// Names: the primary feeds the middle mirror, and that feeds the third one.
#include <doctest/doctest.h>

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "mirror/receiver/mirror_source.h"
#include "mirror/receiver/receiver.h"
#include "mirror/sender/change_fan_out.h"
#include "mirror/sender/sender.h"
#include "mirror/wire/messages.h"
#include "tests/support/device_mirror_storage.h"
#include "tests/support/memory_channel.h"
#include "tests/support/test_volume.h"

using namespace tarnfs;
using namespace tarnfs::testing;

namespace {

constexpr std::chrono::milliseconds kPatience{60000};
constexpr std::uint64_t kSmallBlocks = 4096;  // so that blocks are soon used again

SenderOptions sender_to(MemoryNetwork& network) {
  SenderOptions options;
  options.url = "memory";
  options.connect = network.connector();
  options.backoff_min_ms = 1;
  options.backoff_max_ms = 10;
  options.dead_ms = 60000;  // what is held up on purpose is no dead mirror
  return options;
}

// Shows roots in a view and notes which.
class NotingTarget final : public MirrorTarget {
 public:
  explicit NotingTarget(Volume& view) : view_(view) {}
  Status adopt(const RootBlock& root) override {
    {
      MutexLock lock(mutex_);
      shown_[Cp{root.cp}] = root.checksum;
    }
    return view_.adopt(root);
  }
  Result<bool> in_use(Address address) override { return view_.in_use(address); }
  Result<bool> in_use_by(const RootBlock& root, Address address) override { return view_.in_use_by(root, address); }
  std::map<Cp, std::uint64_t> shown() const {
    MutexLock lock(mutex_);
    return shown_;
  }

 private:
  Volume& view_;
  mutable Mutex mutex_;
  std::map<Cp, std::uint64_t> shown_ TARNFS_GUARDED_BY(mutex_);
};

struct MirrorOptions {
  MemoryNetwork* feeds = nullptr;
  std::optional<std::uint64_t> kept_limit_bytes;
  std::uint64_t window_bytes = std::uint64_t{16} << 20;  // of its sender
};

// A mirror, which may feed another one.
class Mirror {
 public:
  Mirror(DeviceStorage& storage, MemoryNetwork& network, const MirrorOptions& options = {}) {
    if (options.feeds != nullptr) {
      SenderOptions sender_options = sender_to(*options.feeds);
      sender_options.source_is_mirror = true;
      sender_options.window_bytes = options.window_bytes;
      sender_options.batch_blocks_max = 16;
      sender_options.id = id;
      sender = Sender::create(sender_options);
    }
    ReceiverOptions receiver_options;
    receiver_options.own_id = id;
    receiver_options.kept.limit_bytes = options.kept_limit_bytes;
    receiver_options.kept.feed = sender.get();
    receiver = std::move(Receiver::open(storage, receiver_options).value());
    VolumeOptions volume_options;
    volume_options.mode = VolumeMode::kMirror;
    view = std::move(Volume::open(receiver->device(), volume_options).value());
    target.emplace(*view);
    REQUIRE(receiver->show(*target).ok());
    source.emplace(*view, receiver->kept());
    if (sender) sender->start(*source);
    REQUIRE(receiver->start(*target, network.listen()).ok());
  }
  ~Mirror() {
    receiver->stop();
    if (sender) sender->stop();
  }
  Mirror(const Mirror&) = delete;
  Mirror& operator=(const Mirror&) = delete;

  Cp published() const { return receiver->status().published.cp; }
  bool wait_published(Cp cp) {
    return receiver->wait_for([cp](const ReceiverStatus& status) { return status.published.cp >= cp; }, kPatience).ok();
  }
  std::uint64_t kept_bytes() { return receiver->kept().kept_bytes(); }

  const Id128 id = system_clock().random_id();
  std::unique_ptr<Sender> sender;
  std::unique_ptr<Receiver> receiver;
  std::unique_ptr<Volume> view;
  std::optional<NotingTarget> target;
  std::optional<MirrorSource> source;
};

// A primary with one mirror, and what it has published.
class Primary final : public ChangeFeed {
 public:
  explicit Primary(MemoryNetwork& network, std::uint64_t size_blocks = kSmallBlocks,
                   std::optional<std::uint64_t> pin_size_bytes = {})
      : test(size_blocks) {
    test.options.pin_size_bytes = pin_size_bytes;
    start(network);
  }
  ~Primary() override { sender->stop(); }

  void on_blocks(Cp cp, std::span<const BlockWrite> blocks) override { sender->on_blocks(cp, blocks); }
  void on_published(const RootBlock& root) override {
    {
      MutexLock lock(mutex_);
      roots_[Cp{root.cp}] = root.checksum;
    }
    sender->on_published(root);
  }
  void on_adopted(const RootBlock&, std::uint64_t) override {}
  void on_pin_lost(const LostPin& lost) override { sender->on_pin_lost(lost); }

  void stop() {
    sender->stop();
    REQUIRE(test.volume->close().ok());
    test.volume.reset();
  }
  void start(MemoryNetwork& network) {
    sender = Sender::create(sender_to(network));
    test.options.feed = this;
    test.open();
    {
      const RootBlock root = test.volume->newest_root();
      MutexLock lock(mutex_);
      roots_[Cp{root.cp}] = root.checksum;
    }
    sender->start(*test.volume);
  }

  // One more state: a file with new content, and the counters of two files that are always in step.
  Cp change(std::uint64_t blocks = 64) {
    ++number_;
    const std::string counter = std::to_string(number_) + "\n";
    REQUIRE(test.write(file("a"), 0, counter).ok());
    REQUIRE(test.write(file("b"), 0, counter).ok());
    std::string content(blocks * kBlockSize, 'x');
    for (std::size_t i = 0; i < content.size(); i += 64) content.replace(i, counter.size(), counter);
    REQUIRE(test.write(file("content-" + std::to_string(number_ % 3)), 0, content).ok());
    return test.volume->consistency_point().value();
  }
  bool publish(Cp cp) { return sender->wait_published(cp, kPatience).ok(); }
  InodeNumber file(const std::string& name) {
    const auto found = test.volume->lookup(kRootDirectory, name);
    return found.ok() ? found->inode : test.make(kRootDirectory, name);
  }
  std::map<Cp, std::uint64_t> roots() const {
    MutexLock lock(mutex_);
    return roots_;
  }
  Cp newest() { return Cp{test.volume->newest_root().cp}; }

  TestVolume test;
  std::unique_ptr<Sender> sender;

 private:
  std::uint64_t number_ = 0;
  mutable Mutex mutex_;
  std::map<Cp, std::uint64_t> roots_ TARNFS_GUARDED_BY(mutex_);
};

// All that the mirror ever showed are states of the primary.
void check_shown(const Primary& primary, const Mirror& mirror) {
  const auto roots = primary.roots();
  for (const auto& shown : mirror.target->shown()) {
    CAPTURE(shown.first.value);
    REQUIRE(roots.contains(shown.first));
    CHECK(roots.at(shown.first) == shown.second);
  }
}

// Has the state `cp` of the primary, whole.
void check_has(Primary& primary, Mirror& mirror, DeviceStorage& storage, Cp cp) {
  REQUIRE(mirror.wait_published(cp));
  CHECK(mirror.published() == cp);
  check_shown(primary, mirror);
  CHECK(problems_of(*storage.image) == "");
  for (const char* const name : {"a", "b", "content-0", "content-1", "content-2"}) {
    CHECK(content_of(*mirror.view, name) == content_of(*primary.test.volume, name));
  }
}

// Reads two files of a mirror again and again, which both are there and count up in step.
class Reader {
 public:
  explicit Reader(Mirror& mirror) : thread_([this, &mirror] { run(*mirror.view); }) {}
  ~Reader() {
    ending_ = true;
    thread_.join();
  }
  std::atomic<std::uint64_t> good{0};
  std::atomic<std::uint64_t> bad{0};

 private:
  // What is read first is never newer.
  void run(Volume& view) {
    while (!ending_) {
      const std::string a = content_of(view, "a");
      const std::string b = content_of(view, "b");
      const bool in_step = !a.starts_with("error") && !b.starts_with("error") && std::stoull(a) <= std::stoull(b);
      ++(in_step ? good : bad);
    }
  }
  std::atomic<bool> ending_{false};
  std::thread thread_;
};

// The third mirror has one state, and of the next one a part; it gets no more until let_go().
struct HeldCopy {
  explicit HeldCopy(const MirrorOptions& wanted = {}, std::optional<std::uint64_t> pin_size_bytes = {})
      : options(wanted), primary(first, kSmallBlocks, pin_size_bytes) {
    options.feeds = &second;
    middle.emplace(middle_storage, first, options);
    third.emplace(third_storage, second);
    const Cp begin = primary.change();
    REQUIRE(primary.publish(begin));
    REQUIRE(third->wait_published(begin));
    REQUIRE(middle->sender->wait_published(begin, kPatience).ok());
    const std::uint64_t sent_bytes = middle->sender->status().sent_bytes;
    second.hold(true);
    copied = primary.change(200);
    REQUIRE(primary.publish(copied));
    const auto has_begun = [sent_bytes](const SenderStatus& status) {
      return status.state == SenderState::kCatchingUp && status.sent_bytes > sent_bytes;
    };
    REQUIRE(middle->sender->wait_for(has_begun, kPatience).ok());
  }
  // The primary goes on for so long that it uses each block several times, and the middle mirror keeps up.
  void go_on(int rounds = 60) {
    for (int round = 0; round < rounds; ++round) {
      newest = primary.change(200);
      REQUIRE(primary.publish(newest));
    }
  }
  void let_go() { second.hold(false); }
  bool third_showed_copied() const { return third->target->shown().contains(copied); }

  MemoryNetwork first;
  MemoryNetwork second;
  DeviceStorage middle_storage;
  DeviceStorage third_storage;
  MirrorOptions options;
  Primary primary;
  std::optional<Mirror> middle;
  std::optional<Mirror> third;
  Cp copied;
  Cp newest;
};

}  // namespace

TEST_CASE("a mirror of a mirror gets every state in the end, and shows states of the primary only") {
  MemoryNetwork first;
  MemoryNetwork second;
  DeviceStorage middle_storage;
  DeviceStorage third_storage;
  MirrorOptions options;
  options.feeds = &second;
  // Nobody has anything yet, and the order in which they start is of no importance.
  Mirror third(third_storage, second);
  Mirror middle(middle_storage, first, options);
  CHECK(middle.sender->status().state == SenderState::kConnecting);
  CHECK(second.connections() == 0);
  Primary primary(first);
  Cp newest;
  for (int round = 0; round < 20; ++round) {
    newest = primary.change();
    REQUIRE(primary.publish(newest));
    if (round % 4 == 0) REQUIRE(middle.sender->wait_published(newest, kPatience).ok());
  }
  check_has(primary, middle, middle_storage, newest);
  check_has(primary, third, third_storage, newest);
  REQUIRE(middle.sender->wait_published(newest, kPatience).ok());
  const SenderStatus status = middle.sender->status();
  CHECK(status.lag_cps == 0);
  CHECK(status.lag_bytes == 0);
  CHECK(status.pins_lost == 0);
  CHECK(status.queued_bytes == 0);
  CHECK(second.connections() == 1);
}

TEST_CASE("what is being sent on is kept while the middle mirror goes on") {
  HeldCopy held;
  Reader reader(*held.third);
  held.go_on();
  CHECK(held.middle->published() == held.newest);
  CHECK(held.middle->kept_bytes() > 0);
  const SenderStatus status = held.middle->sender->status();
  CHECK(status.held_bytes > 0);
  CHECK(status.lag_cps >= 60);
  CHECK(status.lag_bytes > 0);
  held.let_go();
  check_has(held.primary, *held.third, held.third_storage, held.newest);
  CHECK(held.third_showed_copied());
  CHECK(held.middle->sender->status().pins_lost == 0);
  REQUIRE(held.middle->sender->wait_published(held.newest, kPatience).ok());
  CHECK(held.second.connections() == 1);
  CHECK(reader.bad == 0);
  // After the last copy nothing is kept any more.
  REQUIRE(
      held.middle->sender->wait_for([](const SenderStatus& now) { return now.state == SenderState::kLive; }, kPatience)
          .ok());
  CHECK(held.middle->kept_bytes() == 0);
  CHECK(problems_of(*held.middle_storage.image) == "");
}

TEST_CASE("what was staged at the middle mirror is kept too") {
  // The primary keeps next to nothing for the middle mirror, and uses what that shows while it is away.
  HeldCopy held({}, 64 << 10);
  held.first.set_reachable(false);
  held.first.cut();
  // Until what the middle mirror lacks has to be staged there.
  std::uint64_t staged = 0;
  for (int round = 0; round < 200 && staged < 20; ++round) {
    held.newest = held.primary.change(200);
    staged = 0;
    const RootBlock root = held.primary.test.volume->newest_root();
    const auto count = [&](const BlockWrite& block) -> Status {
      staged += held.middle->view->in_use(block.address).value() ? 1 : 0;
      return {};
    };
    REQUIRE(held.primary.test.volume->walk_changed(root, held.copied, count).ok());
  }
  REQUIRE(staged >= 20);
  held.first.set_reachable(true);
  REQUIRE(held.primary.publish(held.newest));
  CHECK(held.primary.sender->status().pins_lost > 0);
  CHECK(held.middle->kept_bytes() == staged * kBlockSize);
  held.let_go();
  check_has(held.primary, *held.third, held.third_storage, held.newest);
  CHECK(held.third_showed_copied());
  CHECK(held.middle->sender->status().pins_lost == 0);
}

TEST_CASE("beyond the limit the copy begins again, and the middle mirror was not held up") {
  MirrorOptions options;
  options.kept_limit_bytes = 64 << 10;
  HeldCopy held(options);
  held.go_on();
  CHECK(held.middle->published() == held.newest);
  CHECK(held.middle->kept_bytes() == 0);
  CHECK(held.middle->sender->status().pins_lost == 1);
  held.let_go();
  check_has(held.primary, *held.third, held.third_storage, held.newest);
  CHECK_FALSE(held.third_showed_copied());
  CHECK(held.second.connections() > 1);
  CHECK(problems_of(*held.middle_storage.image) == "");
}

TEST_CASE("a third mirror that follows under load is at one of the primary's states all the time") {
  MemoryNetwork first;
  MemoryNetwork second;
  DeviceStorage middle_storage;
  DeviceStorage third_storage;
  MirrorOptions options;
  options.feeds = &second;
  Mirror third(third_storage, second);
  Mirror middle(middle_storage, first, options);
  Primary primary(first);
  Cp newest = primary.change();
  REQUIRE(primary.publish(newest));
  REQUIRE(third.wait_published(newest));
  {
    Reader reader(third);
    for (int round = 0; round < 150; ++round) {
      newest = primary.change(100);
      // Not each of them, so that the primary's stream and its walks both take their turns.
      if (round % 3 == 0) REQUIRE(primary.publish(newest));
      if (round % 20 == 10) second.cut();
      if (round % 20 == 15) first.cut();
    }
    REQUIRE(primary.publish(newest));
    check_has(primary, third, third_storage, newest);
    CHECK(reader.good > 0);
    CHECK(reader.bad == 0);
  }
  CHECK(third.target->shown().size() > 3);
  check_shown(primary, middle);
}

TEST_CASE("each may be away or start again, and the third mirror comes to what the middle one has") {
  HeldCopy held;
  // The middle mirror ends in the middle of a copy, and what it kept is gone.
  held.go_on();
  held.middle.reset();
  held.let_go();
  for (int round = 0; round < 10; ++round) held.newest = held.primary.change();
  held.middle.emplace(held.middle_storage, held.first, held.options);
  REQUIRE(held.primary.publish(held.newest));
  check_has(held.primary, *held.third, held.third_storage, held.newest);
  // The third one is away, while everything is used again, and far behind then.
  held.third.reset();
  held.go_on();
  CHECK(held.middle->kept_bytes() == 0);
  CHECK(held.middle->sender->status().lag_cps >= 60);
  held.third.emplace(held.third_storage, held.second);
  held.middle->sender->reconnect_now();
  check_has(held.primary, *held.third, held.third_storage, held.newest);
  // The primary is away, and both mirrors start again meanwhile: what the middle one has the third one gets.
  held.third.reset();
  held.go_on(5);
  held.primary.stop();
  held.middle.reset();
  held.middle.emplace(held.middle_storage, held.first, held.options);
  held.third.emplace(held.third_storage, held.second);
  REQUIRE(held.third->wait_published(held.newest));
  held.primary.start(held.first);
  held.newest = held.primary.change();
  REQUIRE(held.primary.publish(held.newest));
  check_has(held.primary, *held.third, held.third_storage, held.newest);
  check_has(held.primary, *held.middle, held.middle_storage, held.newest);
}

TEST_CASE("a first copy to the third mirror that is cut off again and again loses nothing") {
  MemoryNetwork first;
  MemoryNetwork second;
  DeviceStorage middle_storage;
  DeviceStorage third_storage;
  MirrorOptions options;
  options.feeds = &second;
  Mirror middle(middle_storage, first, options);
  Primary primary(first);
  Cp newest;
  for (int round = 0; round < 3; ++round) newest = primary.change(400);
  REQUIRE(primary.publish(newest));
  for (std::uint64_t message = 1; message < 60; message += 7) {
    Mirror third(third_storage, second);
    second.cut_at_message(message);
    middle.sender->reconnect_now();
    newest = primary.change(300);
    REQUIRE(primary.publish(newest));
    check_has(primary, third, third_storage, newest);
    second.cut_at_message({});
  }
}

TEST_CASE("a mirror is fed by the primary or by another mirror, as it comes") {
  MemoryNetwork first;
  MemoryNetwork second;
  DeviceStorage middle_storage;
  DeviceStorage third_storage;
  MirrorOptions options;
  options.feeds = &second;
  Mirror third(third_storage, second);
  std::optional<Mirror> middle(std::in_place, middle_storage, first, options);
  Primary primary(first);
  Cp newest = primary.change();
  REQUIRE(primary.publish(newest));
  check_has(primary, third, third_storage, newest);
  // While one feeds it the other is refused.
  primary.stop();
  primary.start(second);
  CHECK(
      primary.sender->wait_for([](const SenderStatus& status) { return !status.last_error.empty(); }, kPatience).ok());
  CHECK(primary.sender->status().last_error.find("already serves") != std::string::npos);
  // From the middle mirror to the primary.
  middle.reset();
  newest = primary.change();
  REQUIRE(primary.publish(newest));
  newest = primary.change();
  REQUIRE(primary.publish(newest));
  check_has(primary, third, third_storage, newest);
  // And back to a middle mirror that is behind it: that waits until it has got there.
  primary.stop();
  middle.emplace(middle_storage, first, options);
  const auto is_told = [](const SenderStatus& status) {
    return status.state == SenderState::kConnecting &&
           status.last_error.find("it goes on when this one has got there") != std::string::npos;
  };
  REQUIRE(middle->sender->wait_for(is_told, kPatience).ok());
  CHECK(third.published() == newest);
  primary.start(first);
  newest = primary.change();
  REQUIRE(primary.publish(newest));
  check_has(primary, third, third_storage, newest);
  check_has(primary, *middle, middle_storage, newest);
  CHECK(middle->sender->wait_for([](const SenderStatus& status) { return status.last_error.empty(); }, kPatience).ok());
}

TEST_CASE("mounts that the mirror in the middle has passed over are passed over by the third one too") {
  MemoryNetwork first;
  MemoryNetwork second;
  DeviceStorage middle_storage;
  DeviceStorage third_storage;
  MirrorOptions options;
  options.feeds = &second;
  Mirror third(third_storage, second);
  Mirror middle(middle_storage, first, options);
  Primary primary(first);
  REQUIRE(primary.publish(primary.change()));
  check_has(primary, third, third_storage, primary.newest());
  const std::uint64_t sent_bytes = middle.sender->status().sent_bytes;
  // Each mount has an epoch of its own.
  MemoryNetwork nowhere;
  for (int mount = 0; mount < 4; ++mount) {
    primary.stop();
    primary.start(mount < 3 ? nowhere : first);
    primary.change();
  }
  REQUIRE(primary.publish(primary.newest()));
  check_has(primary, third, third_storage, primary.newest());
  CHECK(middle.sender->status().state != SenderState::kDiverged);
  CHECK(middle.sender->status().sent_bytes > sent_bytes);
  CHECK(middle.sender->status().last_error.empty());
}

// The middle one had been compared in full, and the third one was sent what was born since a cp of the other line.
TEST_CASE("a middle mirror that turned out to have another line of the volume takes the third one along") {
  for (const bool is_connected : {true, false}) {
    CAPTURE(is_connected);
    MemoryNetwork first;
    MemoryNetwork second;
    MemoryNetwork nowhere;
    DeviceStorage middle_storage;
    DeviceStorage third_storage;
    MirrorOptions options;
    options.feeds = &second;
    Mirror middle(middle_storage, first, options);
    std::optional<Mirror> third(std::in_place, third_storage, second);
    Primary primary(first);
    REQUIRE(primary.publish(primary.change()));
    auto older = primary.test.device->clone();
    for (int i = 0; i < 5; ++i) REQUIRE(primary.publish(primary.change()));
    const Cp met = primary.newest();
    REQUIRE(middle.sender->wait_published(met, kPatience).ok());
    if (!is_connected) third.reset();
    // Nothing tells any more that the state which both have was none of this line.
    primary.stop();
    primary.test.device = std::move(older);
    for (std::uint64_t mount = 0; mount < kHistoryMax + met.value; ++mount) {
      primary.start(nowhere);
      if (mount == 0) REQUIRE(primary.test.write(primary.file("still"), 0, std::string(50 * kBlockSize, 's')).ok());
      CHECK((primary.change() < met || mount > 0));
      primary.stop();
    }
    primary.start(first);
    REQUIRE(primary.publish(primary.change()));
    if (!is_connected) third.emplace(third_storage, second);
    REQUIRE(middle.sender->wait_published(primary.newest(), kPatience).ok());
    CHECK(problems_of(*third_storage.image) == "");
    for (const char* const name : {"a", "b", "content-0", "content-1", "content-2", "still"}) {
      CAPTURE(name);
      CHECK((content_of(*third->view, name) == content_of(*primary.test.volume, name)));
    }
    // Once.
    CHECK_FALSE(middle.sender->status().compare_due);
    const std::uint64_t sent_bytes = middle.sender->status().sent_bytes;
    REQUIRE(primary.publish(primary.change(1)));
    REQUIRE(middle.sender->wait_published(primary.newest(), kPatience).ok());
    CHECK(middle.sender->status().sent_bytes < sent_bytes + 32 * kBlockSize);
  }
}

TEST_CASE("the third mirror takes no other volume, and no other past") {
  MemoryNetwork first;
  MemoryNetwork second;
  DeviceStorage middle_storage;
  DeviceStorage third_storage;
  MirrorOptions options;
  options.feeds = &second;
  Mirror third(third_storage, second);
  Primary primary(first);
  {
    Mirror middle(middle_storage, first, options);
    REQUIRE(primary.publish(primary.change()));
    check_has(primary, third, third_storage, primary.newest());
  }
  const Cp common = primary.newest();
  const auto refused = [](const SenderStatus& status) { return !status.last_error.empty(); };
  {
    MemoryNetwork other_first;
    DeviceStorage other_storage;
    Mirror other(other_storage, other_first, options);
    Primary other_primary(other_first);
    REQUIRE(other_primary.publish(other_primary.change()));
    REQUIRE(other.sender->wait_for(refused, kPatience).ok());
    CHECK(other.sender->status().last_error.find("give this volume a mirror of its own") != std::string::npos);
    CHECK(third.published() == common);
  }
  // Two ways on from one state: a copy of the primary's image, and the primary.
  MemoryNetwork fork_first;
  DeviceStorage fork_storage;
  fork_storage.image = std::shared_ptr<MemoryBlockDevice>(middle_storage.image->clone());
  Primary fork(fork_first);
  primary.stop();
  fork.stop();
  fork.test.device = primary.test.device->clone();
  fork.start(fork_first);
  primary.start(first);
  {
    Mirror middle(middle_storage, first, options);
    REQUIRE(primary.publish(primary.change(10)));
    check_has(primary, third, third_storage, primary.newest());
  }
  Mirror fork_middle(fork_storage, fork_first, options);
  const Cp head = fork.change(20);
  REQUIRE(fork.publish(head));
  while (fork.newest() < primary.newest()) REQUIRE(fork.publish(fork.change(20)));
  REQUIRE(fork_middle.sender
              ->wait_for([](const SenderStatus& status) { return status.state == SenderState::kDiverged; }, kPatience)
              .ok());
  CHECK(third.published() == primary.newest());
  check_has(primary, third, third_storage, primary.newest());
}

TEST_CASE("a volume that grows takes both mirrors along") {
  MemoryNetwork first;
  MemoryNetwork second;
  DeviceStorage middle_storage;
  DeviceStorage third_storage;
  MirrorOptions options;
  options.feeds = &second;
  Mirror third(third_storage, second);
  Mirror middle(middle_storage, first, options);
  Primary primary(first);
  Cp newest = primary.change();
  REQUIRE(primary.publish(newest));
  check_has(primary, third, third_storage, newest);
  primary.test.device->give_room(2 * kSmallBlocks);
  middle_storage.image->give_room(2 * kSmallBlocks);
  third_storage.image->give_room(2 * kSmallBlocks);
  REQUIRE(primary.test.volume->resize(2 * kSmallBlocks * kBlockSize).ok());
  for (int round = 0; round < 10; ++round) {
    newest = primary.change(700);
    REQUIRE(primary.publish(newest));
  }
  check_has(primary, third, third_storage, newest);
  CHECK(third.view->newest_root().size_blocks == 2 * kSmallBlocks);
  CHECK(third_storage.image->size_blocks() == 2 * kSmallBlocks);
}

TEST_CASE("a mirror does not feed itself") {
  MemoryNetwork network;
  DeviceStorage storage;
  MirrorOptions options;
  options.feeds = &network;
  Primary primary(network);
  Mirror mirror(storage, network, options);
  const Cp newest = primary.change();
  REQUIRE(primary.publish(newest));
  const auto refused = [](const SenderStatus& status) {
    return status.last_error.find("does not feed itself") != std::string::npos;
  };
  CHECK(mirror.sender->wait_for(refused, kPatience).ok());
  REQUIRE(primary.publish(primary.change()));
}
