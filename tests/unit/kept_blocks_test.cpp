// What a mirror keeps of states that it has left: whatever is written over, each pinned root can be read whole.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "mirror/receiver/kept_blocks.h"
#include "tests/support/device_mirror_storage.h"
#include "tests/support/seed.h"

using namespace tarnfs;
using namespace tarnfs::testing;

namespace {

constexpr std::uint64_t kBlocks = 1024;
constexpr std::uint64_t kAreaBlocks = 60;  // addresses 20 to 79 are in use by turns

PageRef page_of_number(std::uint64_t number) {
  PageRef page = PageRef::zeroed();
  std::memcpy(page.mutable_bytes().data(), &number, sizeof number);
  return page;
}

// What each root refers to: addresses, and the number that stands there.
using Blocks = std::map<std::uint64_t, std::uint64_t>;

// The mirror's image and its states, without a receiver: blocks go to their places, or first to a staging place.
class Mirror final : public MirrorTarget, public ChangeFeed {
 public:
  explicit Mirror(std::optional<std::uint64_t> limit_bytes = {}) : kept(storage, options(limit_bytes)) {
    root_.size_blocks = kBlocks;
    root_.cp = 0;
  }

  Status adopt(const RootBlock&) override { return {}; }
  Result<bool> in_use(Address) override { return false; }
  Result<bool> in_use_by(const RootBlock& root, Address address) override {
    if (failing) return Error(ErrorCode::kIo, "injected failure");
    return states.at(root.cp).contains(address.value);
  }
  void on_blocks(Cp, std::span<const BlockWrite>) override {}
  void on_published(const RootBlock&) override {}
  void on_adopted(const RootBlock&, std::uint64_t) override {}
  void on_pin_lost(const LostPin& pin) override { lost.push_back(pin); }

  // The next root has these blocks. What the published root has not at the same address goes to its place first; the
  // rest is staged, and copied after the root was published.
  void publish(const Blocks& next) {
    const Cp cp{root_.cp + 1};
    const Blocks before = states[root_.cp];
    std::vector<Address> in_place;
    std::vector<Address> staged;
    for (const auto& [address, number] : next) {
      const auto old = before.find(address);
      if (old != before.end() && old->second == number) continue;
      (old == before.end() ? in_place : staged).push_back(Address{address});
    }
    write(cp, in_place, next);
    states[cp.value] = next;
    root_.cp = cp.value;
    if (while_staged && !staged.empty()) while_staged();
    write(cp, staged, next);
  }
  PinId pin() {
    const PinnedRoot pinned = kept.pin([this] { return root_; });
    return pinned.pin;
  }
  Cp published() const { return Cp{root_.cp}; }

  // Is all of a root there, in the image or kept? For the published one only when nothing is staged.
  bool is_whole(Cp cp) {
    return std::all_of(states[cp.value].begin(), states[cp.value].end(),
                       [this](const auto& block) { return find(block.first, block.second); });
  }

  DeviceStorage storage;
  KeptBlocks kept;
  std::map<std::uint64_t, Blocks> states;
  std::vector<LostPin> lost;
  std::function<void()> while_staged;
  bool failing = false;
  MemoryBlockDevice image{kBlocks};

 private:
  KeptOptions options(std::optional<std::uint64_t> limit_bytes) {
    KeptOptions options;
    options.limit_bytes = limit_bytes;
    options.feed = this;
    return options;
  }
  void write(Cp cp, const std::vector<Address>& addresses, const Blocks& next) {
    kept.keep(image, *this, cp, addresses);
    for (const Address address : addresses) {
      const PageRef page = page_of_number(next.at(address.value));
      REQUIRE(image.write(address, std::span(&page, 1)).ok());
    }
  }
  bool find(std::uint64_t address, std::uint64_t number) {
    const PageRef expected = page_of_number(number);
    PageRef page = PageRef::uninitialised();
    REQUIRE(image.read(Address{address}, page.mutable_bytes()).ok());
    std::size_t copy = 0;
    do {
      if (std::ranges::equal(page.bytes(), expected.bytes())) return true;
    } while (kept.read(Address{address}, copy++, page.mutable_bytes()).ok());
    return false;
  }

  RootBlock root_;
};

Blocks some_blocks(std::mt19937_64& random, const Blocks& before, std::uint64_t& number) {
  Blocks next = before;
  for (int i = 0; i < 12; ++i) {
    const std::uint64_t address = 20 + random() % kAreaBlocks;
    if (random() % 3 == 0) {
      next.erase(address);
    } else {
      next[address] = ++number;
    }
  }
  return next;
}

Blocks filled(std::uint64_t first, std::uint64_t count, std::uint64_t number) {
  Blocks blocks;
  for (std::uint64_t i = 0; i < count; ++i) blocks[first + i] = number + i;
  return blocks;
}

}  // namespace

TEST_CASE("nothing is kept while nothing is pinned, and nothing for what is not written over") {
  Mirror mirror;
  mirror.publish(filled(20, 10, 100));
  mirror.publish(filled(20, 10, 200));
  CHECK(mirror.kept.kept_bytes() == 0);
  const PinId pin = mirror.pin();
  mirror.publish(filled(40, 10, 300));
  CHECK(mirror.kept.kept_bytes() == 0);
  mirror.publish(filled(20, 3, 400));
  CHECK(mirror.kept.kept_bytes() == 3 * kBlockSize);
  CHECK(mirror.kept.held_bytes(pin) == 3 * kBlockSize);
  CHECK(mirror.kept.is_pinned(Cp{2}));
  mirror.publish(filled(50, 3, 500));
  mirror.publish(filled(20, 3, 600));  // once is enough
  CHECK(mirror.kept.kept_bytes() == 3 * kBlockSize);
  CHECK(mirror.is_whole(Cp{2}));
  mirror.kept.unpin(pin);
  CHECK(mirror.kept.kept_bytes() == 0);
  CHECK_FALSE(mirror.kept.is_pinned(Cp{2}));
  CHECK_FALSE(mirror.is_whole(Cp{2}));
}

TEST_CASE("a root that is pinned while its staged blocks are copied is kept as it is") {
  Mirror mirror;
  mirror.publish(filled(20, 10, 100));
  std::optional<PinId> pin;
  const PinId before = mirror.pin();
  mirror.while_staged = [&] {
    if (!pin) pin = mirror.pin();
  };
  mirror.publish(filled(20, 10, 200));
  REQUIRE(pin);
  CHECK(mirror.is_whole(Cp{1}));
  CHECK(mirror.is_whole(Cp{2}));
  mirror.publish(filled(20, 10, 300));
  CHECK(mirror.is_whole(Cp{1}));
  CHECK(mirror.is_whole(Cp{2}));
  CHECK(mirror.kept.kept_bytes() == 20 * kBlockSize);
  mirror.kept.unpin(before);
  CHECK(mirror.kept.kept_bytes() == 10 * kBlockSize);
  CHECK(mirror.is_whole(Cp{2}));
  mirror.kept.unpin(*pin);
  CHECK(mirror.kept.kept_bytes() == 0);
}

TEST_CASE("every pinned root can be read, whatever is written over") {
  std::mt19937_64 random(printed_seed());
  Mirror mirror(kBlocks * kBlockSize);  // so that no pin is lost
  std::uint64_t number = 0;
  std::map<PinId, Cp> pins;
  std::uint64_t most_bytes = 0;
  mirror.while_staged = [&] {
    if (random() % 4 == 0) pins[mirror.pin()] = mirror.published();
  };
  for (int round = 0; round < 400; ++round) {
    if (random() % 3 == 0) pins[mirror.pin()] = mirror.published();
    mirror.publish(some_blocks(random, mirror.states[mirror.published().value], number));
    while (pins.size() > 4 || (!pins.empty() && random() % 4 == 0)) {
      const auto gone = std::next(pins.begin(), static_cast<std::ptrdiff_t>(random() % pins.size()));
      mirror.kept.unpin(gone->first);
      pins.erase(gone);
    }
    REQUIRE(mirror.lost.empty());
    for (const auto& [pin, cp] : pins) REQUIRE(mirror.is_whole(cp));
    REQUIRE(mirror.is_whole(mirror.published()));
    most_bytes = std::max(most_bytes, mirror.kept.kept_bytes());
  }
  CHECK(most_bytes > 0);
  // No block is there more often than pins can need it.
  CHECK(most_bytes <= 5 * kAreaBlocks * kBlockSize);
  for (const auto& [pin, cp] : pins) mirror.kept.unpin(pin);
  CHECK(mirror.kept.kept_bytes() == 0);
  CHECK(mirror.lost.empty());
}

TEST_CASE("beyond the limit the oldest pin is lost, and the others hold") {
  Mirror mirror(15 * kBlockSize);
  mirror.publish(filled(20, 10, 100));
  const PinId first = mirror.pin();
  mirror.publish(filled(20, 10, 200));
  CHECK(mirror.kept.held_bytes(first) == 10 * kBlockSize);
  const PinId second = mirror.pin();
  CHECK(mirror.is_whole(Cp{1}));
  mirror.publish(filled(20, 10, 300));
  REQUIRE(mirror.lost.size() == 1);
  CHECK(mirror.lost[0].pin == first);
  CHECK(mirror.lost[0].cp == Cp{1});
  CHECK(mirror.lost[0].why == PinLoss::kSize);
  CHECK(mirror.lost[0].held_bytes == 10 * kBlockSize);
  CHECK_FALSE(mirror.kept.is_pinned(Cp{1}));
  CHECK(mirror.kept.held_bytes(first) == 0);
  CHECK(mirror.is_whole(Cp{2}));
  CHECK(mirror.kept.kept_bytes() == 10 * kBlockSize);
  // One that needs more than there is room for goes too; then nothing is left.
  mirror.publish(filled(60, 16, 400));
  mirror.kept.unpin(second);
  const PinId third = mirror.pin();
  mirror.publish(filled(60, 16, 500));
  REQUIRE(mirror.lost.size() == 2);
  CHECK(mirror.lost[1].pin == third);
  CHECK(mirror.kept.kept_bytes() == 0);
  CHECK(mirror.is_whole(mirror.published()));
}

TEST_CASE("what cannot be kept loses its pin, and nothing else happens") {
  Mirror mirror;
  mirror.publish(filled(20, 10, 100));
  const PinId pin = mirror.pin();
  mirror.image.fail_from_call(0);
  mirror.kept.keep(mirror.image, mirror, Cp{2}, {Address{20}});
  mirror.image.fail_from_call({});
  REQUIRE(mirror.lost.size() == 1);
  CHECK(mirror.lost[0].why == PinLoss::kSpace);
  CHECK_FALSE(mirror.kept.is_pinned(Cp{1}));
  CHECK(mirror.kept.kept_bytes() == 0);
  mirror.kept.unpin(pin);
  const PinId next = mirror.pin();
  mirror.failing = true;
  mirror.publish(filled(20, 10, 200));
  CHECK(mirror.lost.size() == 2);
  mirror.failing = false;
  mirror.kept.unpin(next);
  mirror.pin();
  mirror.publish(filled(20, 10, 300));
  CHECK(mirror.is_whole(Cp{2}));
  CHECK(mirror.lost.size() == 2);
}

TEST_CASE("what is kept beside an image in a file has no name there") {
  std::string pattern = (std::filesystem::temp_directory_path() / "tarnfs-kept-XXXXXX").string();
  REQUIRE(::mkdtemp(pattern.data()) != nullptr);
  const auto storage = file_mirror_storage(pattern + "/mirror.tarnfs");
  {
    const auto device = storage->create_kept(100);
    REQUIRE(device.ok());
    const PageRef page = page_of_number(7);
    REQUIRE((*device)->write(Address{99}, std::span(&page, 1)).ok());
    PageRef read = PageRef::uninitialised();
    REQUIRE((*device)->read(Address{99}, read.mutable_bytes()).ok());
    CHECK(std::ranges::equal(read.bytes(), page.bytes()));
    CHECK(std::filesystem::is_empty(pattern));
    // Another process, or the next copy, has its own.
    CHECK(storage->create_kept(100).ok());
  }
  CHECK(std::filesystem::remove(pattern));
}
