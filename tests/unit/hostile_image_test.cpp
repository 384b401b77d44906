// A volume whose blocks have right checksums and wrong content, as a bug or a forger leaves them: every operation ends,
// with an answer or an error, and nothing is asserted of what stands on the disk.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <array>
#include <atomic>
#include <random>
#include <tuple>

#include "common/log.h"
#include "fs/engine/volume.h"
#include "tests/support/check_volume_builder.h"
#include "tests/support/seed.h"
#include "tests/support/thread_sanitizer.h"
#include "tests/support/watchdog.h"

using namespace tarnfs;
using tarnfs::testing::CheckVolumeBuilder;
using tarnfs::testing::MemoryBlockDevice;
using tarnfs::testing::Watchdog;

namespace {

constexpr std::uint64_t kRounds = 300 / tarnfs::testing::kOneRoundOf;
constexpr int kOperationsEach = 300;

constexpr InodeNumber kFile{16};       // of the sample
constexpr InodeNumber kDirectory{18};  // of the sample

Result<std::unique_ptr<Volume>> open(MemoryBlockDevice& device, VolumeMode mode) {
  VolumeOptions options;
  options.mode = mode;
  options.cp_interval_ms = 0;
  return Volume::open(device, options);
}

// Numbers at which something ends or begins.
std::uint64_t number_at_a_limit(std::mt19937_64& random) {
  static const std::array<std::uint64_t, 26> numbers{0,
                                                     1,
                                                     2,
                                                     3,
                                                     7,
                                                     16,
                                                     18,
                                                     24,
                                                     25,
                                                     127,
                                                     128,
                                                     255,
                                                     4095,
                                                     4096,
                                                     4097,
                                                     65535,
                                                     0x7fffffff,
                                                     0x80000000,
                                                     1ULL << 32,
                                                     1ULL << 48,
                                                     1ULL << 51,
                                                     1ULL << 62,
                                                     (1ULL << 62) + 1,
                                                     1ULL << 63,
                                                     ~0ULL,
                                                     ~0ULL - 4095};
  return numbers[random() % numbers.size()];
}

void damage(std::span<std::byte> bytes, std::mt19937_64& random) {
  for (std::uint64_t i = 0; i <= random() % 3; ++i) {
    const std::size_t limit = random() % 2 == 0 ? std::size_t{256} : bytes.size();
    if (random() % 2 == 0) {
      bytes[random() % limit] ^= std::byte{1} << static_cast<int>(random() % 8);
      continue;
    }
    const std::size_t width = std::size_t{1} << random() % 4;
    const std::uint64_t number = number_at_a_limit(random);
    std::memcpy(bytes.data() + random() % (limit / width) * width, &number, width);
  }
}

// Cannot read one block of the inode file, for a while.
class FailingDevice final : public BlockDevice {
 public:
  FailingDevice(MemoryBlockDevice& base, InodeNumber first_inode) : base_(base), first_inode_(first_inode) {}
  std::string name() const override { return base_.name(); }
  std::uint64_t size_blocks() const override { return base_.size_blocks(); }
  Status read(Address first, std::span<std::byte> out) override {
    TARNFS_TRY(base_.read(first, out));
    InodeRecord record;
    std::memcpy(static_cast<void*>(&record), out.data(), sizeof record);
    const bool is_that_block = record.number == first_inode_.value && record.mode != 0;
    return fails && is_that_block ? Status(Error(ErrorCode::kIo, "injected failure")) : Status();
  }
  Status write(Address first, std::span<const PageRef> pages) override { return base_.write(first, pages); }
  Status flush() override { return base_.flush(); }

  std::atomic<bool> fails{true};

 private:
  MemoryBlockDevice& base_;
  const InodeNumber first_inode_;
};

// Operations on whatever there is.
class Intruder {
 public:
  Intruder(Volume& volume, std::mt19937_64& random) : volume_(volume), random_(random) {}

  void run(int count) {
    for (int i = 0; i < count; ++i) {
      switch (random_() % 3) {
        case 0:
          use_names();
          break;
        case 1:
          use_content();
          break;
        default:
          use_attributes();
      }
    }
  }

 private:
  InodeNumber inode() { return InodeNumber{random_() % 4 == 0 ? 100 + random_() % 40 : random_() % 34}; }
  InodeNumber directory() {
    static const std::array<std::uint64_t, 4> directories{1, 18, 19, 32};
    return random_() % 8 == 0 ? inode() : InodeNumber{directories[random_() % directories.size()]};
  }
  std::string_view name() {
    static const std::array<std::string_view, 13> names{"file",     "sparse", "directory", "below", "second name",
                                                        "short",    "long",   "fifo",      "many",  "entry1",
                                                        "entry200", "new",    "new2"};
    return names[random_() % names.size()];
  }
  std::uint64_t offset() { return random_() % 3 == 0 ? number_at_a_limit(random_) : random_() % 40000; }
  std::span<const std::byte> data() { return std::span(buffer_).first(1 + random_() % buffer_.size()); }

  void use_names() {
    switch (random_() % 9) {
      case 0:
        if (const auto found = volume_.lookup(directory(), random_() % 8 == 0 ? ".." : name()); found.ok()) {
          if (random_() % 2 == 0) volume_.forget(found->inode, 1);
        }
        break;
      case 1: {
        int seen = 0;
        std::ignore = volume_.list(directory(), offset(), [&](const DirectoryEntry&) { return ++seen < 2000; });
        break;
      }
      case 2:
        std::ignore = volume_.unlink(directory(), name());
        break;
      case 3:
        std::ignore = volume_.remove_directory(directory(), name());
        break;
      case 4:
        std::ignore = volume_.link(inode(), directory(), name());
        break;
      case 5: {
        NewNode node;
        node.mode = random_() % 2 == 0 ? S_IFREG | 0644 : S_IFDIR | 0755;
        std::ignore = volume_.make_node(directory(), name(), node);
        break;
      }
      case 6:
        std::ignore = volume_.symlink_target(inode());
        break;
      default:
        std::ignore = volume_.rename(directory(), name(), directory(), name(),
                                     random_() % 3 == 0 ? RenameMode::kExchange : RenameMode::kReplace);
    }
  }

  void use_content() {
    switch (random_() % 8) {
      case 0:
        std::ignore = volume_.read(inode(), offset(), buffer_);
        break;
      case 1: {
        AttributeChanges changes;
        changes.size_bytes = offset();
        std::ignore = volume_.change_attributes(inode(), changes);
        break;
      }
      case 2: {
        const bool punches = random_() % 2 == 0;
        const FallocateOptions options{.keep_size = true, .punch_hole = punches, .zero_range = !punches};
        std::ignore = volume_.fallocate(inode(), offset(), 1 + random_() % 100000, options);
        break;
      }
      case 3:
        std::ignore = volume_.copy_range(inode(), random_() % 4 * kBlockSize, inode(), random_() % 4 * kBlockSize,
                                         1 + random_() % 20000);
        break;
      case 4:
        std::ignore = volume_.seek(inode(), random_() % 100000, SeekKind::kData);
        break;
      case 5:
        std::ignore = volume_.consistency_point();
        break;
      default:
        std::ignore = volume_.write(inode(), offset(), data(), {});
    }
  }

  void use_attributes() {
    switch (random_() % 6) {
      case 0:
        std::ignore = volume_.attributes(inode());
        break;
      case 1: {
        AttributeChanges changes;
        changes.mode = 0640;
        std::ignore = volume_.change_attributes(inode(), changes);
        break;
      }
      case 2:
        std::ignore = volume_.xattr(inode(), "user.x");
        break;
      case 3:
        std::ignore = volume_.xattr_names(inode());
        break;
      case 4:
        std::ignore = volume_.remove_xattr(inode(), "user.x");
        break;
      default:
        std::ignore = volume_.set_xattr(inode(), random_() % 2 == 0 ? "user.x" : "system.posix_acl_access", data(),
                                        XattrMode::kCreateOrReplace);
    }
  }

  Volume& volume_;
  std::mt19937_64& random_;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(20000, std::byte{'q'});
};

}  // namespace

// Each of these held the lock of the file while it took the lock of the attribute inode.
TEST_CASE("a file that is said to be its own attribute inode hangs nobody") {
  open_log(LogTarget::kNowhere, "hostile_image_test");
  Watchdog watchdog(std::chrono::seconds(60));
  CheckVolumeBuilder sample;
  sample.add_sample();
  for (const std::uint64_t number : {kFile.value, kDirectory.value, std::uint64_t{25}}) {
    sample.inodes.at(number).record.xattr_inode = number;
    sample.inodes.at(number).record.flags |= number == kDirectory.value ? kInodeFlagAttributes : 0;
  }
  MemoryBlockDevice& device = sample.build();
  auto volume = open(device, VolumeMode::kReadWrite).value();
  const std::array<std::byte, 10> value{};
  for (const InodeNumber number : {kFile, kDirectory}) {
    watchdog.begin("attributes of inode " + std::to_string(number.value));
    CHECK(volume->xattr(number, "user.x").error().code() == ErrorCode::kCorrupt);
    const Status set = volume->set_xattr(number, "user.x", value, XattrMode::kCreateOrReplace);
    CHECK(set.error().code() == ErrorCode::kCorrupt);
    AttributeChanges changes;
    changes.mode = 0600;
    CHECK(volume->change_attributes(number, changes).error().code() == ErrorCode::kCorrupt);
  }
  watchdog.begin("the orphan");
  CHECK(volume->consistency_point().ok());
  CHECK(volume->attributes(InodeNumber{25}).ok());
}

// Removing the attributes of one file emptied another.
TEST_CASE("an attribute inode that is an ordinary file is not touched") {
  open_log(LogTarget::kNowhere, "hostile_image_test");
  CheckVolumeBuilder sample;
  sample.add_sample();
  sample.inodes.at(25).record.xattr_inode = kFile.value;  // an orphan, deleted at once
  auto volume = open(sample.build(), VolumeMode::kReadWrite).value();
  REQUIRE(volume->consistency_point().ok());
  const auto file = volume->attributes(kFile);
  REQUIRE(file.ok());
  CHECK(file->size_bytes == 2 * kBlockSize + 5);
}

// It was locked in the order of numbers as a node, and after its owner as attributes: a deadlock for two threads.
TEST_CASE("an attribute inode that a directory names cannot be used as a node") {
  open_log(LogTarget::kNowhere, "hostile_image_test");
  CheckVolumeBuilder sample;
  sample.add_sample();
  sample.inodes.at(18).entries.push_back({"attributes", 24, S_IFREG});
  auto volume = open(sample.build(), VolumeMode::kReadWrite).value();
  const InodeNumber attribute_inode{24};
  CHECK(volume->lookup(kDirectory, "attributes").error().code() == ErrorCode::kCorrupt);
  CHECK(volume->unlink(kDirectory, "attributes").error().code() == ErrorCode::kCorrupt);
  CHECK(volume->rename(kDirectory, "attributes", kRootDirectory, "moved", RenameMode::kReplace).error().code() ==
        ErrorCode::kCorrupt);
  CHECK(volume->rename(kDirectory, "short", kDirectory, "attributes", RenameMode::kReplace).error().code() ==
        ErrorCode::kCorrupt);
  CHECK(volume->link(attribute_inode, kRootDirectory, "linked").error().code() == ErrorCode::kCorrupt);
  CHECK(volume->attributes(attribute_inode).error().code() == ErrorCode::kCorrupt);
  CHECK(volume->attributes_with_lookup(attribute_inode).error().code() == ErrorCode::kStale);
}

// What could not be read when the volume was opened was cut down later without a look at its links.
TEST_CASE("a file that the orphan file lists by mistake stays as it is") {
  open_log(LogTarget::kNowhere, "hostile_image_test");
  CheckVolumeBuilder sample;
  sample.add_sample();
  const std::array<std::uint64_t, 2> listed{25, kFile.value};
  sample.inodes.at(2).pages[0] = PageRef::copy_of(std::as_bytes(std::span(listed)));
  sample.inodes.at(2).record.size_bytes = sizeof listed;
  FailingDevice device(sample.build(), kFile);
  VolumeOptions options;
  options.cp_interval_ms = 0;
  auto volume = Volume::open(device, options).value();
  REQUIRE(volume->consistency_point().ok());  // the orphans have been looked at
  device.fails = false;
  REQUIRE(volume->consistency_point().ok());
  REQUIRE(volume->consistency_point().ok());
  const auto file = volume->attributes(kFile);
  REQUIRE(file.ok());
  CHECK(file->size_bytes == 2 * kBlockSize + 5);
  CHECK(volume->attributes(InodeNumber{25}).error().code() == ErrorCode::kStale);  // the other one is gone
}

TEST_CASE("inode 0 is in use, an inode's layout or size cannot be: told as damage") {
  open_log(LogTarget::kNowhere, "hostile_image_test");
  CheckVolumeBuilder sample;
  sample.add_sample();
  sample.add(0, S_IFDIR | 0755, 2);
  sample.inodes.at(18).record.parent = 0;
  sample.inodes.at(16).record.layout = kInodeInlineTarget;
  sample.on_record = [](std::uint64_t number, InodeRecord& record) {
    if (number == 17) record.size_bytes = ~std::uint64_t{0};
  };
  auto volume = open(sample.build(), VolumeMode::kReadWrite).value();
  CHECK(volume->lookup(kDirectory, "..").error().code() == ErrorCode::kCorrupt);
  CHECK(volume->lookup(kRootDirectory, "file").error().code() == ErrorCode::kCorrupt);
  CHECK(volume->lookup(kRootDirectory, "sparse").error().code() == ErrorCode::kCorrupt);
  CHECK(volume->lookup(kDirectory, "short").ok());
}

TEST_CASE("random bytes are wrong under right checksums: every operation ends") {
  open_log(LogTarget::kNowhere, "hostile_image_test");
  const std::uint64_t seed = testing::printed_seed();
  Watchdog watchdog(std::chrono::seconds(120));
  for (std::uint64_t round = 0; round < kRounds; ++round) {
    watchdog.begin("round " + std::to_string(round));
    std::mt19937_64 random(seed + round);
    CheckVolumeBuilder sample;
    sample.add_sample();
    const std::uint64_t one_in = 3 + random() % 60;
    if (random() % 3 != 0) {
      sample.on_block = [&](PageRef& page) {
        if (random() % one_in == 0) damage(page.mutable_bytes(), random);
      };
    }
    sample.on_record = [&](std::uint64_t number, InodeRecord& record) {
      if (number < 40 && random() % 8 == 0) damage(std::as_writable_bytes(std::span(&record, 1)), random);
    };
    MemoryBlockDevice& device = sample.build();
    for (const VolumeMode mode : {VolumeMode::kReadOnly, VolumeMode::kReadWrite}) {
      const auto volume = open(device, mode);
      if (!volume.ok()) continue;
      Intruder(**volume, random).run(kOperationsEach);
      std::ignore = (*volume)->close();
    }
  }
}
