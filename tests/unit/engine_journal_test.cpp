// What fsync promised is there after a crash, without a consistency point.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <atomic>
#include <functional>
#include <thread>

#include "fs/check/journal_repair.h"
#include "tests/support/gated_block_device.h"
#include "tests/support/test_volume.h"

using namespace tarnfs;
using tarnfs::testing::GatedBlockDevice;
using tarnfs::testing::TestVolume;

namespace {

InodeNumber find(TestVolume& test, InodeNumber parent, std::string_view name) {
  const auto found = test.volume->lookup(parent, name);
  return found.ok() ? found->inode : InodeNumber{};
}

std::uint64_t cp_count(TestVolume& test) {
  return test.volume->status().cp_count;
}

// Acts once when it is asked for the time, which the engine does with a lock held: on another thread, as others would.
class ActingClock final : public Clock {
 public:
  Timestamp now() override {
    if (const auto act = std::exchange(next_, nullptr)) std::thread(act).join();
    return system_clock().now();
  }
  std::uint64_t monotonic_ns() override { return system_clock().monotonic_ns(); }
  std::uint64_t random() override { return system_clock().random(); }
  // By one thread, while no other asks.
  void act_next(std::function<void()> act) { next_ = std::move(act); }

 private:
  std::function<void()> next_;
};

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

}  // namespace

TEST_CASE("a written and fsynced file is there after a crash, and no consistency point was taken") {
  TestVolume test;
  const InodeNumber directory = test.make(kRootDirectory, "d", S_IFDIR | 0750);
  const InodeNumber file = test.make(directory, "f");
  REQUIRE(test.write(file, 5000, "content").ok());
  REQUIRE(test.volume->fsync(file, false).ok());
  CHECK(cp_count(test) == 0);
  CHECK(test.volume->status().journal_used_bytes > 0);
  test.crash_and_reopen();
  CHECK(find(test, kRootDirectory, "d") == directory);
  REQUIRE(find(test, directory, "f") == file);
  CHECK(test.read(file, 5000, 100) == "content");
  CHECK(test.volume->attributes(file)->size_bytes == 5007);
  CHECK(test.volume->attributes(directory)->mode == (S_IFDIR | 0750));
  CHECK(test.volume->status().journal_used_bytes == 0);
  test.reopen();
  CHECK(test.problems() == "");
}

// Recovery looks for batches of the newest root's epoch, and the first root of a mount begins one: a batch that was
// placed while that root was on its way would have belonged to the epoch before.
TEST_CASE("an fsync while the first root of a mount is being written is kept") {
  TestVolume test;
  test.volume.reset();
  GatedBlockDevice gate(*test.device, GatedBlockDevice::Gate::kRoots);
  auto opened = Volume::open(gate, test.options);
  REQUIRE(opened.ok());
  test.volume = std::move(opened).value();
  const InodeNumber file = test.make(kRootDirectory, "f");
  REQUIRE(test.write(file, 0, "one").ok());
  REQUIRE(test.volume->fsync(file, false).ok());
  CHECK(test.volume->status().fsync_cp_count == 0);
  gate.close();
  std::thread point([&] { CHECK(test.volume->consistency_point().ok()); });
  gate.wait_for_a_write();
  REQUIRE(test.write(file, 0, "two").ok());
  std::atomic<bool> is_kept{false};
  std::thread fsync([&] {
    CHECK(test.volume->fsync(file, false).ok());
    is_kept = true;
  });
  while (!is_kept && test.volume->status().fsync_cp_count == 0) std::this_thread::yield();
  gate.open();
  point.join();
  fsync.join();
  // From now on the journal takes them again.
  const std::uint64_t cps = cp_count(test);
  const InodeNumber later = test.make(kRootDirectory, "later");
  REQUIRE(test.write(later, 0, "three").ok());
  REQUIRE(test.volume->fsync(later, false).ok());
  CHECK(cp_count(test) == cps);
  test.crash_and_reopen();
  CHECK(test.read(find(test, kRootDirectory, "f"), 0, 10) == "two");
  CHECK(test.read(find(test, kRootDirectory, "later"), 0, 10) == "three");
  CHECK(test.problems() == "");
}

TEST_CASE("what was not fsynced does not come along, names do") {
  TestVolume test;
  const InodeNumber kept = test.make(kRootDirectory, "kept");
  const InodeNumber other = test.make(kRootDirectory, "other");
  REQUIRE(test.write(kept, 0, "one").ok());
  REQUIRE(test.write(other, 0, "two").ok());
  REQUIRE(test.volume->fsync(kept, true).ok());
  test.crash_and_reopen();
  CHECK(test.read(find(test, kRootDirectory, "kept"), 0, 10) == "one");
  CHECK(test.read(find(test, kRootDirectory, "other"), 0, 10) == "");
  CHECK(test.problems() == "");
}

TEST_CASE("cuts, holes and rewrites between fsyncs") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "f");
  REQUIRE(test.write(file, 0, std::string(30000, 'a')).ok());
  REQUIRE(test.volume->fsync(file, false).ok());
  AttributeChanges shorter;
  shorter.size_bytes = 9000;
  REQUIRE(test.volume->change_attributes(file, shorter).ok());
  REQUIRE(test.write(file, 20000, "end").ok());
  REQUIRE(test.volume->fallocate(file, 0, 4096, {true, true, false}).ok());
  REQUIRE(test.volume->fsync(file, true).ok());
  REQUIRE(test.write(file, 1, "b").ok());
  REQUIRE(test.volume->fsync(file, true).ok());
  test.crash_and_reopen();
  std::string expected(20003, '\0');
  for (std::size_t i = 4096; i < 9000; ++i) expected[i] = 'a';
  expected[1] = 'b';
  expected.replace(20000, 3, "end");
  CHECK(test.read(file, 0, 40000) == expected);
  CHECK(test.problems() == "");
}

TEST_CASE("all operations on names, attributes and symlinks") {
  TestVolume test;
  const InodeNumber a = test.make(kRootDirectory, "a", S_IFDIR | 0755);
  const InodeNumber b = test.make(kRootDirectory, "b", S_IFDIR | 0755);
  const InodeNumber file = test.make(a, "file");
  REQUIRE(test.volume->set_xattr(file, "user.x", bytes_of("value"), XattrMode::kCreateOrReplace).ok());
  REQUIRE(test.volume->link(file, b, "second").ok());
  REQUIRE(test.volume->rename(a, "file", b, "moved", RenameMode::kReplace).ok());
  NewNode symlink;
  symlink.mode = S_IFLNK | 0777;
  const std::string target(1000, 't');
  symlink.symlink_target = target;
  const InodeNumber link = test.volume->make_node(a, "link", symlink)->inode;
  test.make(a, "gone");
  REQUIRE(test.volume->unlink(a, "gone").ok());
  const InodeNumber unnamed = test.volume->make_unnamed(a, NewNode{.mode = S_IFREG | 0600})->inode;
  REQUIRE(test.write(unnamed, 0, "unnamed").ok());
  REQUIRE(test.volume->link(unnamed, a, "named").ok());
  REQUIRE(test.volume->rename(kRootDirectory, "a", b, "a", RenameMode::kReplace).ok());
  REQUIRE(test.volume->rename(b, "a", b, "second", RenameMode::kExchange).ok());
  for (const InodeNumber inode : {file, unnamed}) REQUIRE(test.volume->fsync(inode, false).ok());
  CHECK(cp_count(test) == 0);
  test.crash_and_reopen();
  CHECK(find(test, b, "moved") == file);
  CHECK(find(test, b, "a") == file);
  CHECK(find(test, b, "second") == a);
  CHECK(test.volume->attributes(file)->link_count == 2);
  CHECK(test.volume->xattr(file, "user.x").value() == "value");
  CHECK(test.volume->symlink_target(link).value() == target);
  CHECK(find(test, a, "gone") == InodeNumber{});
  CHECK(test.read(find(test, a, "named"), 0, 100) == "unnamed");
  CHECK(find(test, kRootDirectory, "a") == InodeNumber{});
  test.reopen();
  CHECK(test.problems() == "");
}

// The name log could be taken between the records of the rename and of the node that it leaves, so that a crash showed
// the first without the second: they are appended as one.
TEST_CASE("a rename that leaves a node under the old name") {
  TestVolume test;
  const InodeNumber a = test.make(kRootDirectory, "a", S_IFDIR | 0755);
  const InodeNumber file = test.make(a, "file");
  const InodeNumber victim = test.make(kRootDirectory, "victim");
  REQUIRE(test.volume->consistency_point().ok());
  const NewNode whiteout{.mode = S_IFCHR, .caller = {.uid = 7, .gid = 8}};
  REQUIRE(test.volume->rename_leaving(a, "file", kRootDirectory, "victim", RenameMode::kReplace, whiteout).ok());
  REQUIRE(test.volume->rename_leaving(a, "file", a, "again", RenameMode::kNoReplace, whiteout).ok());
  const InodeNumber first = find(test, a, "again");
  const InodeNumber second = find(test, a, "file");
  REQUIRE(test.volume->fsync(a, false).ok());
  CHECK(cp_count(test) == 1);
  test.crash_and_reopen();
  CHECK(find(test, kRootDirectory, "victim") == file);
  CHECK(find(test, a, "again") == first);
  CHECK(find(test, a, "file") == second);
  CHECK(first != second);
  CHECK(second != victim);
  const auto left = test.volume->attributes(second);
  REQUIRE(left.ok());
  CHECK(left->mode == S_IFCHR);
  CHECK(left->uid == 7);
  CHECK(left->gid == 8);
  CHECK(left->link_count == 1);
  test.reopen();
  CHECK(test.problems() == "");
}

TEST_CASE("a file renamed over another brings its content") {
  TestVolume test;
  const InodeNumber old_file = test.make(kRootDirectory, "config");
  REQUIRE(test.write(old_file, 0, "old").ok());
  const InodeNumber bystander = test.make(kRootDirectory, "bystander");
  REQUIRE(test.volume->consistency_point().ok());
  const InodeNumber fresh = test.make(kRootDirectory, "config.new");
  REQUIRE(test.write(fresh, 0, "new").ok());
  REQUIRE(test.volume->rename(kRootDirectory, "config.new", kRootDirectory, "config", RenameMode::kReplace).ok());
  REQUIRE(test.write(bystander, 0, "x").ok());
  REQUIRE(test.volume->fsync(bystander, false).ok());
  test.crash_and_reopen();
  CHECK(test.read(find(test, kRootDirectory, "config"), 0, 10) == "new");
  CHECK(test.problems() == "");
}

// The names of a batch are taken first, then the content of the files that were renamed over others. One of these that
// was replaced itself in between, and freed, was left out: its name was in the batch, and after a crash it was empty.
TEST_CASE("a file renamed over another is replaced and freed while a batch is put together") {
  TestVolume test;
  ActingClock clock;
  test.options.clock = &clock;
  test.reopen();
  const auto write_new = [&](std::string_view name, std::string_view text) {
    const InodeNumber file = test.make(kRootDirectory, name);
    REQUIRE(test.write(file, 0, text).ok());
    return file;
  };
  const auto rename = [&](std::string_view from, std::string_view to) {
    return test.volume->rename(kRootDirectory, from, kRootDirectory, to, RenameMode::kReplace);
  };
  write_new("first", "old");
  write_new("config", "old");
  const InodeNumber bystander = test.make(kRootDirectory, "bystander");
  REQUIRE(test.volume->consistency_point().ok());
  write_new("first.new", "new");
  const InodeNumber newer = write_new("config.new", "newer");
  write_new("config.newest", "newest");
  REQUIRE(rename("first.new", "first").ok());  // its state is logged first, with the time of day
  REQUIRE(rename("config.new", "config").ok());
  REQUIRE(test.write(bystander, 0, "x").ok());
  bool replaced = false;
  clock.act_next([&] {
    replaced = rename("config.newest", "config").ok();
    test.volume->forget(newer, 1);
  });
  REQUIRE(test.volume->fsync(bystander, false).ok());
  REQUIRE(replaced);
  CHECK(cp_count(test) == 1);
  test.crash_and_reopen();
  CHECK(test.read(find(test, kRootDirectory, "config"), 0, 10) == "newest");
  CHECK(test.problems() == "");
}

TEST_CASE("a read-only volume shows what the journal has and writes nothing") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "f");
  REQUIRE(test.write(file, 0, "content").ok());
  REQUIRE(test.volume->fsync(file, false).ok());
  auto copy = test.device->clone();
  VolumeOptions options;
  options.mode = VolumeMode::kReadOnly;
  const auto opened = Volume::open(*copy, options);
  REQUIRE(opened.ok());
  std::string text(7, ' ');
  REQUIRE((*opened)->lookup(kRootDirectory, "f").ok());
  CHECK((*opened)->read(file, 0, std::as_writable_bytes(std::span(text))).value() == 7);
  CHECK(text == "content");
  CHECK(copy->written_blocks() == 0);
}

TEST_CASE("a volume that is opened without its journal shows the newest root and stays read-only") {
  TestVolume test;
  test.make(kRootDirectory, "old");
  REQUIRE(test.volume->consistency_point().ok());
  const InodeNumber file = test.make(kRootDirectory, "new");
  for (const char* text : {"a", "b", "c"}) {
    REQUIRE(test.write(file, 0, text).ok());
    REQUIRE(test.volume->fsync(file, false).ok());
  }
  auto copy = test.device->clone();
  copy->damage(Address{test.volume->superblock().journal_first + 2});
  VolumeOptions options;
  options.mode = VolumeMode::kReadOnly;
  CHECK(Volume::open(*copy, options).error().code() == ErrorCode::kCorrupt);
  options.replay_journal = false;
  const auto opened = Volume::open(*copy, options);
  REQUIRE(opened.ok());
  CHECK((*opened)->lookup(kRootDirectory, "old").ok());
  CHECK((*opened)->lookup(kRootDirectory, "new").error().code() == ErrorCode::kNotFound);
  CHECK((*opened)->trim({}).error().code() == ErrorCode::kReadOnly);
  CHECK((*opened)->make_writable().error().code() == ErrorCode::kReadOnly);
  CHECK(copy->written_blocks() == 0);
  options.mode = VolumeMode::kReadWrite;
  CHECK(Volume::open(*copy, options).error().code() == ErrorCode::kInvalid);
}

TEST_CASE("a small journal wraps, and what does not fit is left to a consistency point") {
  TestVolume test(4096);  // 256 blocks of journal
  std::map<std::uint64_t, std::string> contents;
  std::vector<InodeNumber> files;
  files.reserve(5);
  for (int i = 0; i < 5; ++i) files.push_back(test.make(kRootDirectory, "f" + std::to_string(i)));
  for (int round = 0; round < 300; ++round) {
    const InodeNumber file = files[static_cast<std::size_t>(round) % files.size()];
    const std::string content(static_cast<std::size_t>(1 + round * 577 % 40000), static_cast<char>('a' + round % 26));
    REQUIRE(test.write(file, 0, content).ok());
    std::string& expected = contents[file.value];
    expected.resize(std::max(expected.size(), content.size()));
    expected.replace(0, content.size(), content);
    REQUIRE(test.volume->fsync(file, true).ok());
  }
  const InodeNumber large = test.make(kRootDirectory, "large");
  REQUIRE(test.write(large, 0, std::string(1 << 20, 'x')).ok());
  REQUIRE(test.volume->fsync(large, true).ok());
  CHECK(cp_count(test) > 3);
  test.crash_and_reopen();
  for (const InodeNumber file : files) CHECK(test.read(file, 0, 50000) == contents[file.value]);
  CHECK(test.read(large, 0, 2 << 20) == std::string(1 << 20, 'x'));
  CHECK(test.problems() == "");
}

TEST_CASE("many threads share the journal") {
  TestVolume test;
  constexpr int kThreads = 8;
  constexpr int kRounds = 200;
  std::vector<InodeNumber> files;
  files.reserve(kThreads);
  for (int i = 0; i < kThreads; ++i) files.push_back(test.make(kRootDirectory, "f" + std::to_string(i)));
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      const InodeNumber file = files[static_cast<std::size_t>(i)];
      for (int round = 0; round < kRounds; ++round) {
        const std::string text = std::to_string(i) + ":" + std::to_string(round);
        TARNFS_ASSERT(test.write(file, static_cast<std::uint64_t>(round) * 4096, text).ok());
        TARNFS_ASSERT(test.volume->fsync(file, true).ok());
        if (i == 0 && round % 20 == 0) TARNFS_ASSERT(test.volume->consistency_point().ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  test.crash_and_reopen();
  for (int i = 0; i < kThreads; ++i) {
    for (int round = 0; round < kRounds; ++round) {
      const std::string text = std::to_string(i) + ":" + std::to_string(round);
      CHECK(test.read(files[static_cast<std::size_t>(i)], static_cast<std::uint64_t>(round) * 4096, text.size()) ==
            text);
    }
  }
  CHECK(test.problems() == "");
}

TEST_CASE("a failed write of the journal fails every fsync from then on") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "f");
  REQUIRE(test.write(file, 0, "a").ok());
  test.device->fail_from_call(0);
  CHECK(test.volume->fsync(file, false).error().code() == ErrorCode::kIo);
  test.device->fail_from_call(std::nullopt);
  CHECK(test.volume->fsync(file, false).error().code() == ErrorCode::kIo);
  CHECK(test.write(file, 0, "b").error().code() == ErrorCode::kReadOnly);
  CHECK(test.volume->status().stopped);
  CHECK(test.volume->read_only());
  test.crash_and_reopen();
  CHECK(find(test, kRootDirectory, "f") == InodeNumber{});
  CHECK(test.problems() == "");
}

TEST_CASE("a damaged journal is told, not passed over") {
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "f");
  for (const char* text : {"a", "b", "c"}) {
    REQUIRE(test.write(file, 0, text).ok());
    REQUIRE(test.volume->fsync(file, false).ok());
  }
  auto copy = test.device->clone();
  const Superblock superblock = test.volume->superblock();
  copy->damage(Address{superblock.journal_first + 2});
  const auto opened = Volume::open(*copy, test.options);
  REQUIRE_FALSE(opened.ok());
  CHECK(opened.error().code() == ErrorCode::kCorrupt);
  CHECK(opened.error().message().find("journal is damaged") != std::string::npos);
  CHECK_FALSE(check_volume(*copy, {})->clean());
  CHECK(give_up_damaged_journal(*copy).value());
  CHECK_FALSE(give_up_damaged_journal(*copy).value());
  CHECK(check_volume(*copy, {})->clean());
  const auto again = Volume::open(*copy, test.options);
  REQUIRE(again.ok());
  CHECK((*again)->attributes(file)->size_bytes == 1);
}

TEST_CASE("a large file is written once: the journal and the consistency point refer to its blocks") {
  constexpr std::size_t kPages = 2000;
  TestVolume test;
  const InodeNumber file = test.make(kRootDirectory, "large");
  REQUIRE(test.volume->consistency_point().ok());
  std::string content(kPages * kBlockSize, ' ');
  for (std::size_t i = 0; i < content.size(); i += 100) content[i] = static_cast<char>('a' + i / kBlockSize % 26);
  REQUIRE(test.write(file, 0, content).ok());
  const std::uint64_t before = test.device->written_blocks();
  REQUIRE(test.volume->fsync(file, false).ok());
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.device->written_blocks() - before < kPages + kPages / 20);
  CHECK(test.read(file, 0, content.size()) == content);
  CHECK(test.problems() == "");
  test.crash_and_reopen();
  CHECK(test.read(file, 0, content.size()) == content);
  CHECK(test.problems() == "");
}

TEST_CASE("a large file comes back from the journal, and what was changed after it was placed") {
  constexpr std::size_t kPages = 1000;
  for (const std::uint64_t cut_off : {0, 1, 2, 3, 5, 8, 12}) {
    CAPTURE(cut_off);
    TestVolume test;
    const InodeNumber file = test.make(kRootDirectory, "large");
    std::string content(kPages * kBlockSize, 'x');
    REQUIRE(test.write(file, 0, content).ok());
    REQUIRE(test.volume->fsync(file, false).ok());
    const std::uint64_t cp = test.volume->status().root.cp;
    // In place, cut and written anew: with fsyncs between and one change that is lost.
    for (int i = 0; i < 3; ++i) {
      const std::size_t at = 5000 + static_cast<std::size_t>(i) * 700000;
      content.replace(at, 300, std::string(300, static_cast<char>('0' + i)));
      REQUIRE(test.write(file, at, std::string(300, static_cast<char>('0' + i))).ok());
      if (i != 1) REQUIRE(test.volume->fsync(file, true).ok());
    }
    AttributeChanges shorter;
    shorter.size_bytes = 3000000;
    REQUIRE(test.volume->change_attributes(file, shorter).ok());
    content.resize(3000000);
    REQUIRE(test.volume->fsync(file, true).ok());
    REQUIRE(test.write(file, 0, "lost").ok());
    CHECK(test.volume->status().root.cp == cp);
    CHECK(test.problems() == "");
    if (cut_off > 0) {
      // Recovery dies in its last calls: when its blocks are written, before or with its root.
      auto probe = test.device->clone();
      probe->fail_from_call(~std::uint64_t{0});
      REQUIRE(Volume::open(*probe, test.options).ok());
      auto copy = test.device->clone();
      copy->fail_from_call(probe->calls() - cut_off);
      CHECK_FALSE(Volume::open(*copy, test.options).ok());
      copy->fail_from_call(std::nullopt);
      test.volume.reset();
      test.device = std::move(copy);
      test.open();
    } else {
      test.crash_and_reopen();
    }
    CHECK(test.read(file, 0, content.size() + 1) == content);
    CHECK(test.problems() == "");
    test.reopen();
    CHECK(test.read(file, 0, content.size() + 1) == content);
    CHECK(test.problems() == "");
  }
}

TEST_CASE("large files that are fsynced again and again on a small volume do not use it up") {
  TestVolume test(8192);
  const InodeNumber file = test.make(kRootDirectory, "large");
  std::string content;
  for (int round = 0; round < 60; ++round) {
    content.assign(800 * kBlockSize, static_cast<char>('a' + round % 26));
    REQUIRE(test.write(file, 0, content).ok());
    REQUIRE(test.volume->fsync(file, true).ok());
  }
  CHECK(test.read(file, 0, content.size()) == content);
  test.crash_and_reopen();
  CHECK(test.read(file, 0, content.size()) == content);
  REQUIRE(test.volume->unlink(kRootDirectory, "large").ok());
  test.reopen();
  CHECK(test.volume->status().root.used_blocks < test.volume->superblock().journal_blocks + 20);
  CHECK(test.problems() == "");
}
