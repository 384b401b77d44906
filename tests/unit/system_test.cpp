// The whole of it in one process: an engine, its sender, a receiver, and the engine that shows the mirror's state.
//
// A writer keeps two files in step (first A, then B, each holding the same counter), so every state at one moment has
// B = A or B = A - 1. Readers of the mirror check that in every state that they can see while it moves.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <atomic>
#include <map>
#include <random>
#include <set>
#include <thread>
#include <utility>

#include "mirror/receiver/receiver.h"
#include "mirror/sender/sender.h"
#include "tests/support/device_mirror_storage.h"
#include "tests/support/memory_channel.h"
#include "tests/support/seed.h"
#include "tests/support/test_volume.h"

using namespace tarnfs;
using namespace tarnfs::testing;

namespace {

constexpr std::chrono::milliseconds kPatience{60000};

class Mirror {
 public:
  Mirror(DeviceStorage& storage, MemoryNetwork& network) {
    receiver_ = std::move(Receiver::open(storage, ReceiverOptions{}).value());
    VolumeOptions options;
    options.mode = VolumeMode::kMirror;
    view = std::move(Volume::open(receiver_->device(), options).value());
    REQUIRE(receiver_->start(*view, network.listen()).ok());
  }
  ~Mirror() { receiver_->stop(); }
  ReceiverStatus status() const { return receiver_->status(); }

  std::unique_ptr<Volume> view;

 private:
  std::unique_ptr<Receiver> receiver_;
};

// A primary whose engine feeds a sender.
class Primary {
 public:
  explicit Primary(MemoryNetwork& network) {
    SenderOptions options;
    options.url = "memory";
    options.connect = network.connector();
    options.backoff_min_ms = 1;
    options.backoff_max_ms = 10;
    sender = Sender::create(options);
    volume.options.feed = sender.get();
    volume.reopen();
    sender->start(*volume.volume);
  }
  ~Primary() { sender->stop(); }

  bool published() {
    const auto cp = volume.volume->consistency_point();
    return cp.ok() && sender->wait_published(*cp, kPatience).ok();
  }

  TestVolume volume{std::uint64_t{1} << 18};
  std::unique_ptr<Sender> sender;
};

}  // namespace

TEST_CASE("the mirror has the tree, is clean, and moves with every consistency point") {
  MemoryNetwork network;
  DeviceStorage storage;
  Mirror mirror(storage, network);
  Primary primary(network);
  Volume& volume = *primary.volume.volume;
  for (int round = 0; round < 30; ++round) {
    const std::string name = "dir" + std::to_string(round % 7);
    auto directory = volume.lookup(kRootDirectory, name);
    if (!directory.ok()) directory = volume.make_node(kRootDirectory, name, NewNode{S_IFDIR | 0755, 0, 0, {}, {}});
    for (int i = 0; i < 50; ++i) {
      const std::string file = std::to_string(round) + "-" + std::to_string(i);
      const InodeNumber inode = primary.volume.make(directory->inode, file);
      REQUIRE(primary.volume.write(inode, 0, file + std::string(static_cast<std::size_t>(i) * 300, 'x')).ok());
      if (i % 4 == 0) {
        REQUIRE(volume.unlink(directory->inode, file).ok());
        volume.forget(inode, 1);
      }
    }
    REQUIRE(primary.published());
    const auto seen = mirror.view->lookup(kRootDirectory, name);
    REQUIRE(seen.ok());
    const std::string file = std::to_string(round) + "-7";
    const auto copy = mirror.view->lookup(seen->inode, file);
    REQUIRE(copy.ok());
    std::string text(copy->size_bytes, '?');
    CHECK(mirror.view->read(copy->inode, 0, std::as_writable_bytes(std::span(text))).ok());
    CHECK(text == file + std::string(2100, 'x'));
    CHECK(mirror.view->lookup(seen->inode, std::to_string(round) + "-8").error().code() == ErrorCode::kNotFound);
  }
  CHECK(mirror.status().published == state_of(volume.newest_root()));
  CHECK(problems_of(*storage.image) == "");
}

TEST_CASE("every state that a reader of the mirror can see is one moment of the primary") {
  MemoryNetwork network;
  DeviceStorage storage;
  Mirror mirror(storage, network);
  Primary primary(network);
  const InodeNumber a = primary.volume.make(kRootDirectory, "a");
  const InodeNumber b = primary.volume.make(kRootDirectory, "b");
  // Larger than a block, so that one read crosses blocks of one state.
  const auto text_of = [](std::uint64_t n) {
    std::string text = std::to_string(n);
    text.resize(30000, static_cast<char>('a' + n % 26));
    return text;
  };
  REQUIRE(primary.volume.write(a, 0, text_of(0)).ok());
  REQUIRE(primary.volume.write(b, 0, text_of(0)).ok());
  REQUIRE(primary.published());

  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> checked{0};
  std::string failure;
  std::thread reader([&] {
    while (!done && failure.empty()) {
      const std::string first = content_of(*mirror.view, "a");
      const std::string second = content_of(*mirror.view, "b");
      const std::string again = content_of(*mirror.view, "a");
      const std::uint64_t n = std::strtoull(first.c_str(), nullptr, 10);
      const std::uint64_t m = std::strtoull(second.c_str(), nullptr, 10);
      if (first != text_of(n) || second != text_of(m))
        failure = "a mixed read: " + first.substr(0, 60) + " / " + second.substr(0, 60);
      if (first == again && m != n && m + 1 != n)
        failure = "a mixed state: " + std::to_string(n) + " " + std::to_string(m);
      ++checked;
    }
  });
  std::thread publisher([&] {
    while (!done) TARNFS_ASSERT(primary.volume.volume->consistency_point().ok());
  });
  constexpr std::uint64_t kPublishes = 300;
  std::uint64_t last = 0;
  while (mirror.status().published.cp.value < kPublishes) {
    const std::uint64_t n = ++last;
    REQUIRE(primary.volume.write(a, 0, text_of(n)).ok());
    REQUIRE(primary.volume.write(b, 0, text_of(n)).ok());
  }
  CHECK(primary.published());
  done = true;
  publisher.join();
  reader.join();
  CHECK(failure == "");
  CHECK(checked > 0);
  MESSAGE("checked " << checked.load() << " times over " << kPublishes << " publishes");
  CHECK(content_of(*mirror.view, "a") == text_of(last));
}

TEST_CASE("a mirror that was away catches up over reused blocks, and is clean in every state") {
  std::mt19937_64 random(printed_seed());
  MemoryNetwork network;
  DeviceStorage storage;
  auto mirror = std::make_unique<Mirror>(storage, network);
  Primary primary(network);
  std::map<std::string, InodeNumber> files;
  for (int round = 0; round < 40; ++round) {
    for (int i = 0; i < 60; ++i) {
      const std::string name = std::to_string(random() % 200);
      if (!files.contains(name)) files[name] = primary.volume.make(kRootDirectory, name);
      REQUIRE(primary.volume.write(files[name], random() % 50000, std::string(1 + random() % 20000, 'r')).ok());
    }
    if (random() % 3 == 0) REQUIRE(primary.volume.volume->consistency_point().ok());
    if (random() % 4 == 0) {
      const bool has_state = mirror->status().published.cp.value > 0;  // it may have been stopped before the first
      mirror.reset();
      if (random() % 2 == 0) REQUIRE(primary.volume.volume->consistency_point().ok());
      if (has_state) CHECK(problems_of(*storage.image) == "");
      mirror = std::make_unique<Mirror>(storage, network);
      primary.sender->reconnect_now();
    }
    if (random() % 4 == 0) REQUIRE(primary.published());
  }
  REQUIRE(primary.published());
  CHECK(mirror->status().published == state_of(primary.volume.volume->newest_root()));
  CHECK(problems_of(*storage.image) == "");
  for (const auto& [name, inode] : files) {
    CHECK(content_of(*mirror->view, name) == content_of(*primary.volume.volume, name));
  }
}

TEST_CASE("copies that share blocks reach a mirror that is there and one that was away") {
  std::mt19937_64 random(printed_seed());
  MemoryNetwork network;
  DeviceStorage storage;
  auto mirror = std::make_unique<Mirror>(storage, network);
  Primary primary(network);
  Volume& volume = *primary.volume.volume;
  std::vector<InodeNumber> files;
  files.reserve(12);
  for (int i = 0; i < 12; ++i) files.push_back(primary.volume.make(kRootDirectory, std::to_string(i)));
  for (int round = 0; round < 40; ++round) {
    for (int i = 0; i < 12; ++i) {
      const InodeNumber file = files[random() % files.size()];
      const InodeNumber other = files[random() % files.size()];
      const std::uint64_t offset = random() % 40 * kBlockSize;
      if (random() % 3 == 0) {
        const std::string text(1 + random() % 60000, static_cast<char>('a' + random() % 26));
        REQUIRE(primary.volume.write(file, offset, text).ok());
      } else if (file != other) {
        REQUIRE(volume.copy_range(other, offset, file, random() % 40 * kBlockSize, random() % 100000).ok());
      }
    }
    AttributeChanges shorter;
    shorter.size_bytes = random() % 100000;
    REQUIRE(volume.change_attributes(files[random() % files.size()], shorter).ok());
    if (random() % 2 == 0) REQUIRE(volume.consistency_point().ok());
    if (random() % 4 == 0) {
      mirror.reset();
      if (random() % 2 == 0) REQUIRE(volume.consistency_point().ok());
      mirror = std::make_unique<Mirror>(storage, network);
      primary.sender->reconnect_now();
    }
    if (random() % 3 != 0) continue;
    REQUIRE(primary.published());
    REQUIRE(problems_of(*storage.image) == "");
    for (int i = 0; i < 12; ++i)
      REQUIRE(content_of(*mirror->view, std::to_string(i)) == content_of(volume, std::to_string(i)));
  }
  REQUIRE(primary.published());
  CHECK(mirror->status().published == state_of(volume.newest_root()));
  CHECK(problems_of(*storage.image) == "");
}

TEST_CASE("the first copy to a mirror has each shared block once") {
  TestVolume test;
  const InodeNumber source = test.make(kRootDirectory, "source");
  std::string text;
  for (int i = 0; i < 500; ++i) text += std::string(kBlockSize, static_cast<char>(i % 100));
  REQUIRE(test.write(source, 0, text).ok());
  REQUIRE(test.volume->consistency_point().ok());
  const Cp before{test.volume->newest_root().cp};
  for (const std::string name : {"one", "two", "three"}) {
    const InodeNumber copy = test.make(kRootDirectory, name);
    REQUIRE(test.volume->copy_range(source, 0, copy, 0, text.size()).value() == text.size());
  }
  REQUIRE(test.volume->consistency_point().ok());
  const RootBlock root = test.volume->newest_root();
  std::map<std::uint64_t, int> visits;
  const auto visit = [&](const BlockWrite& block) -> Status {
    ++visits[block.address.value];
    return {};
  };
  REQUIRE(test.volume->walk_changed(root, Cp{0}, visit).ok());
  CHECK(visits.size() + test.volume->superblock().journal_blocks == root.used_blocks);
  for (const auto& [address, count] : visits) REQUIRE(count == 1);
  visits.clear();
  REQUIRE(test.volume->walk_changed(root, before, visit).ok());
  CHECK(visits.size() < 50);  // no data at all
}

TEST_CASE("a mirror that was away while a hot set was rewritten ten times gets what differs, once") {
  MemoryNetwork network;
  DeviceStorage storage;
  Mirror mirror(storage, network);
  Primary primary(network);
  Volume& volume = *primary.volume.volume;
  std::mt19937_64 random(20240817);
  std::vector<InodeNumber> files;
  for (int i = 0; i < 40; ++i) {
    files.push_back(primary.volume.make(kRootDirectory, std::to_string(i)));
    REQUIRE(primary.volume.write(files.back(), 0, std::string(std::size_t{256} << 10, 'a')).ok());
  }
  REQUIRE(primary.published());
  const auto blocks_of = [&](const RootBlock& root) {
    std::set<std::pair<std::uint64_t, std::uint64_t>> blocks;
    const Status walked = volume.walk_changed(root, Cp{0}, [&](const BlockWrite& block) -> Status {
      blocks.emplace(block.address.value, block.checksum);
      return {};
    });
    REQUIRE(walked.ok());
    return blocks;
  };
  const auto old_blocks = blocks_of(volume.newest_root());

  network.set_reachable(false);
  network.cut();
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < 10; ++i) {  // the hot set
      for (int page = 0; page < 64; page += 1 + static_cast<int>(random() % 2)) {
        const std::string text(kBlockSize, static_cast<char>('b' + random() % 20));
        REQUIRE(primary.volume
                    .write(files[static_cast<std::size_t>(i)], static_cast<std::uint64_t>(page) * kBlockSize, text)
                    .ok());
      }
    }
    REQUIRE(volume.consistency_point().ok());
  }
  std::uint64_t differing = 0;
  for (const auto& block : blocks_of(volume.newest_root())) differing += old_blocks.contains(block) ? 0 : 1;
  const std::uint64_t before = primary.sender->status().sent_bytes;
  network.set_reachable(true);
  primary.sender->reconnect_now();
  REQUIRE(primary.sender->wait_published(Cp{volume.newest_root().cp}, kPatience).ok());
  CHECK(mirror.status().published == state_of(volume.newest_root()));
  const std::uint64_t sent = (primary.sender->status().sent_bytes - before) / kBlockSize;
  MESSAGE("sent " << sent << " blocks for " << differing << " that differ");
  CHECK(differing > 500);
  CHECK(sent >= differing);
  CHECK(sent * 10 <= differing * 11);
}
