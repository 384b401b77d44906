// Careless operators: images of primaries and mirrors are copied, put back, exchanged and parted from their staging
// files, and power is lost anywhere. A mirror that starts shows a whole state that a primary had, and is brought to its
// primary's newest one, or has diverged from it; else it refuses to start.
#include <doctest/doctest.h>

#include <array>
#include <cstdlib>
#include <random>
#include <vector>

#include "mirror/receiver/mirror_image.h"
#include "tests/support/memory_channel.h"
#include "tests/support/mirror_pair.h"
#include "tests/support/seed.h"

using namespace tarnfs;
using namespace tarnfs::testing;
using File = RecordingDisk::File;

namespace {

constexpr std::uint64_t kFirstAddress = 20;
constexpr std::uint64_t kAddresses = 60;

struct Counts {
  int equal = 0;
  int diverged = 0;
  int refused = 0;
};

class World {
 public:
  // With `has_epochs` each mount of the primary begins one, as it does; without, only the ring and compares help.
  World(std::uint64_t seed, bool has_epochs) : random_(seed), has_epochs_(has_epochs) {
    mount_primary();
    write();
    primary_copies_.push_back(primary_.copy_image());
  }

  void step() {
    switch (random_() % 10) {
      case 0:
      case 1:
        return write();
      case 2:
        return write_much();
      case 3:
        return copy_or_restore_primary();
      case 4:
        return copy_or_restore_mirror();
      case 5:
        return exchange();
      default:
        return connect(mirrors_.at(random_() % mirrors_.size()));
    }
  }

  Counts counts;

 private:
  void mount_primary() {
    if (!has_epochs_) return;
    REQUIRE(last_epoch_ < 255);
    primary_.begin_epoch(++last_epoch_, Cp{primary_.newest_root().cp});
    primary_.commit();
  }

  void put_some() {
    const std::uint64_t count = random_() % 12;
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t address = kFirstAddress + random_() % kAddresses;
      if (random_() % 4 == 0) {
        primary_.remove(address);
      } else {
        primary_.put(address, ++last_page_seed_, address % 2 == 0);
      }
    }
  }
  void write() {
    for (std::uint64_t i = random_() % 4; i > 0; --i) {
      put_some();
      primary_.commit();
    }
  }
  // So many cps that the ring goes round, or that the next root has the slot of an earlier one.
  void write_much() {
    const std::uint64_t cps = kRootSlots + random_() % 3 - 1;
    for (std::uint64_t i = 0; i < cps; ++i) {
      if (i % 8 == 0) put_some();
      primary_.commit();
    }
  }

  void copy_or_restore_primary() {
    if (random_() % 3 == 0) {
      primary_copies_.push_back(primary_.copy_image());
      return;
    }
    if (random_() % 2 == 0) primary_.restore(primary_copies_.at(random_() % primary_copies_.size()));
    mount_primary();
  }

  void copy_or_restore_mirror() {
    RecordingDisk::Files& mirror = mirrors_.at(random_() % mirrors_.size());
    if (mirror_copies_.empty() || random_() % 2 == 0) {
      mirror_copies_.push_back(mirror);
      return;
    }
    const RecordingDisk::Files& copy = mirror_copies_.at(random_() % mirror_copies_.size());
    const auto which = random_() % 4;
    if (which != 0) put_back(File::kImage, copy, mirror);
    if (which == 0 || which == 1) put_back(File::kStaging, copy, mirror);
    if (which == 2) mirror.erase(File::kStaging);
  }
  static void put_back(File file, const RecordingDisk::Files& copy, RecordingDisk::Files& mirror) {
    const auto found = copy.find(file);
    if (found == copy.end()) {
      mirror.erase(file);
    } else {
      mirror[file] = found->second;
    }
  }

  void exchange() {
    std::swap(mirrors_[0], mirrors_[1]);
    if (random_() % 2 == 0) return;
    const RecordingDisk::Files first = mirrors_[0];
    put_back(File::kStaging, mirrors_[1], mirrors_[0]);
    put_back(File::kStaging, first, mirrors_[1]);
  }

  void connect(RecordingDisk::Files& files) {
    RecordingDisk disk(files);
    if (!starts(disk)) {
      ++counts.refused;
      files.clear();  // it is copied anew
      return;
    }
    serve(disk);
    const auto log = disk.log();
    const bool loses_power = random_() % 2 == 0;
    const std::size_t until = loses_power ? random_() % (log.size() + 1) : log.size();
    files = loses_power ? RecordingDisk::after_power_loss(files, log, until, random_) : disk.files();
  }

  bool starts(RecordingDisk& disk) {
    MemoryMirrorStorage storage(disk);
    const auto image = MirrorImage::open(storage);
    if (image.ok()) return true;
    const ErrorCode code = image.error().code();
    // A first copy that was cut off before there was a superblock is no image yet.
    CHECK_MESSAGE((code == ErrorCode::kRefused || code == ErrorCode::kInvalid), image.error().describe());
    return false;
  }

  void serve(RecordingDisk& disk) {
    MemoryNetwork network;
    MirrorSide mirror(primary_.book(), disk, network.listen());
    REQUIRE(mirror.target().check().ok());
    if (random_() % 2 == 0) network.cut_at_message(random_() % 16);
    PrimarySide sender(primary_, network.connector(), [&](SenderOptions& options) { options.batch_blocks_max = 4; });
    write();
    const Cp newest{primary_.newest_root().cp};
    REQUIRE(sender.wait([&](const SenderStatus& status) {
      return status.state == SenderState::kDiverged || (status.published_cp == newest && !status.compare_due);
    }));
    if (sender.sender().status().state == SenderState::kDiverged) {
      ++counts.diverged;
      CHECK(mirror.target().check().ok());
      return;
    }
    ++counts.equal;
    check_equal(primary_, mirror);
  }

  std::mt19937_64 random_;
  const bool has_epochs_;
  FakePrimary primary_;
  std::uint8_t last_epoch_ = 101;  // that of the fake's mkfs
  std::uint64_t last_page_seed_ = 0;
  std::vector<FakePrimary::ImageCopy> primary_copies_;
  std::array<RecordingDisk::Files, 2> mirrors_;
  std::vector<RecordingDisk::Files> mirror_copies_;
};

}  // namespace

TEST_CASE("whatever operators do with images, a mirror is whole, has diverged, or does not start") {
  const std::uint64_t seed = printed_seed();
  const int worlds = std::getenv("TARNFS_TEST_FULL") != nullptr ? 400 : 20;
  Counts sum;
  for (int i = 0; i < worlds; ++i) {
    INFO("seed ", seed, ", world ", i);
    World world(seed + static_cast<std::uint64_t>(i), i % 2 == 0);
    for (int step = 0; step < 60; ++step) {
      CAPTURE(step);
      world.step();
    }
    sum.equal += world.counts.equal;
    sum.diverged += world.counts.diverged;
    sum.refused += world.counts.refused;
  }
  MESSAGE(sum.equal << " times equal, " << sum.diverged << " diverged, " << sum.refused << " refused to start");
  CHECK(sum.equal > 0);
  CHECK(sum.diverged > 0);
  CHECK(sum.refused > 0);
}
