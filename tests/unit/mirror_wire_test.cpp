// The bytes between primary and mirror: what is encoded is decoded again, and nothing else is.
#include <doctest/doctest.h>

#include <cstring>
#include <random>

#include "common/checksum.h"
#include "mirror/wire/history.h"
#include "mirror/wire/messages.h"
#include "mirror/wire/packer.h"
#include "mirror/wire/payload.h"
#include "tests/support/mirror_fixture.h"

using namespace tarnfs;
using namespace tarnfs::testing;

namespace {

std::vector<BlockWrite> make_blocks(std::size_t count, bool compressible) {
  std::vector<BlockWrite> blocks;
  for (std::size_t i = 0; i < count; ++i) {
    const PageRef page = make_page(i, compressible);
    blocks.push_back({Address{kFirstDataBlock + i}, checksum_of(page.bytes()), page});
  }
  return blocks;
}

std::vector<wire::AnyMessage> samples() {
  wire::Hello hello;
  hello.volume.bytes.fill(1);
  hello.label = "data";
  hello.epoch.bytes.fill(2);
  hello.newest = Cp{77};
  hello.root_checksum = 0x1234;
  hello.history.resize(3);
  hello.history[1].last_cp = 50;
  hello.sender.bytes.fill(3);
  wire::Welcome welcome;
  welcome.has_state = true;
  welcome.cp = Cp{70};
  welcome.window_bytes = 1 << 20;
  welcome.has_parts = true;
  wire::Blocks blocks;
  blocks.cp = Cp{78};
  blocks.sequence = 5;
  blocks.entries = {{Address{20}, 1}, {Address{21}, 2}};
  blocks.raw_bytes = 8192;
  wire::Root root;
  root.base = Cp{70};
  root.block_count = 9;
  root.root[17] = std::byte{5};
  return {hello,
          welcome,
          wire::Refuse{wire::RefuseCode::kBusy, "in use"},
          blocks,
          root,
          wire::Published{Cp{78}, 5},
          wire::Credit{6, 4096},
          wire::Ping{1},
          wire::Pong{2},
          wire::Bye{},
          wire::Offer{Cp{78}, 9},
          wire::Want{9, {0xff, 0x01}}};
}

}  // namespace

TEST_CASE("every message comes back as it was") {
  for (const wire::AnyMessage& message : samples()) {
    const auto header = wire::encode(message);
    CHECK(header.size() <= wire::kHeaderMaxBytes);
    const auto decoded = wire::decode(header);
    REQUIRE(decoded.ok());
    CHECK(decoded->index() == message.index());
    CHECK(wire::encode(*decoded) == header);
  }
  const auto hello = std::get<wire::Hello>(*wire::decode(wire::encode(samples()[0])));
  CHECK(hello.label == "data");
  CHECK(hello.newest == Cp{77});
  CHECK(hello.history.size() == 3);
  CHECK(hello.history[1].last_cp == 50);
  CHECK(hello.sender.bytes[15] == 3);
}

TEST_CASE("another version is told, but its refusal is understood") {
  for (const wire::AnyMessage& message : samples()) {
    auto header = wire::encode(message);
    header[4] = std::byte{wire::kProtocolVersion + 1};
    const auto decoded = wire::decode(header);
    if (std::holds_alternative<wire::Refuse>(message)) {
      CHECK(decoded.ok());
    } else {
      CHECK(decoded.error().code() == ErrorCode::kIncompatible);
    }
  }
}

TEST_CASE("a shortened, lengthened or damaged header is an error, never a crash") {
  std::mt19937_64 random(20240611);
  for (const wire::AnyMessage& message : samples()) {
    const auto header = wire::encode(message);
    for (std::size_t size = 0; size < header.size(); size += 1 + size / 64) {
      CHECK_FALSE(wire::decode(std::span(header).first(size)).ok());
      // The length in the envelope agrees, the body is short.
      std::vector<std::byte> cut(header.begin(), header.begin() + static_cast<std::ptrdiff_t>(size));
      if (size < wire::kEnvelopeBytes) continue;
      const auto body = static_cast<std::uint32_t>(size - wire::kEnvelopeBytes);
      std::memcpy(cut.data() + 8, &body, sizeof body);
      CHECK_FALSE(wire::decode(cut).ok());
    }
    auto longer = header;
    longer.push_back(std::byte{0});
    CHECK_FALSE(wire::decode(longer).ok());
    for (int i = 0; i < 2000; ++i) {
      auto damaged = header;
      damaged[random() % damaged.size()] = static_cast<std::byte>(random());
      const auto decoded = wire::decode(damaged);
      if (decoded.ok()) CHECK(wire::encode(*decoded).size() <= wire::kHeaderMaxBytes);
    }
  }
  for (int i = 0; i < 20000; ++i) {
    std::vector<std::byte> garbage(random() % 300);
    for (std::byte& byte : garbage) byte = static_cast<std::byte>(random());
    CHECK_FALSE(wire::decode(garbage).ok());
  }
  CHECK_FALSE(wire::decode(std::vector<std::byte>(wire::kHeaderMaxBytes + 1)).ok());
}

TEST_CASE("a list longer than its limit is refused before memory is taken for it") {
  auto header = wire::encode(samples()[3]);
  // Behind the envelope and the archive's byte order: cp, sequence, then the number of entries.
  const std::uint32_t huge = 0x7fffffff;
  std::memcpy(header.data() + wire::kEnvelopeBytes + 1 + 16, &huge, sizeof huge);
  CHECK(wire::decode(header).error().code() == ErrorCode::kCorrupt);
}

TEST_CASE("control characters of a peer's text do not reach the log") {
  const wire::Refuse refuse{wire::RefuseCode::kBusy, "line\nforged \x1b[31m"};
  CHECK(std::get<wire::Refuse>(*wire::decode(wire::encode(refuse))).text == "line?forged ?[31m");
  const wire::Refuse endless{wire::RefuseCode::kBusy, std::string(100000, 'x')};
  CHECK(std::get<wire::Refuse>(*wire::decode(wire::encode(endless))).text.size() == wire::kTextMaxBytes);
}

TEST_CASE("pages travel compressed only when that saves an eighth") {
  for (const std::size_t count : {std::size_t{1}, std::size_t{7}, wire::kBatchBlocksMax}) {
    for (const bool compressible : {true, false}) {
      const auto blocks = make_blocks(count, compressible);
      const Message message = wire::Packer().pack(Cp{3}, 1, blocks);
      const auto header = std::get<wire::Blocks>(*wire::decode(message.header));
      CHECK(header.compressed == compressible);
      CHECK((message.payload.front().bytes.size() <= count * kBlockSize * 7 / 8) == compressible);
      const auto pages = wire::unpack(header, message.payload);
      REQUIRE(pages.ok());
      REQUIRE(pages->size() == count);
      for (std::size_t i = 0; i < count; ++i) {
        CHECK(std::memcmp((*pages)[i].data(), blocks[i].page.data(), kBlockSize) == 0);
      }
    }
  }
}

TEST_CASE("LZ4 is tried ever more seldom where it does not pay, and with each batch again where it does") {
  wire::Packer packer;
  const auto is_compressed = [&](const std::vector<BlockWrite>& blocks) {
    return std::get<wire::Blocks>(*wire::decode(packer.pack(Cp{3}, 1, blocks).header)).compressed;
  };
  const auto random = make_blocks(4, false);
  const auto zeroes = make_blocks(4, true);
  // Each row: how many batches it is left out for, after so many in a row that it did not pay for.
  for (const int left_out : {1, 3, 7, 15, 15}) {
    CAPTURE(left_out);
    REQUIRE_FALSE(is_compressed(random));
    for (int i = 0; i < left_out; ++i) CHECK_FALSE(is_compressed(zeroes));
  }
  for (int i = 0; i < 20; ++i) CHECK(is_compressed(zeroes));
  CHECK_FALSE(is_compressed(random));
  CHECK_FALSE(is_compressed(zeroes));
  CHECK(is_compressed(zeroes));
}

TEST_CASE("what was packed stays as it is while more is packed") {
  wire::Packer packer;
  std::vector<Message> messages;
  for (std::size_t count = 1; count < 20; ++count)
    messages.push_back(packer.pack(Cp{3}, 1, make_blocks(count, count % 2 == 0)));
  for (std::size_t count = 1; count < 20; ++count) {
    const Message& message = messages[count - 1];
    const auto pages = wire::unpack(std::get<wire::Blocks>(*wire::decode(message.header)), message.payload);
    REQUIRE(pages.ok());
    CHECK(pages->size() == count);
  }
}

TEST_CASE("a damaged payload is an error, never a crash or a write beyond the pages") {
  std::mt19937_64 random(7);
  for (const bool compressible : {true, false}) {
    const Message message = wire::Packer().pack(Cp{3}, 1, make_blocks(16, compressible));
    const auto header = std::get<wire::Blocks>(*wire::decode(message.header));
    const auto whole = message.payload.front().bytes;
    CHECK_FALSE(wire::unpack(header, {}).ok());
    for (int i = 0; i < 500; ++i) {
      std::vector<std::byte> bytes(whole.begin(), whole.end());
      bytes[random() % bytes.size()] ^= std::byte{1};
      if (i % 3 == 0) bytes.resize(random() % bytes.size());
      const std::vector<Frame> damaged{Frame::of(bytes)};
      const auto pages = wire::unpack(header, damaged);
      // A changed byte that LZ4 does not need may leave the pages whole; a wrong page never comes out.
      if (!pages.ok()) CHECK(pages.error().code() == ErrorCode::kCorrupt);
    }
    auto wrong = header;
    wrong.raw_bytes += kBlockSize;
    CHECK_FALSE(wire::unpack(wrong, message.payload).ok());
    wrong = header;
    wrong.entries.pop_back();
    CHECK_FALSE(wire::unpack(wrong, message.payload).ok());
    wrong = header;
    wrong.entries[3].checksum ^= 1;
    CHECK_FALSE(wire::unpack(wrong, message.payload).ok());
  }
}

TEST_CASE("the running checksum depends on addresses, checksums and order") {
  wire::RunningChecksum forth;
  wire::RunningChecksum back;
  const wire::BlockEntry a{Address{1}, 2};
  const wire::BlockEntry b{Address{2}, 1};
  forth.add(a);
  forth.add(b);
  back.add(b);
  back.add(a);
  CHECK(forth.count() == 2);
  CHECK(forth.value() != back.value());
}

TEST_CASE("histories are equal, behind or diverged") {
  FakePrimary primary;
  primary.commit();
  const RootBlock second = primary.newest_root();
  const StateName at_second = state_of(second);
  CHECK(relation_of(at_second, second) == Relation::kEqual);
  primary.commit();
  CHECK(relation_of(at_second, primary.newest_root()) == Relation::kBehind);
  CHECK(relation_of(state_of(primary.newest_root()), second) == Relation::kDiverged);
  StateName other = at_second;
  other.root_checksum ^= 1;
  CHECK(relation_of(other, second) == Relation::kDiverged);
  CHECK(relation_of(other, primary.newest_root()) == Relation::kDiverged);  // which names the one before it
  primary.commit();
  CHECK(relation_of(at_second, primary.newest_root()) == Relation::kUnproven);  // by number only
  primary.begin_epoch(9, Cp{4});
  primary.commit();
  // The first epoch may be one of several mounts.
  CHECK(relation_of(at_second, primary.newest_root()) == Relation::kUnproven);
  other = at_second;
  other.cp = Cp{5};
  CHECK(relation_of(other, primary.newest_root()) == Relation::kDiverged);
  other.epoch.bytes.fill(77);
  CHECK(relation_of(other, primary.newest_root()) == Relation::kDiverged);
}

TEST_CASE("a state of an ended epoch is ours up to its end, as far back as epochs are kept") {
  RootBlock root;
  root.epoch.fill(200);
  root.cp = 1000;
  const auto end_epoch = [&](std::uint8_t epoch, std::uint64_t last_cp) {
    HistoryEntry& entry = root.history.at(root.history_count++);
    entry.epoch.fill(epoch);
    entry.last_cp = last_cp;
  };
  const auto relation = [&](std::uint8_t epoch, std::uint64_t cp) {
    StateName state;
    state.epoch.bytes.fill(epoch);
    state.cp = Cp{cp};
    return relation_of(state, root);
  };
  end_epoch(1, 1);
  CHECK(relation(1, 1) == Relation::kBehind);
  CHECK(relation(1, 2) == Relation::kDiverged);
  for (std::uint8_t epoch = 2; epoch <= kHistoryMax; ++epoch) end_epoch(epoch, std::uint64_t{10} * epoch);
  CHECK(relation(2, 20) == Relation::kBehind);
  CHECK(relation(2, 21) == Relation::kDiverged);
  CHECK(relation(64, 640) == Relation::kBehind);
  // Of epochs that were dropped nothing is known, but that they ended before those that were not.
  CHECK(relation(99, 1) == Relation::kUnproven);
  CHECK(relation(99, 2) == Relation::kDiverged);
}
