// A loss of power at every write of the mirror: it comes back at the old or at the new root, never between.
#include <doctest/doctest.h>

#include <random>

#include "common/staging_place.h"
#include "tests/support/image_driver.h"

using namespace tarnfs;
using namespace tarnfs::testing;

namespace {

constexpr std::uint32_t kSeed = 4711;

// The cp that the mirror shows, after every block of it was read.
std::uint64_t recovered_cp(RecordingDisk& disk, FakePrimary& primary) {
  const OpenedMirror mirror(disk, primary);
  CHECK_FALSE(disk.exists(RecordingDisk::File::kStaging));
  return mirror.cp();
}

// Then the primary brings it to its newest root.
void check_it_goes_on(RecordingDisk& disk, FakePrimary& primary) {
  OpenedMirror mirror(disk, primary);
  const auto welcome = mirror.driver.begin();
  REQUIRE(welcome.ok());
  if (welcome->root_checksum != primary.newest_root().checksum) REQUIRE(mirror.driver.catch_up().ok());
  CHECK(mirror.target.root()->checksum == primary.newest_root().checksum);
  CHECK(mirror.target.check().ok());
}

struct Scenario {
  RecordingDisk disk;
  std::size_t begin = 0;      // operations before the publish under test
  std::uint64_t base_cp = 2;  // what is published before it
};

// A published state of 12 blocks at the mirror, cp 2 or a later one.
void publish_first_state(OpenedMirror& mirror, FakePrimary& primary, std::uint64_t cp = 2) {
  while (primary.newest_root().cp + 1 < cp) primary.commit();
  for (std::uint64_t i = 0; i < 12; ++i) primary.put(kFirstDataBlock + i, 100 + i);
  primary.commit();
  REQUIRE(mirror.driver.begin().ok());
  REQUIRE(mirror.driver.catch_up().ok());
}

// The same; then a publish that changes some of their addresses, or none.
// With `larger_blocks` the volume grows to that with it. It is `cps` later.
void play(Scenario& scenario, FakePrimary& primary, bool staged, std::uint64_t larger_blocks = 0, bool even_cp = false,
          std::uint64_t cps = 1) {
  OpenedMirror mirror(scenario.disk, primary);
  publish_first_state(mirror, primary, scenario.base_cp);
  scenario.begin = scenario.disk.log().size();
  const std::uint64_t first = staged ? kFirstDataBlock + 4 : kFirstDataBlock + 100;
  for (std::uint64_t i = 0; i < 6; ++i) primary.put(first + i, 200 + i);
  primary.put(500, 300);
  primary.remove(kFirstDataBlock);
  if (even_cp) primary.commit();
  if (larger_blocks != 0) {
    primary.grow(larger_blocks);
    primary.put(larger_blocks - 50, 301);
  }
  if (larger_blocks != 0 && staged) {
    for (std::uint64_t i = end_of_data_blocks(kVolumeBlocks); i < kVolumeBlocks; ++i) primary.put(i, 400 + i);
  }
  for (std::uint64_t cp = 0; cp < cps; ++cp) primary.commit();
  REQUIRE(mirror.driver.begin().ok());
  REQUIRE(mirror.driver.catch_up().ok());
}

// Power is lost behind each write of the publish, `rounds` times; `change` may do more to what is left then. The mirror
// has the old state, or the newest one, which stays once it was durable.
template <class Change>
void lose_power_in_publish(const Scenario& scenario, FakePrimary& primary, std::mt19937_64& random, Change change,
                           int rounds = 8) {
  const std::uint64_t newest = primary.newest_root().cp;
  const auto log = scenario.disk.log();
  REQUIRE(log.size() > scenario.begin + 4);
  bool was_new = false;
  for (std::size_t count = scenario.begin; count <= log.size(); ++count) {
    CAPTURE(count);
    bool all_new = true;
    for (int round = 0; round < rounds; ++round) {
      auto files = RecordingDisk::after_power_loss({}, log, count, random);
      change(files, round);
      RecordingDisk disk(files);
      const std::uint64_t cp = recovered_cp(disk, primary);
      CHECK((cp == scenario.base_cp || cp == newest));
      if (was_new) CHECK(cp == newest);
      all_new = all_new && cp == newest;
      check_it_goes_on(disk, primary);
    }
    was_new = was_new || all_new;
  }
  CHECK(was_new);
}

}  // namespace

TEST_CASE("a loss of power at any write of a publish leaves the old or the new state") {
  INFO("seed ", kSeed);
  std::mt19937_64 random(kSeed);
  for (const bool staged : {false, true}) {
    CAPTURE(staged);
    FakePrimary primary;
    Scenario scenario;
    play(scenario, primary, staged);
    lose_power_in_publish(scenario, primary, random, [](RecordingDisk::Files&, int) {});
  }
}

// The new root was written over the published one, and a torn write left neither, but one from before, of which the
// image no longer has the blocks.
TEST_CASE("a loss of power while a root goes to the published one's slot leaves the old or the new state") {
  INFO("seed ", kSeed);
  std::mt19937_64 random(kSeed + 4);
  for (const unsigned which : {0U, 1U, 2U, 3U}) {
    const bool staged = (which & 1) != 0;
    const bool grows = (which & 2) != 0;
    CAPTURE(staged);
    CAPTURE(grows);
    FakePrimary primary;
    Scenario scenario;
    scenario.base_cp = grows ? 3 : 2;  // the slots of odd ones stay where they are
    play(scenario, primary, staged, grows ? 2 * kVolumeBlocks : 0, false, kRootSlots);
    const RootBlock root = primary.newest_root();
    const Address slot = root_slot_of(Cp{scenario.base_cp}, kVolumeBlocks);
    REQUIRE(root_slot_of(Cp{root.cp}, root.size_blocks) == slot);
    lose_power_in_publish(
        scenario, primary, random, [](RecordingDisk::Files&, int) {}, 40);
  }
}

TEST_CASE("a loss of power at any write of a publish that grows the image leaves the old or the new state") {
  INFO("seed ", kSeed);
  std::mt19937_64 random(kSeed + 3);
  for (const bool staged : {false, true}) {
    for (const bool even_cp : {false, true}) {
      CAPTURE(staged);
      CAPTURE(even_cp);
      FakePrimary primary;
      Scenario scenario;
      play(scenario, primary, staged, 2 * kVolumeBlocks, even_cp);
      REQUIRE((primary.newest_root().cp % 2 == 0) == even_cp);
      lose_power_in_publish(scenario, primary, random, [](RecordingDisk::Files& files, int round) {
        // A block device may be longer than the volume.
        if (round % 2 == 0) files[RecordingDisk::File::kImage].size_blocks = 3 * kVolumeBlocks;
      });
    }
  }
}

TEST_CASE("a loss of power while a decided publish is redone can be redone again") {
  INFO("seed ", kSeed);
  std::mt19937_64 random(kSeed + 1);
  FakePrimary primary;
  Scenario scenario;
  play(scenario, primary, true);
  const auto log = scenario.disk.log();
  std::size_t redone = 0;
  for (std::size_t count = scenario.begin; count <= log.size(); ++count) {
    const auto files = RecordingDisk::after_power_loss({}, log, count, random);
    RecordingDisk first(files);
    const std::uint64_t cp = recovered_cp(first, primary);
    const auto redo = first.log();
    if (cp != 3 || redo.empty()) continue;
    ++redone;
    for (std::size_t step = 0; step <= redo.size(); ++step) {
      CAPTURE(count);
      CAPTURE(step);
      RecordingDisk second(RecordingDisk::after_power_loss(files, redo, step, random));
      CHECK(recovered_cp(second, primary) == 3);
      check_it_goes_on(second, primary);
    }
  }
  CHECK(redone > 3);
}

// A new process read a decision that was in the kernel's memory only, and began to change blocks that the published
// state has, on the strength of it.
TEST_CASE("a loss of power after the mirror died behind its decision, while the publish is redone") {
  INFO("seed ", kSeed);
  std::mt19937_64 random(kSeed + 3);
  FakePrimary primary;
  Scenario scenario;
  play(scenario, primary, true);
  const auto log = scenario.disk.log();
  std::size_t redone = 0;
  for (std::size_t count = scenario.begin; count <= log.size(); ++count) {
    const std::vector<RecordingDisk::Operation> before(log.begin(), log.begin() + static_cast<std::ptrdiff_t>(count));
    auto seen = before;  // by the next process: all that was written
    for (const auto file : {RecordingDisk::File::kImage, RecordingDisk::File::kStaging}) {
      seen.push_back({file, RecordingDisk::Kind::kFlush, {}, {}, 0});
    }
    RecordingDisk first(RecordingDisk::after_power_loss({}, seen, seen.size(), random));
    if (recovered_cp(first, primary) != 3) continue;
    const auto redo = first.log();
    ++redone;
    auto both = before;
    both.insert(both.end(), redo.begin(), redo.end());
    for (std::size_t step = 0; step <= redo.size(); ++step) {
      CAPTURE(count);
      CAPTURE(step);
      RecordingDisk second(RecordingDisk::after_power_loss({}, both, count + step, random));
      const std::uint64_t cp = recovered_cp(second, primary);
      CHECK((cp == 2 || cp == 3));
      check_it_goes_on(second, primary);
    }
  }
  CHECK(redone > 3);
}

// The image alone showed its old root, with blocks of the new state among those of the old one.
TEST_CASE("an image that lost its staging file in the middle of a publish is whole or refused") {
  INFO("seed ", kSeed);
  std::mt19937_64 random(kSeed + 5);
  for (const bool grows : {false, true}) {
    CAPTURE(grows);
    FakePrimary primary;
    Scenario scenario;
    play(scenario, primary, true, grows ? 2 * kVolumeBlocks : 0, grows);
    const auto log = scenario.disk.log();
    std::size_t refused = 0;
    for (std::size_t count = scenario.begin; count <= log.size(); ++count) {
      CAPTURE(count);
      auto files = RecordingDisk::after_power_loss({}, log, count, random);
      const auto staging = files.find(RecordingDisk::File::kStaging);
      if (staging == files.end()) continue;
      const RecordingDisk::Content content = staging->second;
      files.erase(staging);
      RecordingDisk disk(files);
      MemoryMirrorStorage storage(disk);
      std::optional<Error> refusal;
      if (const auto image = MirrorImage::open(storage); !image.ok()) refusal = image.error();
      if (!refusal) {
        const std::uint64_t cp = OpenedMirror(disk, primary).cp();
        CHECK((cp == 2 || cp == primary.newest_root().cp));
        check_it_goes_on(disk, primary);
        continue;
      }
      ++refused;
      CHECK(refusal->code() == ErrorCode::kRefused);
      CHECK(refusal->message().find("is missing") != std::string::npos);
      const auto device = disk.open(RecordingDisk::File::kImage).value();
      CHECK(check_nothing_is_staged(*device, "/nowhere/image").error().code() == ErrorCode::kRefused);
      // With the file back it goes on.
      files[RecordingDisk::File::kStaging] = content;
      RecordingDisk whole(files);
      CHECK(recovered_cp(whole, primary) == primary.newest_root().cp);
    }
    CHECK(refused > 3);
  }
}

TEST_CASE("a loss of power during the first copy leaves an empty mirror or the whole state") {
  INFO("seed ", kSeed);
  std::mt19937_64 random(kSeed + 2);
  FakePrimary primary;
  Scenario scenario;
  play(scenario, primary, false);
  const auto log = scenario.disk.log();
  for (std::size_t count = 0; count <= scenario.begin; ++count) {
    CAPTURE(count);
    auto files = RecordingDisk::after_power_loss({}, log, count, random);
    RecordingDisk disk(files);
    MemoryMirrorStorage storage(disk);
    if (const auto image = MirrorImage::open(storage); !image.ok()) {
      // Only a superblock that was being written can be torn, and then there is nothing to lose.
      CHECK(image.error().code() == ErrorCode::kInvalid);
      CHECK(count <= 7);
      continue;
    }
    const std::uint64_t cp = OpenedMirror(disk, primary).cp();
    CHECK((cp == 0 || cp == 2));
    check_it_goes_on(disk, primary);
  }
}

TEST_CASE("a device that stops at any call of a publish leaves readers and the next start with one state") {
  for (const bool staged : {false, true}) {
    for (std::uint64_t calls = 0;; ++calls) {
      CAPTURE(staged);
      CAPTURE(calls);
      FakePrimary primary;
      RecordingDisk disk;
      OpenedMirror mirror(disk, primary);
      publish_first_state(mirror, primary);
      for (std::uint64_t i = 0; i < 6; ++i) primary.put(kFirstDataBlock + (staged ? 4 : 100) + i, 200 + i);
      primary.commit();
      REQUIRE(mirror.driver.begin().ok());
      disk.fail_from(calls);
      const auto published = mirror.driver.catch_up();
      CHECK(mirror.target.check().ok());
      RecordingDisk after(disk.files());
      const std::uint64_t cp = recovered_cp(after, primary);
      CHECK((cp == 2 || cp == 3));
      CHECK(cp >= mirror.cp());
      check_it_goes_on(after, primary);
      if (published.ok()) break;
    }
  }
}
