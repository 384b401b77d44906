// FS_IOC_SHUTDOWN: the volume stops as after a power cut, and keeps what fsync promised.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <atomic>
#include <thread>
#include <vector>

#include "tests/support/gated_block_device.h"
#include "tests/support/test_volume.h"

using namespace tarnfs;
using tarnfs::testing::GatedBlockDevice;
using tarnfs::testing::MemoryBlockDevice;
using tarnfs::testing::TestVolume;

namespace {

template <class T>
bool is_io_error(const Result<T>& result) {
  return !result.ok() && result.error().code() == ErrorCode::kIo;
}

InodeNumber find(TestVolume& test, std::string_view name) {
  const auto found = test.volume->lookup(kRootDirectory, name);
  return found.ok() ? found->inode : InodeNumber{};
}

}  // namespace

TEST_CASE("what fsync promised is there after a shutdown, the rest is not, and no consistency point was taken") {
  TestVolume test;
  const InodeNumber kept = test.make(kRootDirectory, "kept");
  REQUIRE(test.write(kept, 0, "promised").ok());
  REQUIRE(test.volume->fsync(kept, false).ok());
  test.make(kRootDirectory, "lost");
  REQUIRE(test.write(kept, 0, "PROMISED, AND MORE").ok());
  REQUIRE(test.volume->shut_down().ok());
  const std::uint64_t written_blocks = test.device->written_blocks();
  REQUIRE(test.volume->shut_down().ok());
  CHECK(test.volume->status().cp_count == 0);
  CHECK(test.volume->status().stopped);
  CHECK(test.volume->status().shut_down);
  CHECK(test.volume->status().stop_reason == "shut down by FS_IOC_SHUTDOWN");
  CHECK(test.volume->close().ok());
  CHECK(test.device->written_blocks() == written_blocks);
  test.volume.reset();
  CHECK(test.device->written_blocks() == written_blocks);
  test.open();
  CHECK(find(test, "kept") == kept);
  CHECK(test.read(kept, 0, 100) == "promised");
  CHECK(find(test, "lost") == InodeNumber{});
  test.reopen();
  CHECK(test.problems() == "");
}

TEST_CASE("every operation answers EIO after a shutdown, reads too") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "f");
  const InodeNumber directory = test.make(kRootDirectory, "d", S_IFDIR | 0755);
  NewNode symlink;
  symlink.mode = S_IFLNK | 0777;
  symlink.symlink_target = "target";
  const InodeNumber link = test.volume->make_node(kRootDirectory, "l", symlink)->inode;
  REQUIRE(test.write(file, 0, "content").ok());
  REQUIRE(test.volume->consistency_point().ok());
  REQUIRE(test.volume->shut_down().ok());
  Volume& volume = *test.volume;
  const auto bytes = std::as_bytes(std::span<const char>("x", 1));
  std::vector<std::byte> buffer(10);
  NewNode node;
  node.mode = S_IFREG | 0644;
  AttributeChanges changes;
  changes.mode = 0600;
  CHECK(is_io_error(volume.lookup(kRootDirectory, "f")));
  CHECK(is_io_error(volume.lookup(kRootDirectory, "none")));
  CHECK(is_io_error(volume.make_node(kRootDirectory, "new", node)));
  CHECK(is_io_error(volume.make_unnamed(kRootDirectory, node)));
  CHECK(is_io_error(volume.link(file, kRootDirectory, "g")));
  CHECK(is_io_error(volume.unlink(kRootDirectory, "f")));
  CHECK(is_io_error(volume.remove_directory(kRootDirectory, "d")));
  CHECK(is_io_error(volume.rename(kRootDirectory, "f", directory, "f", RenameMode::kReplace)));
  CHECK(is_io_error(volume.attributes(file)));
  CHECK(is_io_error(volume.attributes_with_lookup(file)));
  CHECK(is_io_error(volume.change_attributes(file, changes)));
  CHECK(is_io_error(volume.symlink_target(link)));
  CHECK(is_io_error(volume.xattr(file, "user.x")));
  CHECK(is_io_error(volume.xattr_names(file)));
  CHECK(is_io_error(volume.set_xattr(file, "user.x", bytes, XattrMode::kCreateOrReplace)));
  CHECK(is_io_error(volume.remove_xattr(file, "user.x")));
  CHECK(is_io_error(volume.read(file, 0, buffer)));
  CHECK(is_io_error(volume.write(file, 0, bytes, {})));
  CHECK(is_io_error(volume.fallocate(file, 0, 100, {})));
  CHECK(is_io_error(volume.seek(file, 0, SeekKind::kData)));
  CHECK(is_io_error(volume.copy_range(file, 0, file, 4096, 7)));
  CHECK(is_io_error(volume.list(kRootDirectory, 0, [](const DirectoryEntry&) { return true; })));
  CHECK(is_io_error(volume.fsync(file, true)));
  CHECK(is_io_error(volume.consistency_point()));
  CHECK(volume.read_only());
  volume.forget(file, 1);
  CHECK(volume.usage().size_blocks > 0);
  CHECK(volume.status().error_count == 0);
}

TEST_CASE("a shutdown waits for the consistency point that runs, which is there whole or not at all") {
  TestVolume test;
  test.volume.reset();
  GatedBlockDevice gated(*test.device, GatedBlockDevice::Gate::kWrites);
  auto opened = Volume::open(gated, test.options);
  REQUIRE(opened.ok());
  test.volume = std::move(opened).value();
  const InodeNumber file = test.make(kRootDirectory, "f");
  REQUIRE(test.write(file, 0, std::string(100'000, 'x')).ok());
  const Cp before{test.volume->newest_root().cp};

  gated.close();
  std::thread point([&] { CHECK(is_io_error(test.volume->consistency_point())); });
  gated.wait_for_a_write();
  std::atomic<bool> acknowledged{false};
  std::uint64_t written_blocks = 0;
  std::thread shutdown([&] {
    CHECK(test.volume->shut_down().ok());
    written_blocks = test.device->written_blocks();
    acknowledged = true;
  });
  // Operations learn of it while it still waits for the disk.
  while (!is_io_error(test.volume->attributes(file))) std::this_thread::yield();
  while (!test.volume->status().stopped) std::this_thread::yield();
  CHECK(!acknowledged);
  gated.open();
  shutdown.join();
  point.join();
  CHECK(test.volume->newest_root().cp == before.value);
  CHECK(test.volume->close().ok());
  CHECK(test.device->written_blocks() == written_blocks);
  test.volume.reset();
  test.open();
  CHECK(test.volume->newest_root().cp == before.value);
  CHECK(find(test, "f") == InodeNumber{});
  CHECK(test.problems() == "");
}

TEST_CASE("a shutdown waits for an fsync that writes: to the journal, or a large file to blocks of its own") {
  for (const std::size_t pages : {1, 400}) {
    TestVolume test;
    test.volume.reset();
    GatedBlockDevice gated(*test.device, GatedBlockDevice::Gate::kWrites);
    auto opened = Volume::open(gated, test.options);
    REQUIRE(opened.ok());
    test.volume = std::move(opened).value();
    const InodeNumber file = test.make(kRootDirectory, "f");
    REQUIRE(test.write(file, 0, std::string(pages * kBlockSize, 'x')).ok());
    gated.close();
    bool promised = false;
    std::thread sync([&] { promised = test.volume->fsync(file, false).ok(); });
    gated.wait_for_a_write();
    std::atomic<bool> acknowledged{false};
    std::uint64_t written_blocks = 0;
    std::thread shutdown([&] {
      CHECK(test.volume->shut_down().ok());
      written_blocks = test.device->written_blocks();
      acknowledged = true;
    });
    while (!test.volume->status().stopped) std::this_thread::yield();
    CHECK(!acknowledged);
    gated.open();
    shutdown.join();
    sync.join();
    CHECK(test.volume->close().ok());
    CHECK(test.device->written_blocks() == written_blocks);
    test.volume.reset();
    test.open();
    if (promised) CHECK(test.read(find(test, "f"), 0, pages * kBlockSize) == std::string(pages * kBlockSize, 'x'));
    CHECK(test.problems() == "");
  }
}

TEST_CASE("who waits for a consistency point because too much is dirty is told of the shutdown") {
  TestVolume test;
  test.volume.reset();
  test.options.dirty_limit_bytes = 64 * kBlockSize;
  GatedBlockDevice gated(*test.device, GatedBlockDevice::Gate::kWrites);
  auto opened = Volume::open(gated, test.options);
  REQUIRE(opened.ok());
  test.volume = std::move(opened).value();
  const InodeNumber file = test.make(kRootDirectory, "f");
  gated.close();
  std::thread writer([&] {
    Status status;
    for (std::uint64_t page = 0; status.ok(); ++page) status = test.write(file, page * kBlockSize, "x");
    CHECK(status.error().code() == ErrorCode::kIo);
  });
  gated.wait_for_a_write();
  std::thread shutdown([&] { CHECK(test.volume->shut_down().ok()); });
  writer.join();
  gated.open();
  shutdown.join();
  CHECK(test.volume->close().ok());
}

TEST_CASE("a shutdown among many threads: every fsync that succeeded is kept") {
  TestVolume test;
  constexpr int kThreads = 4;
  std::vector<InodeNumber> files;
  files.reserve(kThreads);
  for (int i = 0; i < kThreads; ++i) files.push_back(test.make(kRootDirectory, "f" + std::to_string(i)));
  REQUIRE(test.volume->consistency_point().ok());
  std::array<std::atomic<int>, kThreads> promised{};
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      const auto index = static_cast<std::size_t>(i);
      for (int round = 1;; ++round) {
        const auto offset = static_cast<std::uint64_t>(round) * 8;
        if (!test.write(files[index], offset, std::string(8, 'r')).ok()) return;
        if (!test.volume->fsync(files[index], true).ok()) return;
        promised[index] = round;
        if (i == 0 && round % 16 == 0 && !test.volume->consistency_point().ok()) return;
      }
    });
  }
  for (const std::atomic<int>& rounds : promised) {
    while (rounds < 20) std::this_thread::yield();
  }
  REQUIRE(test.volume->shut_down().ok());
  const std::uint64_t written_blocks = test.device->written_blocks();
  for (std::thread& thread : threads) thread.join();
  CHECK(test.volume->close().ok());
  CHECK(test.device->written_blocks() == written_blocks);
  test.volume.reset();
  test.open();
  for (std::size_t i = 0; i < kThreads; ++i) {
    const auto size = static_cast<std::size_t>(promised[i]) * 8;
    CHECK(test.read(files[i], 8, size) == std::string(size, 'r'));
  }
  CHECK(test.problems() == "");
}

TEST_CASE("a volume that is only read is shut down, too") {
  TestVolume test;
  test.make(kRootDirectory, "f");
  test.reopen();
  auto copy = test.device->clone();
  VolumeOptions options;
  options.mode = VolumeMode::kReadOnly;
  const auto opened = Volume::open(*copy, options);
  REQUIRE(opened.ok());
  REQUIRE((*opened)->lookup(kRootDirectory, "f").ok());
  REQUIRE((*opened)->shut_down().ok());
  CHECK(is_io_error((*opened)->lookup(kRootDirectory, "f")));
  CHECK(is_io_error((*opened)->fsync(kRootDirectory, false)));
  CHECK((*opened)->close().ok());
}
