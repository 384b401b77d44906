// Copies that share blocks: what is in both files, what is freed when, and what each of them costs.
#include <doctest/doctest.h>
#include <linux/fs.h>
#include <sys/stat.h>

#include <memory>
#include <random>
#include <thread>

#include "tests/support/seed.h"
#include "tests/support/test_volume.h"
#include "tests/support/thread_sanitizer.h"

using namespace tarnfs;
using tarnfs::testing::kOneRoundOf;
using tarnfs::testing::MemoryBlockDevice;
using tarnfs::testing::TestVolume;

namespace {

// Lets a test act while a consistency point runs: it stops before its flush, until the test goes on.
class PausingDevice final : public BlockDevice {
 public:
  explicit PausingDevice(MemoryBlockDevice& base) : base_(base) {}
  std::string name() const override { return "pausing"; }
  std::uint64_t size_blocks() const override { return base_.size_blocks(); }
  Status read(Address first, std::span<std::byte> out) override { return base_.read(first, out); }
  Status write(Address first, std::span<const PageRef> pages) override { return base_.write(first, pages); }
  Status flush() override {
    MutexLock lock(mutex_);
    if (std::exchange(armed_, false)) {
      paused_ = true;
      changed_.notify_all();
      while (paused_) changed_.wait(mutex_);
    }
    return base_.flush();
  }
  void pause_next_flush() {
    MutexLock lock(mutex_);
    armed_ = true;
  }
  void wait_until_paused() {
    MutexLock lock(mutex_);
    while (!paused_) changed_.wait(mutex_);
  }
  void go_on() {
    MutexLock lock(mutex_);
    paused_ = false;
    changed_.notify_all();
  }

 private:
  MemoryBlockDevice& base_;
  Mutex mutex_;
  Condition changed_;
  bool armed_ TARNFS_GUARDED_BY(mutex_) = false;
  bool paused_ TARNFS_GUARDED_BY(mutex_) = false;
};

// Pages that all differ.
std::string text_of(std::size_t pages, char mark = 'a') {
  std::string text;
  text.reserve(pages * kBlockSize);
  for (std::size_t i = 0; i < pages; ++i) {
    std::string page = mark + std::to_string(i) + ":";
    page.resize(kBlockSize, static_cast<char>(mark + i % 20));
    text += page;
  }
  return text;
}

std::uint64_t used_blocks(TestVolume& test) {
  REQUIRE(test.volume->consistency_point().ok());
  return test.volume->newest_root().used_blocks;
}

InodeNumber make_file(TestVolume& test, std::string_view name, const std::string& text) {
  const InodeNumber file = test.make(kRootDirectory, name);
  REQUIRE(test.write(file, 0, text).ok());
  return file;
}

void copy_whole(TestVolume& test, InodeNumber from, InodeNumber to) {
  const std::uint64_t size_bytes = test.volume->attributes(from)->size_bytes;
  const auto copied = test.volume->copy_range(from, 0, to, 0, size_bytes);
  REQUIRE(copied.ok());
  REQUIRE(*copied == size_bytes);
}

void cut(TestVolume& test, InodeNumber file, std::uint64_t size_bytes) {
  AttributeChanges changes;
  changes.size_bytes = size_bytes;
  REQUIRE(test.volume->change_attributes(file, changes).ok());
}

void remove(TestVolume& test, std::string_view name, InodeNumber file) {
  REQUIRE(test.volume->unlink(kRootDirectory, name).ok());
  test.volume->forget(file, 1);
}

// A volume on a device that can stop in the middle of a consistency point.
class PausedVolume {
 public:
  PausedVolume() {
    REQUIRE(test.volume->close().ok());
    test.volume.reset();
    device = std::make_unique<PausingDevice>(*test.device);
    test.volume = Volume::open(*device, test.options).value();
  }
  // Runs `act` while a consistency point of all before it is being written, and ends that one.
  template <class Act>
  void during_consistency_point(Act&& act) {
    device->pause_next_flush();
    std::thread taker([&] { CHECK(test.volume->consistency_point().ok()); });
    device->wait_until_paused();
    act();
    device->go_on();
    taker.join();
  }
  void finish() {
    REQUIRE(test.volume->close().ok());
    CHECK(test.problems() == "");
    test.volume.reset();
    device.reset();
    test.open();
  }

  TestVolume test;
  std::unique_ptr<PausingDevice> device;
};

}  // namespace

TEST_CASE("a copy shares all blocks with its source, and either can change and go") {
  TestVolume test;
  const std::string text = text_of(1000) + "the end";
  const InodeNumber source = make_file(test, "source", text);
  const InodeNumber copy = test.make(kRootDirectory, "copy");
  const std::uint64_t before = used_blocks(test);
  copy_whole(test, source, copy);
  CHECK(test.read(copy, 0, text.size() + 1) == text);
  // Eight nodes of level 1, one above them; the share map's page.
  const std::uint64_t after = used_blocks(test);
  CHECK(after - before == 8 + 1 + 1);
  CHECK(test.problems() == "");
  CHECK(test.read(copy, 0, text.size() + 1) == text);
  test.reopen();
  CHECK(test.read(copy, 0, text.size() + 1) == text);

  SUBCASE("the source changes") {
    REQUIRE(test.write(source, 10 * kBlockSize, std::string(5 * kBlockSize, 'n')).ok());
    CHECK(used_blocks(test) == after + 5);
    CHECK(test.read(copy, 0, text.size() + 1) == text);
    remove(test, "source", source);
  }
  SUBCASE("the copy changes") {
    REQUIRE(test.write(copy, 10, std::string(5 * kBlockSize, 'n')).ok());
    CHECK(used_blocks(test) == after + 6);
    CHECK(test.read(source, 0, text.size() + 1) == text);
    remove(test, "source", source);
    CHECK(test.read(copy, 0, 10) == text.substr(0, 10));
  }
  SUBCASE("the source goes first") {
    remove(test, "source", source);
    CHECK(used_blocks(test) == before);
    CHECK(test.read(copy, 0, text.size() + 1) == text);
  }
  CHECK(test.problems() == "");
  cut(test, copy, 100 * kBlockSize);
  CHECK(used_blocks(test) <= before - 900);
  CHECK(test.problems() == "");
  remove(test, "copy", copy);
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.volume->newest_root().used_blocks < before - 1000);
  test.reopen();
  CHECK(test.problems() == "");
}

TEST_CASE("any range, aligned or not, copies what write(2) would have") {
  std::mt19937_64 random(testing::printed_seed());
  TestVolume test;
  std::vector<InodeNumber> files;
  std::vector<std::string> model;
  for (int i = 0; i < 4; ++i) {
    model.push_back(text_of(20 + 5 * static_cast<std::size_t>(i), static_cast<char>('a' + i)) + "tail");
    files.push_back(make_file(test, std::to_string(i), model.back()));
  }
  for (unsigned step = 0; step < 1500 / kOneRoundOf; ++step) {
    const std::size_t from = random() % files.size();
    const std::size_t to = random() % files.size();
    const std::uint64_t odd = random() % 3 == 0 ? random() % kBlockSize : 0;
    const std::uint64_t from_offset = random() % 60 * kBlockSize + odd;
    const std::uint64_t to_offset = random() % 60 * kBlockSize + (random() % 8 == 0 ? random() % kBlockSize : odd);
    const std::uint64_t length = 1 + random() % (random() % 2 == 0 ? 3 : 40 * kBlockSize);
    const std::uint64_t left = model[from].size() - std::min<std::uint64_t>(model[from].size(), from_offset);
    const std::uint64_t count = std::min(length, left);
    const auto copied = test.volume->copy_range(files[from], from_offset, files[to], to_offset, length);
    if (from == to && count > 0 && from_offset < to_offset + count && to_offset < from_offset + count) {
      REQUIRE(copied.error().code() == ErrorCode::kInvalid);
    } else {
      REQUIRE(copied.ok());
      REQUIRE(*copied == count);
      const std::string part = model[from].substr(std::min<std::size_t>(model[from].size(), from_offset), count);
      if (count > 0) model[to].resize(std::max<std::size_t>(model[to].size(), to_offset + count));
      model[to].replace(std::min<std::size_t>(model[to].size(), to_offset), count, part);
    }
    if (random() % 3 == 0) {
      const std::uint64_t offset = random() % 200000;
      const std::string text(1 + random() % 20000, static_cast<char>('A' + random() % 26));
      REQUIRE(test.write(files[to], offset, text).ok());
      model[to].resize(std::max<std::size_t>(model[to].size(), offset + text.size()));
      model[to].replace(offset, text.size(), text);
    }
    if (random() % 5 == 0) {
      FallocateOptions punching;
      punching.keep_size = punching.punch_hole = true;
      const std::uint64_t offset = random() % 200000;
      REQUIRE(test.volume->fallocate(files[from], offset, 30000, punching).ok());
      for (std::size_t at = offset; at < std::min<std::size_t>(model[from].size(), offset + 30000); ++at) {
        model[from][at] = '\0';
      }
    }
    if (random() % 6 == 0) {
      model[to].resize(random() % 250000);
      cut(test, files[to], model[to].size());
    }
    if (random() % 4 == 0) REQUIRE(test.volume->consistency_point().ok());
    if (random() % 40 == 0) test.reopen();
    const std::size_t checked = random() % files.size();
    REQUIRE(test.read(files[checked], 0, model[checked].size() + 10) == model[checked]);
    if (step % 100 == 0) {
      REQUIRE(test.volume->consistency_point().ok());
      REQUIRE(test.problems() == "");
    }
  }
  for (std::size_t i = 0; i < files.size(); ++i) remove(test, std::to_string(i), files[i]);
  test.reopen();
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.problems() == "");
}

TEST_CASE("what a copy says of impossible ranges and files") {
  TestVolume test;
  const InodeNumber file = make_file(test, "file", text_of(4));
  const InodeNumber other = test.make(kRootDirectory, "other");
  Volume& volume = *test.volume;
  CHECK(volume.copy_range(file, 0, other, 0, 0).value() == 0);
  CHECK(volume.copy_range(file, 4 * kBlockSize, other, 0, 100).value() == 0);
  CHECK(volume.copy_range(file, 0, file, kBlockSize, 2 * kBlockSize).error().code() == ErrorCode::kInvalid);
  CHECK(volume.copy_range(file, 0, file, 4 * kBlockSize, 4 * kBlockSize).value() == 4 * kBlockSize);
  CHECK(volume.copy_range(file, 0, other, kFileSizeMaxBytes, 100).error().code() == ErrorCode::kFileTooBig);
  CHECK(volume.copy_range(kRootDirectory, 0, other, 0, 100).error().code() == ErrorCode::kIsDirectory);
  CHECK(volume.copy_range(file, 0, kRootDirectory, 0, 100).error().code() == ErrorCode::kIsDirectory);
  CHECK(test.volume->attributes(other)->size_bytes == 0);
  AttributeChanges flags;
  flags.flags = FS_IMMUTABLE_FL;
  REQUIRE(volume.change_attributes(other, flags).ok());
  CHECK(volume.copy_range(file, 0, other, 0, 100).error().code() == ErrorCode::kNotPermitted);
  CHECK(volume.copy_range(file, 0, other, 0, kBlockSize).error().code() == ErrorCode::kNotPermitted);
  flags.flags = FS_APPEND_FL;
  REQUIRE(volume.change_attributes(file, flags).ok());
  CHECK(volume.copy_range(file, kBlockSize, file, 0, kBlockSize).error().code() == ErrorCode::kNotPermitted);
  CHECK(volume.copy_range(file, 0, file, 8 * kBlockSize, kBlockSize).value() == kBlockSize);
  CHECK(test.read(file, 4 * kBlockSize, 4 * kBlockSize) == text_of(4));
}

TEST_CASE("holes stay holes, and cut what the target had") {
  TestVolume test;
  const InodeNumber source = test.make(kRootDirectory, "source");
  REQUIRE(test.write(source, 300 * kBlockSize, text_of(1)).ok());
  REQUIRE(test.write(source, 700 * kBlockSize, "x").ok());
  const InodeNumber copy = make_file(test, "copy", text_of(900, 'c'));
  const InodeNumber fresh = test.make(kRootDirectory, "fresh");
  REQUIRE(test.volume->consistency_point().ok());
  copy_whole(test, source, copy);
  copy_whole(test, source, fresh);
  const std::string expected = test.read(source, 0, 701 * kBlockSize);
  CHECK(test.read(fresh, 0, 701 * kBlockSize) == expected);
  CHECK(test.read(copy, 0, 700 * kBlockSize + 1) == expected);
  CHECK(test.read(copy, 701 * kBlockSize, 199 * kBlockSize) == text_of(900, 'c').substr(701 * kBlockSize));
  CHECK(test.read(copy, 700 * kBlockSize + 1, 50) == text_of(900, 'c').substr(700 * kBlockSize + 1, 50));
  CHECK(*test.volume->seek(fresh, 0, SeekKind::kData) == 300 * kBlockSize);
  CHECK(*test.volume->seek(fresh, 300 * kBlockSize, SeekKind::kHole) == 301 * kBlockSize);
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(*test.volume->seek(fresh, 301 * kBlockSize, SeekKind::kData) == 700 * kBlockSize);
  CHECK(test.volume->attributes(fresh)->block_count == test.volume->attributes(source)->block_count);
  CHECK(test.problems() == "");
}

TEST_CASE("what has no block yet is copied when it is little, and gets one first when it is much") {
  TestVolume test;
  const std::string little = text_of(100);
  const InodeNumber small = make_file(test, "small", little);
  const InodeNumber small_copy = test.make(kRootDirectory, "small copy");
  copy_whole(test, small, small_copy);
  CHECK(test.volume->status().cp_count == 0);
  REQUIRE(test.write(small, 0, "changed").ok());
  CHECK(test.read(small_copy, 0, little.size()) == little);
  const std::string much = text_of(3000);
  const InodeNumber large = make_file(test, "large", much);
  const InodeNumber large_copy = test.make(kRootDirectory, "large copy");
  const std::uint64_t before = used_blocks(test);
  REQUIRE(test.write(large, 0, much).ok());
  copy_whole(test, large, large_copy);
  CHECK(used_blocks(test) - before < 50);
  CHECK(test.read(large_copy, 0, much.size()) == much);
  CHECK(test.problems() == "");
}

TEST_CASE("the source is changed, cut, deleted or copied on while a consistency point of before runs") {
  PausedVolume paused;
  TestVolume& test = paused.test;
  const std::string text = text_of(300);
  std::vector<InodeNumber> sources;
  sources.reserve(4);
  for (int i = 0; i < 4; ++i) sources.push_back(make_file(test, "s" + std::to_string(i), text));
  REQUIRE(test.volume->consistency_point().ok());
  std::vector<InodeNumber> copies;
  copies.reserve(4);
  for (int i = 0; i < 4; ++i) copies.push_back(test.make(kRootDirectory, "c" + std::to_string(i)));
  const InodeNumber second = test.make(kRootDirectory, "second");
  const InodeNumber third = test.make(kRootDirectory, "third");
  // Shared in generation g - 1, in the sources' trees of before.
  for (std::size_t i = 0; i < 2; ++i) copy_whole(test, sources[i], copies[i]);
  REQUIRE(test.write(sources[3], 0, "dirty in the running consistency point").ok());
  paused.during_consistency_point([&] {
    for (std::size_t i = 2; i < 4; ++i) copy_whole(test, sources[i], copies[i]);
    copy_whole(test, copies[0], second);  // frozen shares
    copy_whole(test, second, third);      // open shares
    REQUIRE(test.write(sources[0], 0, text_of(300, 'n')).ok());
    cut(test, sources[1], 0);
    remove(test, "s2", sources[2]);
    remove(test, "c0", copies[0]);
    cut(test, copies[1], 10 * kBlockSize);
    REQUIRE(test.write(third, 5 * kBlockSize, "own").ok());
  });
  const auto check = [&] {
    CHECK(test.read(second, 0, text.size() + 1) == text);
    CHECK(test.read(third, 0, 5 * kBlockSize) == text.substr(0, 5 * kBlockSize));
    CHECK(test.read(third, 6 * kBlockSize, text.size()) == text.substr(6 * kBlockSize));
    CHECK(test.read(copies[1], 0, text.size()) == text.substr(0, 10 * kBlockSize));
    CHECK(test.read(copies[2], 0, text.size() + 1) == text);
    CHECK(test.read(copies[3], 38, text.size()) == text.substr(38));
    CHECK(test.read(sources[0], 0, text.size() + 1) == text_of(300, 'n'));
  };
  check();
  CHECK(test.problems() == "");
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.problems() == "");
  // What was freed is used again.
  for (int i = 0; i < 30; ++i) {
    const InodeNumber filler = make_file(test, "filler" + std::to_string(i), text_of(400, 'f'));
    REQUIRE(test.volume->consistency_point().ok());
    remove(test, "filler" + std::to_string(i), filler);
    REQUIRE(test.volume->consistency_point().ok());
  }
  check();
  paused.finish();
  check();
}

TEST_CASE("the copy is cut, overwritten, replaced or deleted in the generation of its own") {
  TestVolume test;
  const std::string text = text_of(200);
  const InodeNumber source = make_file(test, "source", text);
  const InodeNumber other = make_file(test, "other", text_of(200, 'o'));
  const std::uint64_t before = used_blocks(test);
  const InodeNumber copy = test.make(kRootDirectory, "copy");
  copy_whole(test, source, copy);
  SUBCASE("cut to nothing") {
    cut(test, copy, 0);
    CHECK(used_blocks(test) == before);
  }
  SUBCASE("deleted") {
    remove(test, "copy", copy);
    CHECK(used_blocks(test) == before);
  }
  SUBCASE("overwritten") {
    REQUIRE(test.write(copy, 0, text_of(200, 'n')).ok());
    CHECK(test.read(copy, 0, text.size()) == text_of(200, 'n'));
    CHECK(used_blocks(test) == before + 200 + 2);
  }
  SUBCASE("cut and grown again") {
    cut(test, copy, 5 * kBlockSize + 100);
    cut(test, copy, 20 * kBlockSize);
    std::string expected = text.substr(0, 5 * kBlockSize + 100);
    expected.resize(20 * kBlockSize);
    CHECK(test.read(copy, 0, text.size()) == expected);
  }
  SUBCASE("copied over, from another and from the same file, in this generation and the next") {
    copy_whole(test, other, copy);
    CHECK(test.read(copy, 0, text.size()) == text_of(200, 'o'));
    copy_whole(test, source, copy);
    copy_whole(test, source, copy);
    CHECK(used_blocks(test) == before + 2 + 1);
    copy_whole(test, source, copy);
    CHECK(used_blocks(test) == before + 2 + 1);
    CHECK(test.problems() == "");
    copy_whole(test, other, copy);
    CHECK(used_blocks(test) == before + 2 + 1);
    CHECK(test.read(copy, 0, text.size()) == text_of(200, 'o'));
    remove(test, "other", other);
    CHECK(test.read(copy, 0, text.size()) == text_of(200, 'o'));
  }
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.problems() == "");
  CHECK(test.read(source, 0, text.size() + 1) == text);
  test.reopen();
  CHECK(test.problems() == "");
}

TEST_CASE("a file can be copied within itself") {
  TestVolume test;
  const std::string text = text_of(50);
  const InodeNumber file = make_file(test, "file", text);
  const std::uint64_t before = used_blocks(test);
  REQUIRE(test.volume->copy_range(file, 0, file, text.size(), text.size()).value() == text.size());
  REQUIRE(test.volume->copy_range(file, 0, file, 2 * text.size(), 2 * text.size()).value() == 2 * text.size());
  CHECK(test.read(file, 0, 4 * text.size() + 1) == text + text + text + text);
  CHECK(used_blocks(test) - before <= 4);
  CHECK(test.problems() == "");
  REQUIRE(test.write(file, 0, text_of(50, 'n')).ok());
  cut(test, file, 3 * text.size());
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.read(file, 0, 4 * text.size()) == text_of(50, 'n') + text + text);
  CHECK(test.problems() == "");
}

TEST_CASE("a block that has as many references as can be counted is copied") {
  TestVolume test(std::uint64_t{1} << 19);
  const InodeNumber file = make_file(test, "file", text_of(1));
  REQUIRE(test.volume->consistency_point().ok());
  std::uint64_t pages = 1;
  while (pages < std::uint64_t{1} << 18) {
    REQUIRE(test.volume->copy_range(file, 0, file, pages * kBlockSize, pages * kBlockSize).value() ==
            pages * kBlockSize);
    pages *= 2;
    if (pages % 3 == 1) REQUIRE(test.volume->consistency_point().ok());
  }
  REQUIRE(test.volume->consistency_point().ok());
  CHECK_FALSE(test.volume->status().stopped);
  CHECK(test.problems() == "");
  for (std::uint64_t page = 0; page < pages; page += 1013) {
    REQUIRE(test.read(file, page * kBlockSize, kBlockSize) == text_of(1));
  }
  const std::uint64_t used = test.volume->newest_root().used_blocks;
  CHECK(used < std::uint64_t{1} << 18);  // most are shared all the same
  remove(test, "file", file);
  for (int i = 0; i < 8; ++i) REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.problems() == "");
}

TEST_CASE("a large copy that is deleted goes in parts") {
  TestVolume test(std::uint64_t{1} << 19);
  const InodeNumber source = test.make(kRootDirectory, "source");
  const std::string part = text_of(2048);
  constexpr std::uint64_t kParts = 40;
  for (std::uint64_t i = 0; i < kParts; ++i) REQUIRE(test.write(source, i * part.size(), part).ok());
  const std::uint64_t before = used_blocks(test);
  const InodeNumber copy = test.make(kRootDirectory, "copy");
  copy_whole(test, source, copy);
  REQUIRE(test.volume->consistency_point().ok());
  remove(test, "copy", copy);
  for (int i = 0; i < 4; ++i) {
    REQUIRE(test.volume->consistency_point().ok());
    REQUIRE(test.problems() == "");
  }
  CHECK(test.volume->newest_root().used_blocks <= before + 1);
  for (std::uint64_t i = 0; i < kParts; ++i) REQUIRE(test.read(source, i * part.size(), part.size()) == part);
}

TEST_CASE("an fsync of a copy makes it durable, with a consistency point") {
  TestVolume test;
  const std::string text = text_of(30);
  const InodeNumber source = make_file(test, "source", text);
  const InodeNumber copy = make_file(test, "copy", "old");
  REQUIRE(test.volume->consistency_point().ok());
  bool data_only = false;
  SUBCASE("fsync") {}
  SUBCASE("fdatasync") {
    data_only = true;
  }
  const std::uint64_t points = test.volume->status().cp_count;
  copy_whole(test, source, copy);
  REQUIRE(test.volume->fsync(copy, data_only).ok());
  CHECK(test.volume->status().cp_count == points + 1);
  REQUIRE(test.write(copy, 100, "logged").ok());
  REQUIRE(test.volume->fsync(copy, data_only).ok());
  CHECK(test.volume->status().cp_count == points + 1);
  test.crash_and_reopen();
  std::string expected = text;
  expected.replace(100, 6, "logged");
  CHECK(test.read(copy, 0, text.size() + 1) == expected);
  CHECK(test.read(source, 0, text.size() + 1) == text);
  CHECK(test.problems() == "");
}

TEST_CASE("an fsync needs no consistency point once nothing of the copy is left") {
  TestVolume test;
  const std::string text = text_of(30);
  const InodeNumber source = make_file(test, "source", text);
  const InodeNumber copy = make_file(test, "copy", text_of(30, 'o'));
  REQUIRE(test.volume->consistency_point().ok());
  const std::uint64_t points = test.volume->status().cp_count;
  copy_whole(test, source, copy);
  REQUIRE(test.write(copy, 0, text_of(20, 'n')).ok());
  FallocateOptions punching;
  punching.keep_size = punching.punch_hole = true;
  REQUIRE(test.volume->fallocate(copy, 20 * kBlockSize, 10 * kBlockSize, punching).ok());
  REQUIRE(test.volume->fsync(copy, false).ok());
  CHECK(test.volume->status().cp_count == points);
  test.crash_and_reopen();
  CHECK(test.read(copy, 0, text.size() + 1) == text_of(20, 'n') + std::string(10 * kBlockSize, '\0'));
  CHECK(test.problems() == "");
}

TEST_CASE("a copy that was renamed over another file brings its content along") {
  TestVolume test;
  const std::string text = text_of(30);
  const InodeNumber source = make_file(test, "source", text);
  make_file(test, "config", "old");
  const InodeNumber bystander = test.make(kRootDirectory, "bystander");
  REQUIRE(test.volume->consistency_point().ok());
  const InodeNumber fresh = test.make(kRootDirectory, "config.new");
  copy_whole(test, source, fresh);
  REQUIRE(test.volume->rename(kRootDirectory, "config.new", kRootDirectory, "config", RenameMode::kReplace).ok());
  REQUIRE(test.write(bystander, 0, "x").ok());
  REQUIRE(test.volume->fsync(bystander, false).ok());
  test.crash_and_reopen();
  const auto found = test.volume->lookup(kRootDirectory, "config");
  REQUIRE(found.ok());
  CHECK(test.read(found->inode, 0, text.size() + 1) == text);
  CHECK(test.problems() == "");
}

TEST_CASE("a copy of what an fsync has logged is not lost with the source's blocks") {
  TestVolume test;
  test.options.placed_pages_min = 16;
  test.reopen();
  const std::string text = text_of(100);
  const InodeNumber source = make_file(test, "source", text);
  REQUIRE(test.volume->fsync(source, false).ok());  // its pages stand in blocks of their own now
  const InodeNumber copy = test.make(kRootDirectory, "copy");
  copy_whole(test, source, copy);
  REQUIRE(test.write(source, 0, text_of(100, 'n')).ok());
  REQUIRE(test.volume->fsync(copy, false).ok());
  test.crash_and_reopen();
  CHECK(test.read(copy, 0, text.size() + 1) == text);
  CHECK(test.problems() == "");
}

TEST_CASE("copies, changes and deletions go on until a volume is full, and all of it comes back") {
  TestVolume test(4096);
  const InodeNumber source = make_file(test, "source", text_of(600));
  const std::uint64_t before = used_blocks(test);
  std::vector<InodeNumber> copies;
  for (int i = 0; i < 1000; ++i) {
    const std::string name = "copy" + std::to_string(i);
    NewNode node;
    node.mode = S_IFREG | 0600;
    const auto made = test.volume->make_node(kRootDirectory, name, node);
    if (!made.ok()) break;
    copies.push_back(made->inode);
    if (!test.volume->copy_range(source, 0, made->inode, 0, 600 * kBlockSize).ok()) break;
    if (!test.write(made->inode, (static_cast<std::uint64_t>(i) % 600) * kBlockSize, "changed").ok()) break;
  }
  CHECK(copies.size() > 50);  // 600 pages each: all together ten times the volume
  REQUIRE_FALSE(test.volume->status().stopped);
  REQUIRE(test.volume->consistency_point().ok());
  CHECK(test.problems() == "");
  for (std::size_t i = 0; i < copies.size(); ++i) remove(test, "copy" + std::to_string(i), copies[i]);
  for (int i = 0; i < 3; ++i) REQUIRE(test.volume->consistency_point().ok());
  CHECK_FALSE(test.volume->status().stopped);
  CHECK(test.volume->newest_root().used_blocks <= before + 2);
  CHECK(test.read(source, 0, 600 * kBlockSize) == text_of(600));
  test.reopen();
  CHECK(test.problems() == "");
}

TEST_CASE("copies beside changes and consistency points of other threads") {
  TestVolume test;
  test.options.cp_interval_ms = 1;
  test.reopen();
  const std::string text = text_of(64);
  const InodeNumber source = make_file(test, "source", text);
  std::vector<InodeNumber> files;
  files.reserve(3);
  for (int i = 0; i < 3; ++i) files.push_back(make_file(test, "f" + std::to_string(i), text));
  std::vector<std::thread> threads;
  std::atomic<int> failures{0};
  for (std::size_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(t);
      const auto data = std::as_bytes(std::span(text));
      for (unsigned i = 0; i < 600 / kOneRoundOf; ++i) {
        const InodeNumber own = files[t];
        const InodeNumber other = random() % 2 == 0 ? source : files[random() % 3];
        const std::uint64_t first = random() % 60;
        const std::uint64_t length = (1 + random() % 4) * kBlockSize;
        bool ok = true;
        // Page i of every file is always page i of the text.
        if (random() % 3 != 0 && other != own) {
          ok = test.volume->copy_range(other, first * kBlockSize, own, first * kBlockSize, length).ok();
        } else {
          ok = test.volume->write(own, first * kBlockSize, data.subspan(first * kBlockSize, length), {}).ok();
        }
        if (random() % 20 == 0) ok = ok && test.volume->fsync(own, false).ok();
        failures += ok ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(failures == 0);
  for (const InodeNumber file : files) CHECK(test.read(file, 0, text.size() + 1) == text);
  test.reopen();
  for (const InodeNumber file : files) CHECK(test.read(file, 0, text.size() + 1) == text);
  CHECK(test.problems() == "");
}
