// The journal's ring: batches come back as they were written, and only whole ones.
#include <doctest/doctest.h>

#include <cstring>

#include "common/checksum.h"
#include "fs/journal/journal_reader.h"
#include "fs/journal/journal_writer.h"
#include "fs/journal/name_log.h"
#include "tests/support/memory_block_device.h"

using namespace tarnfs;
using tarnfs::testing::MemoryBlockDevice;

namespace {

constexpr std::uint64_t kRingBlocks = 64;
constexpr Address kRingFirst{100};

JournalGeometry geometry() {
  JournalGeometry geometry;
  geometry.first = kRingFirst;
  geometry.size_blocks = kRingBlocks;
  geometry.volume.bytes[0] = 1;
  geometry.epoch.bytes[0] = 2;
  return geometry;
}

PageRef page_with(std::uint64_t value) {
  PageRef page = PageRef::zeroed();
  std::memcpy(page.mutable_bytes().data(), &value, sizeof value);
  return page;
}

// A link record and an inode's state with `pages` pages whose content is `value` and up.
JournalBatch batch_of(std::uint64_t value, unsigned pages) {
  JournalBatch batch;
  batch.add({Cp{value}, {7, 8}, JournalLink{InodeNumber{1}, "name", InodeNumber{value}}});
  JournalInodeState state;
  state.inode = InodeNumber{value};
  state.attributes.mode = 0100644;
  state.cut.push_back({3, 9});
  JournalPages& run = state.pages.emplace_back();
  run.first_page = 5;
  for (unsigned i = 0; i < pages; ++i) {
    const PageRef page = page_with(value + i);
    run.checksums.push_back(checksum_of(page.bytes()));
    batch.add_page(page);
  }
  batch.add({Cp{value}, {7, 8}, std::move(state)});
  return batch;
}

struct Ring {
  MemoryBlockDevice device{1024};
  JournalWriter writer{device, geometry(), {}, {}};

  bool put(std::uint64_t value, unsigned pages) {
    JournalBatch batch = batch_of(value, pages);
    if (!writer.place(batch)) return false;
    REQUIRE(writer.write(batch).ok());
    return true;
  }
  // The inodes of the batches that are found, and what else is there checked.
  std::vector<std::uint64_t> found(const JournalPosition& start, JournalPosition* end = nullptr) {
    JournalReader reader(device, geometry(), start);
    std::vector<std::uint64_t> inodes;
    while (true) {
      const auto batch = reader.next();
      REQUIRE(batch.ok());
      if (!*batch) break;
      REQUIRE((*batch)->records.size() == 2);
      const auto& link = std::get<JournalLink>((*batch)->records[0].body);
      const auto& state = std::get<JournalInodeState>((*batch)->records[1].body);
      CHECK(link.name == "name");
      CHECK((*batch)->records[1].time == Timestamp{7, 8});
      CHECK(state.cut.size() == 1);
      for (std::size_t i = 0; i < (*batch)->pages.size(); ++i) {
        CHECK(checksum_of((*batch)->pages[i].bytes()) == checksum_of(page_with(link.inode.value + i).bytes()));
      }
      inodes.push_back(link.inode.value);
    }
    if (end != nullptr) *end = reader.position();
    return inodes;
  }
};

}  // namespace

TEST_CASE("batches come back in order, over the end of the ring too") {
  Ring ring;
  for (std::uint64_t lap = 0; lap < 40; ++lap) {
    const std::uint64_t value = 10 + lap * 3;
    const JournalPosition start = ring.writer.head();
    REQUIRE(ring.put(value, 1));
    REQUIRE(ring.put(value + 1, static_cast<unsigned>(lap % 7)));
    REQUIRE(ring.put(value + 2, 5));
    JournalPosition end;
    CHECK(ring.found(start, &end) == std::vector<std::uint64_t>{value, value + 1, value + 2});
    CHECK(end == ring.writer.head());
    ring.writer.release(end);
  }
}

TEST_CASE("a full ring takes no more until it is released") {
  Ring ring;
  std::uint64_t count = 0;
  while (ring.put(10 + count, 9)) ++count;
  CHECK(count == (kRingBlocks - 1) / 10);
  CHECK(ring.writer.half_full());
  CHECK(ring.found({}).size() == count);
  ring.writer.release(ring.writer.head());
  CHECK(ring.writer.used_blocks() == 0);
  CHECK(ring.put(99, 9));
  CHECK_FALSE(ring.put(99, kRingBlocks / 2));
}

TEST_CASE("a torn batch ends the journal; a damaged one with a batch behind it is told") {
  for (const std::uint64_t damaged : {std::uint64_t{0}, std::uint64_t{3}}) {
    Ring ring;
    REQUIRE(ring.put(10, 2));
    REQUIRE(ring.put(11, 4));
    const std::uint64_t second = 3;
    ring.device.damage(Address{kRingFirst.value + second + damaged});
    CHECK(ring.found({}) == std::vector<std::uint64_t>{10});
    JournalReader reader(ring.device, geometry(), {});
    REQUIRE(reader.next().value().has_value());
    REQUIRE_FALSE(reader.next().value().has_value());
    CHECK_FALSE(reader.block_behind_damage().value().has_value());
    REQUIRE(ring.put(12, 1));
    CHECK(reader.block_behind_damage().value() == second + 5);
  }
}

TEST_CASE("batches of another volume, epoch, sequence or chain are none") {
  Ring ring;
  REQUIRE(ring.put(10, 2));
  CHECK(ring.found({2, 0, 0}).empty());
  CHECK(ring.found({1, 0, 77}).empty());
  for (const bool other_volume : {true, false}) {
    JournalGeometry other = geometry();
    (other_volume ? other.volume.bytes : other.epoch.bytes)[5] = 9;
    JournalReader reader(ring.device, other, {});
    CHECK_FALSE(reader.next().value().has_value());
  }
}

TEST_CASE("records are not believed") {
  std::vector<std::byte> bytes;
  encode({Cp{5}, {1, 2}, JournalRename{InodeNumber{1}, "from", InodeNumber{2}, "to", InodeNumber{20}, {}, false}},
         bytes);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    for (const unsigned bit : {0U, 4U, 7U}) {
      std::vector<std::byte> damaged = bytes;
      damaged[i] ^= static_cast<std::byte>(1U << bit);
      std::span<const std::byte> rest(damaged);
      const auto record = decode_record(rest);  // an error or another record, but nothing beyond the bytes
      CHECK((record.ok() || record.error().code() == ErrorCode::kCorrupt));
    }
  }
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    std::span<const std::byte> rest = std::span(bytes).first(length);
    CHECK_FALSE(decode_record(rest).ok());
  }
}

TEST_CASE("the name log hands its records out once and drops what a root has") {
  NameLog log;
  for (std::uint64_t i = 0; i < 10; ++i) {
    const JournalRecord record{Cp{5 + i / 5}, {}, JournalRemove{InodeNumber{1}, "x", InodeNumber{i}}};
    log.append(std::span(&record, 1), InodeNumber{i == 7 ? 7U : 0U});
  }
  log.drop_up_to(Cp{5});
  const auto taken = log.take();
  CHECK(taken.count == 5);
  CHECK(taken.replacing == std::vector<InodeNumber>{InodeNumber{7}});
  std::span<const std::byte> rest(taken.records);
  for (std::uint64_t i = 5; i < 10; ++i) {
    CHECK(std::get<JournalRemove>(decode_record(rest).value().body).inode == InodeNumber{i});
  }
  CHECK(rest.empty());
  CHECK(log.pending_bytes() == 0);
  CHECK(log.take().count == 0);
}
