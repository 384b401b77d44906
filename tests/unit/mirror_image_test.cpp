// The mirror's image: what a primary sends is published whole or not at all, and nothing wrong is let in.
#include <doctest/doctest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <thread>

#include "tests/support/image_driver.h"
#include "tests/support/key_directories.h"

using namespace tarnfs;
using namespace tarnfs::testing;
using File = RecordingDisk::File;

namespace {

// A mirror of `primary` on a disk of its own.
struct Mirror {
  explicit Mirror(FakePrimary& primary_in) : primary(primary_in) { start(); }

  void start() {
    driver.reset();
    target.reset();
    image.reset();
    auto opened = MirrorImage::open(storage);
    REQUIRE(opened.ok());
    image = *std::move(opened);
    target = std::make_unique<FakeTarget>(primary.book(), image->device());
    REQUIRE(image->attach(*target).ok());
    driver = std::make_unique<ImageDriver>(*image, primary);
  }
  void copy() {
    REQUIRE(driver->begin().ok());
    REQUIRE(driver->catch_up().ok());
  }

  FakePrimary& primary;
  RecordingDisk disk;
  MemoryMirrorStorage storage{disk};
  std::unique_ptr<MirrorImage> image;
  std::unique_ptr<FakeTarget> target;
  std::unique_ptr<ImageDriver> driver;
};

// What a loss of power leaves right after the last commit record became durable.
RecordingDisk::Files files_when_decided(const std::vector<RecordingDisk::Operation>& log) {
  std::size_t decided = 0;
  for (std::size_t i = 0; i < log.size(); ++i) {
    const bool is_first_block = log[i].kind == RecordingDisk::Kind::kWrite && log[i].first.value == 0;
    if (log[i].file == File::kStaging && is_first_block && !is_all_zero(log[i].pages[0].bytes())) decided = i + 2;
  }
  REQUIRE(decided != 0);
  std::mt19937_64 random(1);
  return RecordingDisk::after_power_loss({}, log, decided, random);
}

void fill(FakePrimary& primary, std::uint64_t count, std::uint64_t seed) {
  for (std::uint64_t i = 0; i < count; ++i) primary.put(kFirstDataBlock + i, seed + i);
  primary.commit();
}

}  // namespace

TEST_CASE("the first copy makes the image, and a restart shows it again") {
  FakePrimary primary;
  fill(primary, 20, 100);
  Mirror mirror(primary);
  CHECK(mirror.image->device().size_blocks() == 0);
  const auto welcome = mirror.driver->begin();
  REQUIRE(welcome.ok());
  CHECK_FALSE(welcome->has_state);
  const auto published = mirror.driver->catch_up();
  REQUIRE(published.ok());
  CHECK(published->cp == Cp{2});
  CHECK(published->root_checksum == primary.newest_root().checksum);
  CHECK(mirror.target->check().ok());
  CHECK_FALSE(mirror.disk.exists(File::kStaging));
  mirror.start();
  REQUIRE(mirror.target->root());
  CHECK(mirror.target->root()->checksum == primary.newest_root().checksum);
  CHECK(mirror.target->check().ok());
}

TEST_CASE(
    "without a mirror's image there is nothing to read, and a connection that brings no root changes that little") {
  FakePrimary primary;
  Mirror mirror(primary);
  PageRef page = PageRef::uninitialised();
  CHECK(mirror.image->device().read(Address{0}, page.mutable_bytes()).error().code() == ErrorCode::kIo);
  REQUIRE(mirror.driver->begin().ok());
  mirror.start();
  CHECK_FALSE(mirror.target->root());
  CHECK(mirror.image->superblock());
  mirror.copy();
  CHECK(mirror.target->check().ok());
}

TEST_CASE("neighbouring blocks are written in one call") {
  FakePrimary primary;
  fill(primary, 20, 100);
  Mirror mirror(primary);
  REQUIRE(mirror.driver->begin().ok());
  const std::size_t before = mirror.disk.log().size();
  primary.put(300, 1);
  primary.put(302, 2);
  primary.put(301, 3);
  primary.put(500, 4);
  REQUIRE(mirror.driver->send_blocks(Cp{3}, primary.written()).ok());
  CHECK(mirror.disk.log().size() == before + 2);
}

TEST_CASE("a block for an address in use is staged, and the old content stays until the new state is decided") {
  FakePrimary primary;
  fill(primary, 10, 100);
  Mirror mirror(primary);
  mirror.copy();
  const Address reused{kFirstDataBlock + 3};
  const PageRef old = mirror.disk.content(File::kImage, reused);
  // The address was freed and used again while the mirror was away.
  primary.remove(reused.value);
  primary.commit();
  primary.put(reused.value, 999);
  primary.put(700, 998);
  primary.commit();
  mirror.start();
  REQUIRE(mirror.driver->begin().ok());
  const std::size_t before = mirror.disk.log().size();
  REQUIRE(mirror.driver->catch_up().ok());
  CHECK(mirror.target->check().ok());
  CHECK(mirror.target->root()->cp == 4);
  CHECK(std::memcmp(mirror.disk.content(File::kImage, reused).data(), make_page(999).data(), kBlockSize) == 0);
  CHECK_FALSE(mirror.disk.exists(File::kStaging));

  // The order on disk: the commit record is durable before the image changes at that address.
  const auto log = mirror.disk.log();
  std::optional<std::size_t> committed;
  std::optional<std::size_t> overwritten;
  for (std::size_t i = before; i < log.size(); ++i) {
    const auto& operation = log[i];
    const bool write = operation.kind == RecordingDisk::Kind::kWrite;
    if (write && operation.file == File::kStaging && operation.first.value == 0 &&
        !is_all_zero(operation.pages[0].bytes())) {
      REQUIRE(log[i - 1].kind == RecordingDisk::Kind::kFlush);
      REQUIRE(log[i + 1].kind == RecordingDisk::Kind::kFlush);
      committed = i + 1;
    }
    const bool covers =
        operation.first.value <= reused.value && reused.value < operation.first.value + operation.pages.size();
    if (write && operation.file == File::kImage && covers && !overwritten) overwritten = i;
  }
  REQUIRE(committed);
  REQUIRE(overwritten);
  CHECK(*committed < *overwritten);
}

TEST_CASE("a staging file that is left of an image that is gone decides nothing in a new one") {
  FakePrimary primary;
  fill(primary, 10, 100);
  Mirror mirror(primary);
  mirror.copy();
  primary.remove(kFirstDataBlock + 3);
  primary.commit();
  fill(primary, 10, 200);
  mirror.start();
  REQUIRE(mirror.driver->begin().ok());
  REQUIRE(mirror.driver->catch_up().ok());
  // The power goes when the commit record is durable; then somebody removes the image and nothing else.
  auto files = files_when_decided(mirror.disk.log());
  REQUIRE(files.contains(File::kStaging));
  files.erase(File::kImage);
  RecordingDisk disk(files);
  MemoryMirrorStorage storage(disk);
  {
    auto made = MirrorImage::open(storage);
    REQUIRE(made.ok());
    ImageDriver driver(**made, primary);
    REQUIRE(driver.begin().ok());  // and the connection breaks
  }
  const auto again = MirrorImage::open(storage);
  REQUIRE(again.ok());
  CHECK_FALSE((*again)->root());
  CHECK_FALSE(disk.exists(File::kStaging));
}

// Only the volume was compared: the staged blocks were copied into an image that lacked the others of their state.
TEST_CASE("a staging file is not finished in an image that it does not belong to") {
  FakePrimary primary;
  fill(primary, 10, 100);
  Mirror mirror(primary);
  mirror.copy();
  const auto first_copy = mirror.disk.files();  // of cp 2
  primary.put(600, 900);
  primary.commit();
  mirror.copy();
  const auto second_copy = mirror.disk.files();  // of cp 3, on which cp 4 is put; but without what is not staged of it
  fill(primary, 10, 200);
  primary.put(700, 901);
  primary.commit();
  const std::size_t before = mirror.disk.log().size();
  mirror.copy();
  REQUIRE(mirror.disk.log().size() > before);
  const auto decided = files_when_decided(mirror.disk.log());
  {
    RecordingDisk disk(decided);
    const OpenedMirror whole(disk, primary);
    CHECK(whole.cp() == primary.newest_root().cp);
    CHECK_FALSE(disk.exists(File::kStaging));
  }
  for (const auto& copy : {first_copy, second_copy}) {
    auto files = decided;
    files[File::kImage] = copy.at(File::kImage);
    RecordingDisk disk(files);
    MemoryMirrorStorage storage(disk);
    const auto opened = MirrorImage::open(storage);
    REQUIRE_FALSE(opened.ok());
    CHECK(opened.error().code() == ErrorCode::kRefused);
    CHECK(opened.error().message().find("was not written for this image") != std::string::npos);
    // Nothing was changed, and the one that it belongs to is still finished.
    for (const auto& operation : disk.log()) CHECK(operation.kind == RecordingDisk::Kind::kFlush);
    CHECK(disk.exists(File::kStaging));
  }
}

// Its root is older than the image's newest one, so it was taken for done, though the image needed another one.
TEST_CASE("an older staging file beside an image that lost its own decides nothing") {
  FakePrimary primary;
  fill(primary, 10, 100);
  Mirror mirror(primary);
  mirror.copy();
  fill(primary, 10, 200);
  mirror.copy();
  const auto older = files_when_decided(mirror.disk.log()).at(File::kStaging);
  fill(primary, 10, 300);
  const std::size_t before = mirror.disk.log().size();
  mirror.copy();
  const auto log = mirror.disk.log();
  std::mt19937_64 random(2);
  int refused = 0;
  for (std::size_t count = before; count <= log.size(); ++count) {
    CAPTURE(count);
    auto files = RecordingDisk::after_power_loss({}, log, count, random);
    files[File::kStaging] = older;
    RecordingDisk disk(files);
    {
      MemoryMirrorStorage storage(disk);
      const auto opened = MirrorImage::open(storage);
      if (!opened.ok()) {
        CHECK(opened.error().code() == ErrorCode::kRefused);
        ++refused;
        continue;
      }
    }
    const OpenedMirror whole(disk, primary);
    CHECK((whole.cp() == 3 || whole.cp() == 4));
  }
  CHECK(refused > 0);
}

// It was dropped, and the image that it belonged to was left a mixture.
TEST_CASE("a staging file of another volume is refused and stays") {
  FakePrimary primary;
  fill(primary, 10, 100);
  Mirror mirror(primary);
  mirror.copy();
  fill(primary, 10, 200);
  mirror.copy();
  auto files = files_when_decided(mirror.disk.log());
  FakePrimary other(2);
  fill(other, 10, 300);
  Mirror other_mirror(other);
  other_mirror.copy();
  files[File::kImage] = other_mirror.disk.files().at(File::kImage);
  RecordingDisk disk(files);
  MemoryMirrorStorage storage(disk);
  const auto opened = MirrorImage::open(storage);
  REQUIRE_FALSE(opened.ok());
  CHECK(opened.error().code() == ErrorCode::kRefused);
  CHECK(disk.exists(File::kStaging));
  CHECK(disk.files().at(File::kStaging).blocks.size() == files.at(File::kStaging).blocks.size());
}

TEST_CASE("a staging file of another version decides nothing in an image that has its state, and is refused before") {
  FakePrimary primary;
  fill(primary, 10, 100);
  Mirror mirror(primary);
  mirror.copy();
  fill(primary, 10, 200);
  mirror.copy();
  const auto published = mirror.disk.files();
  const auto decided = files_when_decided(mirror.disk.log());
  for (const std::uint32_t version : {1U, 3U}) {
    CAPTURE(version);
    auto files = decided;
    PageRef record = PageRef::copy_of(files.at(File::kStaging).blocks.at(0).bytes());
    std::memcpy(record.mutable_bytes().data() + 8, &version, sizeof version);
    const std::uint64_t seal = checksum_of(record.bytes().first(kBlockSize - 8));
    std::memcpy(record.mutable_bytes().data() + kBlockSize - 8, &seal, sizeof seal);
    files[File::kStaging].blocks[0] = record;
    RecordingDisk disk(files);
    MemoryMirrorStorage storage(disk);
    const auto opened = MirrorImage::open(storage);
    REQUIRE_FALSE(opened.ok());
    CHECK(opened.error().code() == ErrorCode::kIncompatible);
    CHECK(disk.exists(File::kStaging));
    if (version != 1) continue;
    // It says of which root it is: where that is published there is nothing to finish.
    files[File::kImage] = published.at(File::kImage);
    RecordingDisk done(files);
    const OpenedMirror whole(done, primary);
    CHECK(whole.cp() == primary.newest_root().cp);
    CHECK_FALSE(done.exists(File::kStaging));
  }
}

TEST_CASE("a block that is staged twice has its newer content") {
  FakePrimary primary;
  fill(primary, 10, 100);
  Mirror mirror(primary);
  mirror.copy();
  REQUIRE(mirror.driver->begin().ok());
  // Of a cp that was never finished, then of the one that was.
  const PageRef page = make_page(555);
  REQUIRE(mirror.driver->send_blocks(Cp{3}, {{Address{kFirstDataBlock}, checksum_of(page.bytes()), page}}).ok());
  CHECK(mirror.image->staged_bytes() == kBlockSize);
  fill(primary, 3, 200);
  REQUIRE(mirror.driver->catch_up().ok());
  CHECK(mirror.target->check().ok());
  CHECK(mirror.image->staged_bytes() == 0);
}

TEST_CASE("what was received of an unfinished cp is forgotten with the session") {
  FakePrimary primary;
  fill(primary, 10, 100);
  Mirror mirror(primary);
  mirror.copy();
  REQUIRE(mirror.driver->begin().ok());
  primary.put(kFirstDataBlock, 300);
  primary.put(400, 301);
  REQUIRE(mirror.driver->send_blocks(Cp{3}, primary.written()).ok());
  CHECK(mirror.disk.exists(File::kStaging));
  mirror.image->end_session();
  CHECK_FALSE(mirror.disk.exists(File::kStaging));
  CHECK(mirror.target->check().ok());
  primary.commit();
  mirror.copy();
  CHECK(mirror.target->root()->cp == 3);
  CHECK(mirror.target->check().ok());
}

TEST_CASE("a root on top of other blocks than the primary counted is not published") {
  FakePrimary primary;
  fill(primary, 10, 100);
  Mirror mirror(primary);
  mirror.copy();
  const auto try_root = [&](const std::function<void(wire::Root&, RootBlock&)>& spoil) {
    REQUIRE(mirror.driver->begin().ok());
    primary.put(600, 42);
    REQUIRE(mirror.driver->send_blocks(Cp{primary.newest_root().cp + 1}, primary.written()).ok());
    primary.commit();
    RootBlock root = primary.newest_root();
    wire::Root message = mirror.driver->root_message(root);
    spoil(message, root);
    seal(root);
    std::memcpy(message.root.data(), &root, kBlockSize);
    const auto published = mirror.image->apply(message);
    CHECK(mirror.target->check().ok());
    return published.ok();
  };
  CHECK_FALSE(try_root([](wire::Root& message, RootBlock&) { ++message.block_count; }));
  CHECK_FALSE(try_root([](wire::Root& message, RootBlock&) { message.running_checksum ^= 1; }));
  CHECK_FALSE(try_root([](wire::Root& message, RootBlock&) { message.base = Cp{1}; }));
  CHECK_FALSE(try_root([](wire::Root&, RootBlock& root) { root.cp = 2; }));
  CHECK_FALSE(try_root([](wire::Root&, RootBlock& root) { root.volume[0] ^= 1; }));
  CHECK_FALSE(try_root([](wire::Root&, RootBlock& root) { root.epoch[0] ^= 1; }));
  CHECK_FALSE(try_root([](wire::Root&, RootBlock& root) { root.size_blocks *= 2; }));
  CHECK_FALSE(try_root([](wire::Root&, RootBlock& root) { root.history_count = 1000; }));
  CHECK(mirror.target->root()->cp == 2);
  mirror.copy();
  CHECK(mirror.target->root()->checksum == primary.newest_root().checksum);
}

TEST_CASE("blocks outside the data area, out of order, of an old cp or outside a session are refused") {
  FakePrimary primary;
  fill(primary, 10, 100);
  Mirror mirror(primary);
  const PageRef page = make_page(1);
  const auto block_at = [&](std::uint64_t address) {
    return std::vector<BlockWrite>{{Address{address}, checksum_of(page.bytes()), page}};
  };
  CHECK_FALSE(mirror.driver->send_blocks(Cp{3}, block_at(100)).ok());
  mirror.copy();
  const std::size_t before = mirror.disk.log().size();
  for (const std::uint64_t address : {std::uint64_t{0}, std::uint64_t{1}, kFirstDataBlock - 1,
                                      end_of_data_blocks(kVolumeBlocks), kVolumeBlocks, ~std::uint64_t{0}}) {
    REQUIRE(mirror.driver->begin().ok());
    const auto credit = mirror.driver->send_blocks(Cp{3}, block_at(address));
    CHECK(credit.error().code() == ErrorCode::kCorrupt);
    // After an error the session is over.
    CHECK_FALSE(mirror.driver->send_blocks(Cp{3}, block_at(100)).ok());
  }
  REQUIRE(mirror.driver->begin().ok());
  CHECK_FALSE(mirror.driver->send_blocks(Cp{2}, block_at(100)).ok());
  REQUIRE(mirror.driver->begin().ok());
  const Message third = wire::Packer().pack(Cp{3}, 3, block_at(100));
  CHECK_FALSE(mirror.image->apply(std::get<wire::Blocks>(*wire::decode(third.header)), third.payload).ok());
  CHECK(mirror.disk.log().size() == before);
  CHECK(mirror.target->check().ok());
}

TEST_CASE("another volume, a smaller size and a superblock that is none are refused") {
  FakePrimary primary;
  Mirror mirror(primary);
  mirror.copy();
  FakePrimary stranger(2);
  const auto refused = mirror.image->begin_session(hello_of(stranger));
  CHECK(refused.error().code() == ErrorCode::kRefused);
  CHECK(refused.error().message().find(volume_of(primary.superblock()).to_string()) != std::string::npos);
  wire::Hello hello = hello_of(primary);
  hello.superblock[200] ^= std::byte{1};
  CHECK(mirror.image->begin_session(hello).error().code() == ErrorCode::kCorrupt);
  primary.grow(2 * kVolumeBlocks);
  primary.commit();
  mirror.copy();
  const Superblock smaller = grown(primary.superblock(), kVolumeBlocks);
  std::memcpy(hello.superblock.data(), &smaller, kBlockSize);
  CHECK(mirror.image->begin_session(hello).error().code() == ErrorCode::kRefused);
}

TEST_CASE("a volume that grows, and the blocks of its old end") {
  constexpr std::uint64_t kLarger = 3 * kVolumeBlocks / 2;
  for (const bool even_cp : {false, true}) {
    CAPTURE(even_cp);
    FakePrimary primary;
    fill(primary, 10, 100);
    Mirror mirror(primary);
    while ((primary.newest_root().cp % 2 == 0) == even_cp) primary.commit();
    mirror.copy();
    primary.grow(kLarger);
    // Where the mirror still has its root slots and the copy of its superblock.
    for (std::uint64_t address = end_of_data_blocks(kVolumeBlocks); address < kVolumeBlocks; ++address) {
      primary.put(address, address);
    }
    primary.put(kLarger - 100, 1);
    primary.commit();
    REQUIRE((primary.newest_root().cp % 2 == 0) == even_cp);
    mirror.copy();
    CHECK(mirror.target->check().ok());
    CHECK(mirror.image->superblock()->size_blocks == kLarger);
    CHECK(mirror.image->device().size_blocks() == kLarger);
    // Both superblocks say the same, and the next root stands at the other end.
    primary.put(20, 9);
    primary.commit();
    mirror.copy();
    for (const auto end : {Address{0}, Address{kLarger - 1}}) {
      PageRef page = PageRef::uninitialised();
      REQUIRE(mirror.image->device().read(end, page.mutable_bytes()).ok());
      const auto superblock = check_superblock(page.bytes());
      REQUIRE(superblock.ok());
      CHECK(superblock->size_blocks == kLarger);
    }
  }
}

TEST_CASE("a mirror that is still empty grows, too") {
  FakePrimary primary;
  fill(primary, 10, 100);
  Mirror mirror(primary);
  REQUIRE(mirror.driver->begin().ok());
  primary.grow(2 * kVolumeBlocks);
  primary.put(2 * kVolumeBlocks - 50, 7);
  primary.commit();
  mirror.copy();
  CHECK(mirror.target->check().ok());
  CHECK(mirror.image->superblock()->size_blocks == 2 * kVolumeBlocks);
}

TEST_CASE("a mirror whose disk cannot hold a larger volume says so and keeps what it has") {
  FakePrimary primary;
  fill(primary, 10, 100);
  Mirror mirror(primary);
  mirror.copy();
  primary.grow(2 * kVolumeBlocks);
  primary.commit();
  mirror.disk.fail_from(0, ErrorCode::kNoSpace);
  const auto refused = mirror.driver->begin();
  CHECK(refused.error().code() == ErrorCode::kNoSpace);
  CHECK(refused.error().describe().find("cannot grow") != std::string::npos);
  CHECK_FALSE(mirror.image->stopped());
  CHECK(mirror.target->check().ok());
  mirror.disk.fail_from(std::nullopt);
  mirror.copy();
  CHECK(mirror.image->superblock()->size_blocks == 2 * kVolumeBlocks);
}

TEST_CASE("an image that holds something else is not touched") {
  RecordingDisk disk;
  MemoryMirrorStorage storage(disk);
  {
    auto image = *storage.create_image(kVolumeBlocks);
    const PageRef page = make_page(5);
    REQUIRE(image->write(Address{0}, std::span(&page, 1)).ok());
  }
  const std::size_t before = disk.log().size();
  CHECK(MirrorImage::open(storage).error().code() == ErrorCode::kInvalid);
  CHECK(disk.log().size() == before);
}

TEST_CASE("a blank image, as a new block device is, becomes the mirror") {
  FakePrimary primary;
  fill(primary, 10, 100);
  RecordingDisk::Files files;
  files[File::kImage].size_blocks = kVolumeBlocks;
  RecordingDisk disk(files);
  OpenedMirror mirror(disk, primary);
  REQUIRE(mirror.driver.begin().ok());
  REQUIRE(mirror.driver.catch_up().ok());
  CHECK(mirror.target.check().ok());
}

TEST_CASE("a full disk ends the session and keeps the published state; with room again the mirror goes on") {
  FakePrimary primary;
  fill(primary, 10, 100);
  Mirror mirror(primary);
  mirror.copy();
  for (const bool staged : {false, true}) {
    REQUIRE(mirror.driver->begin().ok());
    mirror.disk.fail_from(0, ErrorCode::kNoSpace);
    primary.put(staged ? kFirstDataBlock : 800, 55);
    const auto credit = mirror.driver->send_blocks(Cp{primary.newest_root().cp + 1}, primary.written());
    CHECK(credit.error().code() == ErrorCode::kNoSpace);
    CHECK_FALSE(mirror.image->stopped());
    CHECK(mirror.target->check().ok());
    mirror.disk.fail_from(std::nullopt);
    primary.commit();
    mirror.copy();
    CHECK(mirror.target->root()->checksum == primary.newest_root().checksum);
    CHECK(mirror.target->check().ok());
  }
}

TEST_CASE("after a failed write nothing more is written until the next start") {
  FakePrimary primary;
  fill(primary, 10, 100);
  Mirror mirror(primary);
  mirror.copy();
  REQUIRE(mirror.driver->begin().ok());
  mirror.disk.fail_from(0);
  fill(primary, 5, 200);
  CHECK_FALSE(mirror.driver->catch_up().ok());
  REQUIRE(mirror.image->stopped());
  mirror.disk.fail_from(std::nullopt);
  const std::size_t before = mirror.disk.log().size();
  CHECK(mirror.driver->begin().error().code() == ErrorCode::kIo);
  CHECK(mirror.disk.log().size() == before);
  CHECK(mirror.target->check().ok());
  mirror.start();
  mirror.copy();
  CHECK(mirror.target->root()->checksum == primary.newest_root().checksum);
}

namespace {

// From now on fsync(2) fails on this thread, and nothing else; fdatasync(2) is what flushes content.
bool let_fsync_fail() {
  std::array<sock_filter, 4> program = {{BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                                         BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fsync, 0, 1),
                                         BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EIO),
                                         BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)}};
  const sock_fprog filter{program.size(), program.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) == 0;
}

}  // namespace

TEST_CASE("a new file of the mirror has a durable name before anything rests on it") {
  const TemporaryDirectory directory;
  const auto storage = file_mirror_storage(directory.path() / "image");
  std::thread([&] {
    if (!let_fsync_fail()) {
      MESSAGE("skipped: needs seccomp");
      return;
    }
    CHECK_FALSE(storage->create_image(kVolumeBlocks).ok());
    CHECK_FALSE(storage->create_staging(kVolumeBlocks).ok());
  }).join();
  CHECK(storage->create_image(kVolumeBlocks).ok());
  CHECK(storage->create_staging(kVolumeBlocks).ok());
}
