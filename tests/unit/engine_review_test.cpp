// Corners of the engine: blocks reused under a reader, space that changes need beyond what they ask for, errors after
// the change, damaged nodes, a mirror's view between two states.
#include <doctest/doctest.h>
#include <linux/fs.h>
#include <sys/stat.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "tests/support/seed.h"
#include "tests/support/test_volume.h"

using namespace tarnfs;
using tarnfs::testing::MemoryBlockDevice;
using tarnfs::testing::TestVolume;

namespace {

constexpr std::uint64_t kFar = (std::uint64_t{1} << 62) - 8192;

// Passes calls on and lets a test act before a read, see the order of calls, and give two copies of a block.
class HookedDevice final : public BlockDevice {
 public:
  explicit HookedDevice(MemoryBlockDevice& base) : base_(base) {}
  std::string name() const override { return "hooked"; }
  std::uint64_t size_blocks() const override { return base_.size_blocks(); }
  Status read(Address first, std::span<std::byte> out) override {
    std::function<void(Address)> act;
    {
      MutexLock lock(mutex_);
      act = std::exchange(before_read_, nullptr);
    }
    if (act) act(first);
    TARNFS_TRY(base_.read(first, out));
    for (std::size_t done = 0; done < out.size(); done += kBlockSize, ++first.value) {
      if (replaced.contains(first.value)) std::memset(out.data() + done, 'N', kBlockSize);
    }
    return {};
  }
  Status read_other_copy(Address address, std::size_t number, std::span<std::byte, kBlockSize> out) override {
    if (number > 0 || !replaced.contains(address.value)) return Error(ErrorCode::kNotFound);
    return base_.read(address, out);
  }
  Status write(Address first, std::span<const PageRef> pages) override {
    note('w');
    return base_.write(first, pages);
  }
  Status flush() override {
    note('f');
    return base_.flush();
  }

  // Acts once, before the next read.
  void before_next_read(std::function<void(Address)> act) {
    MutexLock lock(mutex_);
    before_read_ = std::move(act);
  }
  // 'w' and 'f' for each write and flush, in order.
  std::string calls() {
    MutexLock lock(mutex_);
    return calls_;
  }

  std::set<std::uint64_t> replaced;  // set while nobody reads

 private:
  void note(char call) {
    MutexLock lock(mutex_);
    calls_ += call;
  }

  MemoryBlockDevice& base_;
  Mutex mutex_;
  std::function<void(Address)> before_read_ TARNFS_GUARDED_BY(mutex_);
  std::string calls_ TARNFS_GUARDED_BY(mutex_);
};

// The addresses of indirect blocks whose children stand in a row.
std::vector<Address> leaf_nodes(MemoryBlockDevice& device) {
  std::vector<Address> found;
  for (std::uint64_t at = kFirstDataBlock; at < device.size_blocks(); ++at) {
    PageRef page = PageRef::uninitialised();
    REQUIRE(device.read(Address{at}, page.mutable_bytes()).ok());
    TreeNode node;
    std::memcpy(static_cast<void*>(&node), page.data(), sizeof node);
    const bool looks_like_one = is_data_address(Address{node[0].address}, device.size_blocks()) &&
                                node[1].address == node[0].address + 1 && node[0].birth_cp == node[1].birth_cp;
    if (looks_like_one && node[0].birth_cp != 0 && node[0].birth_cp < 1000) found.push_back(Address{at});
  }
  return found;
}

FallocateOptions punching() {
  FallocateOptions options;
  options.keep_size = options.punch_hole = true;
  return options;
}

}  // namespace

TEST_CASE("a metadata block that is freed and reused while an operation loads it is no damage") {
  TestVolume test(1024);
  const InodeNumber directory = test.make(kRootDirectory, "d", S_IFDIR | 0755);
  const InodeNumber filler = test.make(kRootDirectory, "filler");
  test.make(directory, "file");
  REQUIRE(test.volume->close().ok());
  test.volume.reset();
  HookedDevice device(*test.device);
  test.volume = Volume::open(device, test.options).value();
  REQUIRE(test.volume->consistency_point().ok());  // orphans are loaded
  REQUIRE(test.volume->attributes(directory).ok());
  bool reused = false;
  device.before_next_read([&](Address address) {
    PageRef before = PageRef::uninitialised();
    PageRef now = PageRef::uninitialised();
    REQUIRE(test.device->read(address, before.mutable_bytes()).ok());
    test.make(directory, "other");  // gives the directory's page a new place
    for (int i = 0; i < 100 && !reused; ++i) {
      REQUIRE(test.write(filler, 0, std::string(400000, static_cast<char>('a' + i % 26))).ok());
      REQUIRE(test.volume->consistency_point().ok());
      REQUIRE(test.device->read(address, now.mutable_bytes()).ok());
      reused = std::memcmp(now.data(), before.data(), kBlockSize) != 0;
    }
  });
  const auto found = test.volume->lookup(directory, "file");
  CHECK(reused);
  CHECK_MESSAGE(found.ok(), (found.ok() ? "" : found.error().describe()));
  CHECK(test.volume->status().error_count == 0);
}

TEST_CASE("an operation that needs more blocks than the cache keeps still ends") {
  TestVolume test;
  test.options.cache_limit_bytes = 1 << 20;  // the least that the daemon takes
  const InodeNumber file = test.make(kRootDirectory, "file");
  const std::string value(60000, 'v');
  for (int i = 0; i < 17; ++i) {
    const std::string name = "user." + std::to_string(i);
    REQUIRE(test.volume->set_xattr(file, name, std::as_bytes(std::span(value)), XattrMode::kCreate).ok());
  }
  const auto rest = std::as_bytes(std::span(value)).first(28000);
  REQUIRE(test.volume->set_xattr(file, "user.rest", rest, XattrMode::kCreate).ok());
  test.reopen();
  test.device->fail_from_call(20000);
  const auto read = test.volume->xattr(file, "user.5");
  CHECK_MESSAGE(read.ok(), (read.ok() ? "" : read.error().describe()));
  test.device->fail_from_call(std::nullopt);
}

TEST_CASE("looking for a hole takes time that grows with the file, not with its square, and stops nobody") {
  TestVolume test(1 << 17);
  const InodeNumber file = test.make(kRootDirectory, "file");
  const std::string chunk(1 << 20, 'x');
  constexpr std::uint64_t kChunks = 256;
  for (std::uint64_t i = 0; i < kChunks; ++i) REQUIRE(test.write(file, i * chunk.size(), chunk).ok());
  test.reopen();
  const auto start = std::chrono::steady_clock::now();
  CHECK(*test.volume->seek(file, 0, SeekKind::kHole) == kChunks * chunk.size());
  const std::chrono::duration<double> cold = std::chrono::steady_clock::now() - start;
  CHECK(cold.count() < 0.5);
}

TEST_CASE("punching holes has the space promised that rewriting the nodes takes") {
  TestVolume test(2048);
  const InodeNumber file = test.make(kRootDirectory, "file");
  constexpr std::uint64_t kGroup = kPointersPerNode * kBlockSize;
  std::uint64_t groups = 0;
  while (test.write(file, groups * kGroup, std::string(8192, 'x')).ok()) ++groups;
  REQUIRE(test.volume->consistency_point().ok());
  for (std::uint64_t i = 0; i < groups; ++i) {
    const Status punched = test.volume->fallocate(file, i * kGroup, 4096, punching());
    if (!punched.ok()) CHECK(punched.error().code() == ErrorCode::kNoSpace);
    if (!punched.ok()) break;
  }
  CHECK(test.volume->consistency_point().ok());
  CHECK_FALSE(test.volume->status().stopped);
  CHECK(test.problems() == "");
}

TEST_CASE("a page far behind the end has the space promised for the nodes above the old pages too") {
  TestVolume test(2048);
  std::vector<InodeNumber> files;
  for (int i = 0; i < 140; ++i) {
    files.push_back(test.make(kRootDirectory, "f" + std::to_string(i)));
    REQUIRE(test.write(files.back(), 0, "near").ok());
  }
  REQUIRE(test.volume->consistency_point().ok());
  std::size_t grown = 0;
  while (grown < files.size() && test.write(files[grown], kFar, "far").ok()) ++grown;
  CHECK(test.volume->consistency_point().ok());
  CHECK_FALSE(test.volume->status().stopped);
  CHECK(test.problems() == "");
}

TEST_CASE("a full volume can be made less full by cutting a file to any size") {
  TestVolume test(2048);
  const InodeNumber big = test.make(kRootDirectory, "big");
  const InodeNumber small = test.make(kRootDirectory, "small");
  REQUIRE(test.write(small, 0, std::string(100 * kBlockSize, 's')).ok());
  std::uint64_t written = 0;
  while (test.write(big, written, std::string(4096, 'b')).ok()) written += 4096;
  AttributeChanges cut;
  cut.size_bytes = 5000;
  const auto done = test.volume->change_attributes(small, cut);
  CHECK_MESSAGE(done.ok(), (done.ok() ? "" : done.error().describe()));
}

TEST_CASE("an unlink that answers with an error has removed nothing") {
  for (std::uint64_t call = 0;; ++call) {
    TestVolume test;
    const InodeNumber file = test.make(kRootDirectory, "file");
    for (int i = 0; i < 40; ++i) test.make(kRootDirectory, std::to_string(i));
    REQUIRE(test.volume->set_xattr(file, "user.a", {}, XattrMode::kCreate).ok());
    test.reopen();
    test.device->fail_from_call(call);
    const Status status = test.volume->unlink(kRootDirectory, "file");
    test.device->fail_from_call(std::nullopt);
    CHECK(test.volume->lookup(kRootDirectory, "file").ok() == !status.ok());
    if (status.ok()) break;
    REQUIRE(call < 50);
  }
}

TEST_CASE("a change of size and mode that answers with an error has changed nothing") {
  for (std::uint64_t call = 0;; ++call) {
    TestVolume test;
    const InodeNumber file = test.make(kRootDirectory, "file");
    REQUIRE(test.write(file, 0, "text").ok());
    for (int i = 0; i < 40; ++i) test.make(kRootDirectory, std::to_string(i));
    REQUIRE(test.volume->set_xattr(file, "user.a", {}, XattrMode::kCreate).ok());
    test.reopen();
    AttributeChanges changes;
    changes.size_bytes = 0;
    changes.mode = 0600;
    test.device->fail_from_call(call);
    const bool ok = test.volume->change_attributes(file, changes).ok();
    test.device->fail_from_call(std::nullopt);
    CHECK(test.volume->attributes(file)->size_bytes == (ok ? 0U : 4U));
    if (ok) break;
    REQUIRE(call < 50);
  }
}

TEST_CASE("a pin that was given up protects again once it is moved to a newer root") {
  TestVolume test(2048);
  const PinId pin = test.volume->pin_newest_root().pin;
  const InodeNumber big = test.make(kRootDirectory, "big");
  for (std::uint64_t at = 0; test.write(big, at, std::string(65536, 'b')).ok();) at += 65536;
  REQUIRE(test.volume->unlink(kRootDirectory, "big").ok());
  test.volume->forget(big, 1);
  const InodeNumber kept = test.make(kRootDirectory, "kept");
  REQUIRE(test.write(kept, 0, std::string(400 * kBlockSize, 'k')).ok());
  REQUIRE(test.volume->consistency_point().ok());
  test.volume->move_pin(pin, Cp{test.volume->newest_root().cp});
  REQUIRE(test.volume->unlink(kRootDirectory, "kept").ok());
  test.volume->forget(kept, 1);
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.volume->status().held_blocks >= 400);  // the pinned root still has them
}

TEST_CASE("many threads on few names, a small volume, a small cache and consistency points all the time") {
  const std::uint64_t seed = testing::printed_seed();
  TestVolume test(3000);
  REQUIRE(test.volume->close().ok());
  test.options.cache_limit_bytes = 1 << 20;
  test.options.dirty_limit_bytes = 2 << 20;
  test.volume.reset();
  test.open();
  const std::array<InodeNumber, 2> directories{test.make(kRootDirectory, "a", S_IFDIR | 0755),
                                               test.make(kRootDirectory, "b", S_IFDIR | 0755)};
  const auto work = [&](unsigned thread) {
    std::mt19937_64 random(seed + thread);
    Volume& volume = *test.volume;
    for (int i = 0; i < 3000; ++i) {
      const InodeNumber directory = directories[random() % 2];
      const std::string name = std::to_string(random() % 12);
      const std::string other = std::to_string(random() % 12);
      auto found = random() % 3 == 0 ? volume.make_node(directory, name, NewNode{S_IFREG | 0644, 0, 0, {}, {}})
                                     : volume.lookup(directory, name);
      if (found.ok()) {
        const InodeNumber file = found->inode;
        const std::uint64_t at = random() % (random() % 20 == 0 ? kFar : 300000);
        AttributeChanges cut;
        cut.size_bytes = random() % 200000;
        cut.mode = 0600;
        (void)test.write(file, at, std::string(random() % 60000 + 1, 'x'));
        if (random() % 3 == 0) (void)volume.set_xattr(file, "user." + other, std::as_bytes(std::span(name)), {});
        if (random() % 4 == 0) (void)volume.remove_xattr(file, "user." + other);
        if (random() % 4 == 0) (void)volume.change_attributes(file, cut);
        if (random() % 4 == 0) (void)volume.fallocate(file, random() % 200000, random() % 90000 + 1, punching());
        if (random() % 8 == 0) (void)volume.fsync(file, false);
        if (random() % 8 == 0 && volume.link(file, directory, other).ok()) volume.forget(file, 1);
        const std::string text = test.read(file, random() % 200000, 50000);
        CHECK(text.find_first_not_of(std::string_view("x\0", 2)) == std::string::npos);
        if (random() % 2 == 0) (void)volume.unlink(directory, name);
        volume.forget(file, 1);
      }
      if (random() % 4 == 0) {
        (void)volume.rename(directory, name, directories[random() % 2], other, static_cast<RenameMode>(random() % 3));
      }
    }
  };
  std::vector<std::thread> threads;
  for (unsigned thread = 0; thread < 4; ++thread) threads.emplace_back(work, thread);
  for (int i = 0; i < 50; ++i) (void)test.volume->consistency_point();
  for (std::thread& thread : threads) thread.join();
  CHECK_FALSE(test.volume->status().stopped);
  if (test.volume->status().stopped) return;
  test.reopen();
  CHECK(test.problems() == "");
}

TEST_CASE("a damaged node of one file does not stop the volume") {
  TestVolume test(4096);
  const InodeNumber bad = test.make(kRootDirectory, "bad");
  const InodeNumber good = test.make(kRootDirectory, "good");
  REQUIRE(test.write(bad, 0, std::string(200 * kBlockSize, 'b')).ok());
  REQUIRE(test.volume->consistency_point().ok());
  test.reopen();
  const auto nodes = leaf_nodes(*test.device);
  REQUIRE(!nodes.empty());
  for (const Address node : nodes) test.device->damage(node);
  REQUIRE(test.write(good, 0, "good").ok());
  SUBCASE("overwritten") {
    (void)test.write(bad, 0, std::string(4096, 'c'));
  }
  SUBCASE("deleted") {
    (void)test.volume->unlink(kRootDirectory, "bad");
  }
  CHECK(test.volume->consistency_point().ok());
  CHECK_FALSE(test.volume->status().stopped);
  test.crash_and_reopen();
  CHECK(test.volume->lookup(kRootDirectory, "good").ok());
  CHECK(test.read(good, 0, 4) == "good");
}

TEST_CASE("an append-only file keeps what it has") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "log");
  REQUIRE(test.write(file, 0, "line").ok());
  AttributeChanges changes;
  changes.flags = FS_APPEND_FL;
  REQUIRE(test.volume->change_attributes(file, changes).ok());
  CHECK_FALSE(test.volume->fallocate(file, 0, 4, punching()).ok());
  CHECK_FALSE(test.write(file, 0, "gone").ok());
  CHECK(test.write(file, 4, "more").ok());
}

// The exchange of two names took one out of an append-only directory.
TEST_CASE("an append-only directory keeps its names, also when others are exchanged for them") {
  TestVolume test;
  const InodeNumber directory = test.make(kRootDirectory, "directory", S_IFDIR | 0755);
  const InodeNumber inside = test.make(directory, "inside");
  test.make(kRootDirectory, "outside");
  AttributeChanges changes;
  changes.flags = FS_APPEND_FL;
  REQUIRE(test.volume->change_attributes(directory, changes).ok());
  for (const RenameMode mode : {RenameMode::kExchange, RenameMode::kReplace}) {
    const Status renamed = test.volume->rename(kRootDirectory, "outside", directory, "inside", mode);
    REQUIRE_FALSE(renamed.ok());
    CHECK(renamed.error().code() == ErrorCode::kNotPermitted);
  }
  CHECK(test.volume->lookup(directory, "inside")->inode == inside);
  CHECK(test.volume->rename(kRootDirectory, "outside", directory, "new", RenameMode::kReplace).ok());
}

// It said that the attribute was missing, which is more than one who may not change it is told elsewhere.
TEST_CASE("an immutable file refuses to lose an attribute, whether it has it or not") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  AttributeChanges changes;
  changes.flags = FS_IMMUTABLE_FL;
  REQUIRE(test.volume->change_attributes(file, changes).ok());
  const Status removed = test.volume->remove_xattr(file, "user.none");
  REQUIRE_FALSE(removed.ok());
  CHECK(removed.error().code() == ErrorCode::kNotPermitted);
}

// xfstests generic/371: what had just been deleted was not free before the next consistency point, and fallocate said
// at once that there is no space.
TEST_CASE("fallocate finds the space of what was just deleted") {
  constexpr std::uint64_t kMebibyte = 1U << 20;
  TestVolume test(16384);  // 64 MiB
  const InodeNumber old = test.make(kRootDirectory, "old");
  const std::string content(kMebibyte, 'x');
  for (std::uint64_t i = 0; i < 40; ++i) REQUIRE(test.write(old, i * kMebibyte, content).ok());
  REQUIRE(test.volume->consistency_point().ok());
  const InodeNumber file = test.make(kRootDirectory, "new");
  CHECK(test.volume->fallocate(file, 0, 40 * kMebibyte, {}).error().code() == ErrorCode::kNoSpace);
  REQUIRE(test.volume->unlink(kRootDirectory, "old").ok());
  test.volume->forget(old, 1);
  CHECK(test.volume->fallocate(file, 0, 40 * kMebibyte, {}).ok());
  CHECK(test.volume->fallocate(file, 0, 80 * kMebibyte, {}).error().code() == ErrorCode::kNoSpace);
}

TEST_CASE("the root that a mount starts from is made durable before its blocks' predecessors are reused") {
  TestVolume test;
  REQUIRE(test.volume->close().ok());
  test.volume.reset();
  HookedDevice device(*test.device);
  test.volume = Volume::open(device, test.options).value();
  test.make(kRootDirectory, "file");
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(device.calls().front() == 'f');
}

TEST_CASE("one damaged root slot with another version does not hide the good ones") {
  TestVolume test;
  test.make(kRootDirectory, "file");
  REQUIRE(test.volume->consistency_point().ok());
  REQUIRE(test.volume->close().ok());
  const Address old_slot = root_slot_of(Cp{1}, test.device->size_blocks());
  PageRef page = PageRef::uninitialised();
  REQUIRE(test.device->read(old_slot, page.mutable_bytes()).ok());
  page.mutable_bytes()[8] ^= std::byte{4};
  REQUIRE(test.device->write(old_slot, std::span(&page, 1)).ok());
  test.volume.reset();
  CHECK(Volume::open(*test.device, test.options).ok());
}

TEST_CASE("the roots of the last consistency points are known, and of a damaged one what the next one says") {
  TestVolume test;
  std::map<std::uint64_t, std::uint64_t> checksums;
  for (int i = 0; i < 40; ++i) {
    test.make(kRootDirectory, std::to_string(i));
    REQUIRE(test.volume->consistency_point().ok());
    checksums[test.volume->newest_root().cp] = test.volume->newest_root().checksum;
  }
  const std::uint64_t newest = test.volume->newest_root().cp;
  for (std::uint64_t cp = newest - kRootSlots + 1; cp <= newest; ++cp) {
    CHECK(test.volume->root_checksum(Cp{cp}) == checksums.at(cp));
  }
  CHECK(test.volume->root_checksum(Cp{newest - kRootSlots}) == checksums.at(newest - kRootSlots));
  CHECK_FALSE(test.volume->root_checksum(Cp{newest - kRootSlots - 1}));
  CHECK_FALSE(test.volume->root_checksum(Cp{newest + 1}));
  const PageRef nothing = PageRef::zeroed();
  const Cp damaged{newest - 3};
  REQUIRE(test.device->write(root_slot_of(damaged, test.device->size_blocks()), std::span(&nothing, 1)).ok());
  CHECK(test.volume->root_checksum(damaged) == checksums.at(damaged.value));
}

TEST_CASE("a mirror reads the old state, in aligned buffers too, while the new one is already shown by the device") {
  TestVolume primary;
  const InodeNumber file = primary.make(kRootDirectory, "file");
  REQUIRE(primary.write(file, 0, std::string(4 * kBlockSize, 'o')).ok());
  REQUIRE(primary.volume->consistency_point().ok());
  HookedDevice device(*primary.device);
  VolumeOptions options;
  options.mode = VolumeMode::kMirror;
  const auto mirror = Volume::open(device, options).value();
  REQUIRE(mirror->adopt(primary.volume->newest_root()).ok());
  const std::uint64_t first = primary.first_block_behind_journal();
  for (std::uint64_t at = first; at < first + 200; ++at) {
    PageRef page = PageRef::uninitialised();
    REQUIRE(primary.device->read(Address{at}, page.mutable_bytes()).ok());
    if (page.bytes()[0] == std::byte{'o'}) device.replaced.insert(at);
  }
  REQUIRE(device.replaced.size() == 4);
  const std::size_t length = 4 * kBlockSize;
  const std::unique_ptr<void, decltype(&std::free)> memory(std::aligned_alloc(kBlockSize, length), &std::free);
  auto* const bytes = static_cast<std::byte*>(memory.get());
  CHECK(mirror->read(file, 1, std::span(bytes, 100)).ok());  // not whole blocks
  CHECK(mirror->read(file, 0, std::span(bytes, length)).ok());
  CHECK(std::all_of(bytes, bytes + length, [](std::byte byte) { return byte == std::byte{'o'}; }));
}

TEST_CASE("a hole is looked for in one view, whenever a mirror moves to the next") {
  constexpr std::uint64_t kPages = 5000;
  TestVolume primary;
  Volume& volume = *primary.volume;
  const InodeNumber file = primary.make(kRootDirectory, "file");
  REQUIRE(primary.write(file, 0, std::string(kPages * kBlockSize, 'x')).ok());
  const FallocateOptions punch{.keep_size = true, .punch_hole = true};
  REQUIRE(volume.fallocate(file, 4500 * kBlockSize, kBlockSize, punch).ok());
  REQUIRE(volume.consistency_point().ok());
  const RootBlock before = volume.pin_newest_root().root;
  REQUIRE(volume.fallocate(file, 10 * kBlockSize, kBlockSize, punch).ok());
  REQUIRE(primary.write(file, 4500 * kBlockSize, std::string(kBlockSize, 'x')).ok());
  REQUIRE(volume.consistency_point().ok());
  const RootBlock after = volume.newest_root();
  VolumeOptions options;
  options.mode = VolumeMode::kMirror;
  bool moved = true;
  for (int reads_before = 0; moved; ++reads_before) {
    CAPTURE(reads_before);
    HookedDevice device(*primary.device);
    const auto mirror = Volume::open(device, options).value();
    REQUIRE(mirror->adopt(before).ok());
    moved = false;
    int left = reads_before;
    std::function<void(Address)> move_view = [&](Address) {
      if (left-- > 0) {
        device.before_next_read(move_view);
        return;
      }
      moved = true;
      CHECK(mirror->adopt(after).ok());
    };
    device.before_next_read(move_view);
    const auto hole = mirror->seek(file, 0, SeekKind::kHole);
    REQUIRE(hole.ok());
    CHECK((*hole == 4500 * kBlockSize || *hole == 10 * kBlockSize));
  }
}

TEST_CASE("times that the kernel keeps are what it sent, whatever is written") {
  TestVolume test;
  Volume& volume = *test.volume;
  const InodeNumber file = test.make(kRootDirectory, "file");
  const auto send = [&](std::optional<std::uint64_t> size_bytes, std::optional<Timestamp> modified,
                        std::optional<Timestamp> changed) {
    AttributeChanges changes;
    changes.size_bytes = size_bytes;
    changes.modified = modified;
    changes.changed = changed;
    REQUIRE(volume.change_attributes(file, changes).ok());
  };
  const auto has = [&](Timestamp modified, Timestamp changed) {
    const Attributes now = volume.attributes(file).value();
    return now.modified == modified && now.changed == changed;
  };
  const auto write_all_ways = [&] {
    REQUIRE(test.write(file, 0, std::string(3 * kBlockSize, 'x')).ok());
    REQUIRE(volume.fallocate(file, 0, kBlockSize, {.keep_size = true, .zero_range = true}).ok());
    REQUIRE(volume.copy_range(file, kBlockSize, file, 4 * kBlockSize, kBlockSize).ok());
  };
  send({}, Timestamp{1000, 1}, Timestamp{1000, 2});
  write_all_ways();
  CHECK_FALSE(has({1000, 1}, {1000, 2}));
  volume.leave_times_to_kernel();
  send({}, Timestamp{1000, 1}, Timestamp{1000, 2});
  write_all_ways();
  CHECK(has({1000, 1}, {1000, 2}));
  // A truncate(2) to the size that the file has: no times come with it.
  send(5 * kBlockSize, {}, {});
  CHECK(has({1000, 1}, {1000, 2}));
  send(5 * kBlockSize, {}, Timestamp{1001, 3});
  CHECK(has({1000, 1}, {1001, 3}));
}

// A file handle is a number, and an NFS client can make one up. The one of the orphan file could be opened and written
// to, which left a list of inodes that do not exist; so could the ones of the share map and of attribute inodes.
TEST_CASE("what the file system keeps for itself cannot be reached by its number") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "file");
  const InodeNumber copy = test.make(kRootDirectory, "copy");
  test.make(kRootDirectory, "held");
  REQUIRE(test.volume->unlink(kRootDirectory, "held").ok());  // now there is an orphan file
  REQUIRE(test.write(file, 0, std::string(4 * kBlockSize, 'x')).ok());
  REQUIRE(test.volume->consistency_point().ok());
  REQUIRE(test.volume->copy_range(file, 0, copy, 0, 4 * kBlockSize).ok());  // a share map
  const std::string value(100, 'v');
  const auto bytes = std::as_bytes(std::span(value));
  REQUIRE(test.volume->set_xattr(file, "user.x", bytes, XattrMode::kCreate).ok());  // and an attribute inode
  REQUIRE(test.volume->consistency_point().ok());
  const std::uint64_t next_inode = test.volume->newest_root().next_inode;
  std::set<std::uint64_t> found;
  for (std::uint64_t number = 0; number <= next_inode; ++number) {
    const auto attributes = test.volume->attributes_with_lookup(InodeNumber{number});
    if (attributes.ok()) found.insert(number);
    if (!attributes.ok()) CHECK(attributes.error().code() == ErrorCode::kStale);
  }
  CHECK(found == std::set{kRootDirectory.value, file.value, copy.value});
}
