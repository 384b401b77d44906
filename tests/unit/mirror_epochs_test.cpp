// A mirror and copies of its primary's image: each mount has an epoch of its own, so that states of one cp that were
// made in two mounts are told apart, for as long as epochs are kept.
#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "mirror/sender/change_fan_out.h"
#include "tests/support/volume_pair.h"

using namespace tarnfs;
using namespace tarnfs::testing;

namespace {

constexpr std::uint64_t kNoPinLimit = std::uint64_t{1} << 40;

std::vector<std::array<std::uint8_t, 16>> epochs_of(const RootBlock& root) {
  std::vector<std::array<std::uint8_t, 16>> epochs;
  for (std::uint32_t i = 0; i < root.history_count; ++i) epochs.push_back(root.history.at(i).epoch);
  epochs.push_back(root.epoch);
  return epochs;
}

// How many blocks of `after` are not as they were.
template <class Blocks>
auto count_differing(const Blocks& before, const Blocks& after) {
  return std::count_if(after.begin(), after.end(), [&](const auto& block) {
    const auto old = before.find(block.first);
    return old == before.end() || old->second != block.second;
  });
}

// Passes calls on, and says of which kinds they were, in order.
class NotingDevice final : public BlockDevice {
 public:
  explicit NotingDevice(BlockDevice& below) : below_(below) {}
  std::string name() const override { return below_.name(); }
  std::uint64_t size_blocks() const override { return below_.size_blocks(); }
  Status read(Address first, std::span<std::byte> out) override {
    calls += 'r';
    return below_.read(first, out);
  }
  Status write(Address first, std::span<const PageRef> pages) override {
    calls += 'w';
    return below_.write(first, pages);
  }
  Status flush() override {
    calls += 'f';
    return below_.flush();
  }

  std::string calls;

 private:
  BlockDevice& below_;
};

}  // namespace

TEST_CASE("each mount that writes has an epoch of its own, and the history says where the others ended") {
  TestVolume test;
  const RootBlock made = test.volume->newest_root();
  CHECK(made.history_count == 0);
  test.reopen();
  CHECK(test.volume->newest_root().checksum == made.checksum);
  for (std::uint32_t mount = 1; mount <= kHistoryMax + 6; ++mount) {
    test.make(kRootDirectory, std::to_string(mount));
    const RootBlock before = test.volume->newest_root();
    REQUIRE(test.volume->consistency_point().ok());
    const RootBlock root = test.volume->newest_root();
    CHECK(root.epoch != before.epoch);
    REQUIRE(root.history_count == std::min<std::uint32_t>(mount, kHistoryMax));
    CHECK(root.history.at(root.history_count - 1).epoch == before.epoch);
    CHECK(root.history.at(root.history_count - 1).last_cp == before.cp);
    const auto epochs = epochs_of(root);
    CHECK(std::set(epochs.begin(), epochs.end()).size() == epochs.size());
    test.make(kRootDirectory, std::to_string(mount) + " more");
    REQUIRE(test.volume->consistency_point().ok());
    CHECK(epochs_of(test.volume->newest_root()) == epochs);
    CHECK(test.problems() == "");
    test.reopen();
  }
}

// The primary took the mirror's cp for its own by the number, and then compared it in full: what the mirror alone had
// was gone.
TEST_CASE("a copy of a volume that is mounted has diverged from a mirror of what was done since, however long ago") {
  for (const bool copied_while_mounted : {false, true}) {
    CAPTURE(copied_while_mounted);
    VolumePair pair(kNoPinLimit);
    REQUIRE(pair.wait_equal());
    if (!copied_while_mounted) pair.unmount();
    auto copy = pair.primary.device->clone();
    if (!copied_while_mounted) pair.mount();
    for (int i = 0; i < 3; ++i) pair.next_state();
    REQUIRE(pair.wait_equal());
    pair.unmount();
    const RootBlock shown = pair.mirror->newest_root();
    pair.primary.device = std::move(copy);
    pair.network.set_reachable(false);
    pair.mount();
    while (pair.primary.volume->newest_root().cp <= shown.cp + kRootSlots) pair.next_state();
    pair.network.set_reachable(true);
    pair.sender->reconnect_now();
    const Cp newest{pair.primary.volume->newest_root().cp};
    const Status published = pair.sender->wait_published(newest, kPatience);
    REQUIRE_FALSE(published.ok());
    CHECK(published.error().code() == ErrorCode::kRefused);
    CHECK(pair.sender->status().state == SenderState::kDiverged);
    CHECK(pair.mirror->newest_root().checksum == shown.checksum);
    CHECK(pair.read_mirror());
  }
}

// Its writer may have died between the write of the root and the flush. The mirror had that root then, and the volume
// was without it after a loss of power: the two had diverged.
TEST_CASE("a volume that is only read sends its mirrors no root that is not durable") {
  TestVolume test;
  REQUIRE(test.volume->close().ok());
  test.volume.reset();
  for (const bool has_mirrors : {false, true}) {
    NotingDevice device(*test.device);
    ChangeFanOut mirrors;
    VolumeOptions options = test.options;
    options.mode = VolumeMode::kReadOnly;
    options.feed = has_mirrors ? &mirrors : nullptr;
    const auto opened = Volume::open(device, options);
    REQUIRE(opened.ok());
    CHECK(device.calls.find('w') == std::string::npos);
    CHECK((device.calls.front() == 'f') == has_mirrors);
  }
}

// The root in a slot was taken for one of the volume's past because it was there. A mirror that was compared in full
// with another line of its volume has roots of the line before, also when it is mounted as a primary, or feeds mirrors.
TEST_CASE("what the ring says of a cp follows from the newest root, not from what is in the slot") {
  TestVolume test;
  std::vector<std::uint64_t> checksums{0, test.volume->newest_root().checksum};
  RootBlock other;
  for (std::uint64_t cp = 2; cp <= 50; ++cp) {
    test.make(kRootDirectory, std::to_string(cp));
    REQUIRE(test.volume->consistency_point().ok());
    const RootBlock root = test.volume->newest_root();
    REQUIRE(root.cp == cp);
    checksums.push_back(root.checksum);
    if (cp == 40) other = root;
  }
  CHECK_FALSE(test.volume->root_checksum(Cp{51}));
  for (std::uint64_t cp = 50 - kRootSlots; cp <= 50; ++cp) CHECK(test.volume->root_checksum(Cp{cp}) == checksums[cp]);
  CHECK_FALSE(test.volume->root_checksum(Cp{50 - kRootSlots - 1}));
  other.epoch.fill(7);
  seal(other);
  const PageRef page = page_of(other);
  REQUIRE(test.device->write(root_slot_of(Cp{40}, other.size_blocks), std::span(&page, 1)).ok());
  CHECK(test.volume->root_checksum(Cp{41}) == checksums[41]);
  CHECK(test.volume->root_checksum(Cp{40}) == checksums[40]);  // root 41 names it
  CHECK_FALSE(test.volume->root_checksum(Cp{39}));
}

TEST_CASE("a mirror that was away over several mounts is sent what differs, and nothing is compared") {
  VolumePair pair(kNoPinLimit);
  const InodeNumber still = pair.primary.make(kRootDirectory, "still");
  REQUIRE(pair.primary.write(still, 0, std::string(200 * kBlockSize, 's')).ok());
  pair.next_state();
  REQUIRE(pair.wait_equal());
  const auto before = pair.blocks();
  const std::uint64_t sent_before = pair.traffic.sent;
  pair.disconnect();
  for (int mount = 0; mount < 3; ++mount) {
    pair.unmount();
    pair.mount();
    for (std::uint64_t i = 0; i < kRootSlots / 2; ++i) pair.next_state();
  }
  const auto after = pair.blocks();
  const auto differing = count_differing(before, after);
  pair.network.set_reachable(true);
  pair.sender->reconnect_now();
  REQUIRE(pair.wait_equal());
  pair.check_equal();
  CHECK(pair.traffic.offered == 0);
  const std::uint64_t sent = pair.traffic.sent - sent_before;
  MESSAGE("sent " << sent << " blocks; " << differing << " of " << after.size() << " differ");
  CHECK(10 * sent <= 11 * static_cast<std::uint64_t>(differing));
}

TEST_CASE("a mirror that was away for more mounts than a root remembers is compared, and sent what differs") {
  VolumePair pair(kNoPinLimit);
  const InodeNumber still = pair.primary.make(kRootDirectory, "still");
  REQUIRE(pair.primary.write(still, 0, std::string(200 * kBlockSize, 's')).ok());
  pair.next_state();
  REQUIRE(pair.wait_equal());
  const auto before = pair.blocks();
  const std::uint64_t sent_before = pair.traffic.sent;
  pair.disconnect();
  for (std::uint64_t mount = 0; mount <= kHistoryMax; ++mount) {
    pair.unmount();
    pair.mount();
    pair.next_state();
  }
  const auto after = pair.blocks();
  const auto differing = count_differing(before, after);
  pair.network.set_reachable(true);
  pair.sender->reconnect_now();
  REQUIRE(pair.wait_equal());
  REQUIRE(pair.wait([](const SenderStatus& now) { return !now.compare_due; }));
  pair.check_equal();
  CHECK(pair.traffic.offered == after.size());
  const std::uint64_t sent = pair.traffic.sent - sent_before;
  MESSAGE("sent " << sent << " blocks; " << differing << " of " << after.size() << " differ");
  CHECK(10 * sent <= 11 * static_cast<std::uint64_t>(differing));
}

TEST_CASE("a mirror that is connected when the first consistency point of a mount ends follows into the new epoch") {
  VolumePair pair(kNoPinLimit);
  REQUIRE(pair.wait_equal());
  for (int mount = 0; mount < 3; ++mount) {
    pair.unmount();
    pair.mount();
    REQUIRE(pair.wait([](const SenderStatus& status) { return status.state == SenderState::kLive; }));
    const std::uint64_t connections = pair.network.connections();
    pair.next_state();
    REQUIRE(pair.wait_equal());
    pair.next_state();
    REQUIRE(pair.wait_equal());
    pair.check_equal();
    CHECK(pair.network.connections() == connections);
  }
}
