// The checker and the engine agree on the format: whatever the engine commits is clean.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <random>
#include <string>
#include <vector>

#include "fs/check/checker.h"
#include "fs/engine/volume.h"
#include "fs/storage/format_volume.h"
#include "tests/support/memory_block_device.h"

using namespace tarnfs;
using tarnfs::testing::MemoryBlockDevice;

namespace {

constexpr std::uint64_t kSeed = 4711;
constexpr std::uint64_t kBlocks = 40000;

std::unique_ptr<Volume> open_volume(MemoryBlockDevice& device) {
  VolumeOptions options;
  options.cp_interval_ms = 0;
  auto volume = Volume::open(device, options);
  REQUIRE(volume.ok());
  return *std::move(volume);
}

CheckReport check_clean(BlockDevice& device) {
  auto report = check_volume(device, {});
  REQUIRE(report.ok());
  std::string texts;
  for (const Problem& problem : report->problems) texts += problem.text + '\n';
  CHECK(texts == "");
  return *std::move(report);
}

InodeNumber make(Volume& volume, InodeNumber parent, const std::string& name, std::uint32_t mode,
                 const std::string& target = {}) {
  NewNode node;
  node.mode = mode;
  node.symlink_target = target;
  const auto made = volume.make_node(parent, name, node);
  REQUIRE(made.ok());
  return made->inode;
}

void write_at(Volume& volume, InodeNumber inode, std::uint64_t offset_bytes, std::size_t size_bytes) {
  const std::vector<std::byte> data(size_bytes, std::byte{0x5a});
  REQUIRE(volume.write(inode, offset_bytes, data, {}).ok());
}

}  // namespace

TEST_CASE("one of everything is clean after a consistency point, and again after its deletion") {
  MemoryBlockDevice device(kBlocks);
  REQUIRE(format_volume(device, {}, system_clock()).ok());
  auto volume = open_volume(device);
  const InodeNumber directory = make(*volume, kRootDirectory, "directory", S_IFDIR | 0755);
  const InodeNumber below = make(*volume, directory, "below", S_IFDIR | 0755);
  const InodeNumber file = make(*volume, directory, "file", S_IFREG | 0644);
  write_at(*volume, file, 0, 10000);
  write_at(*volume, file, std::uint64_t{1} << 40, 10);
  REQUIRE(volume->fallocate(file, std::uint64_t{2} << 40, 50000, {.keep_size = true}).ok());
  REQUIRE(volume->link(file, below, "hard link").ok());
  const std::vector<std::byte> value(6000, std::byte{1});
  REQUIRE(volume->set_xattr(file, "user.name", value, XattrMode::kCreateOrReplace).ok());
  make(*volume, below, "short", S_IFLNK | 0777, "there");
  make(*volume, below, "long", S_IFLNK | 0777, std::string(3000, 'x'));
  make(*volume, below, "fifo", S_IFIFO | 0600);
  const InodeNumber held = make(*volume, directory, "held", S_IFREG | 0600);
  write_at(*volume, held, 0, 100000);
  REQUIRE(volume->unlink(directory, "held").ok());
  REQUIRE(volume->consistency_point().ok());
  const CheckReport full = check_clean(device);
  CHECK(full.counters.orphans == 1);
  CHECK(full.counters.attribute_inodes == 1);
  CHECK(full.counters.entries == 7);

  for (const std::string name : {"short", "long", "fifo", "hard link"}) REQUIRE(volume->unlink(below, name).ok());
  REQUIRE(volume->unlink(directory, "file").ok());
  REQUIRE(volume->remove_directory(directory, "below").ok());
  REQUIRE(volume->rename(kRootDirectory, "directory", kRootDirectory, "renamed", RenameMode::kReplace).ok());
  REQUIRE(volume->close().ok());
  check_clean(device);
  volume.reset();
  volume = open_volume(device);  // deletes what was held when the volume was closed
  REQUIRE(volume->close().ok());
  const CheckReport rest = check_clean(device);
  CHECK(rest.counters.orphans == 0);
  CHECK(rest.counters.directories == 2);
}

TEST_CASE("every consistency point of random work is clean") {
  MESSAGE("seed ", kSeed);
  std::mt19937_64 random(kSeed);
  MemoryBlockDevice device(kBlocks);
  REQUIRE(format_volume(device, {}, system_clock()).ok());
  const auto volume = open_volume(device);
  std::vector<InodeNumber> directories = {kRootDirectory};
  for (int i = 0; i < 5; ++i) {
    directories.push_back(make(*volume, directories[random() % directories.size()], "d" + std::to_string(i), S_IFDIR));
  }
  const auto some_name = [&] { return "name" + std::to_string(random() % 400); };
  for (int step = 1; step <= 6000; ++step) {
    const InodeNumber parent = directories[random() % directories.size()];
    const std::string name = some_name();
    const auto there = volume->lookup(parent, name);
    if (!there.ok()) {
      make(*volume, parent, name, S_IFREG | 0600);
    } else if (const auto choice = random() % 6; choice == 0) {
      REQUIRE(volume->unlink(parent, name).ok());
    } else if (choice == 1) {
      (void)volume->rename(parent, name, directories[random() % directories.size()], some_name(), RenameMode::kReplace);
    } else if (choice == 2) {
      (void)volume->link(there->inode, directories[random() % directories.size()], some_name());
    } else if (choice == 3) {
      REQUIRE(volume->change_attributes(there->inode, {.size_bytes = random() % 3000000}).ok());
    } else {
      write_at(*volume, there->inode, random() % 3000000, random() % 9000);
    }
    if (there.ok() && random() % 2 == 0) volume->forget(there->inode, 1);
    if (step % 500 == 0) {
      REQUIRE(volume->consistency_point().ok());
      check_clean(device);
    }
  }
  REQUIRE(volume->close().ok());
  CHECK(check_clean(device).counters.entries > 500);
}

TEST_CASE("a damaged superblock is made good by who opens the volume for writing") {
  for (const std::uint64_t damaged : {std::uint64_t{0}, kBlocks - 1}) {
    CAPTURE(damaged);
    MemoryBlockDevice device(kBlocks);
    REQUIRE(format_volume(device, {}, system_clock()).ok());
    device.damage(Address{damaged});
    VolumeOptions options;
    options.cp_interval_ms = 0;
    options.mode = VolumeMode::kReadOnly;
    REQUIRE(Volume::open(device, options).ok());
    CHECK(check_volume(device, {})->problems.size() == 1);
    open_volume(device).reset();
    check_clean(device);
  }
}
