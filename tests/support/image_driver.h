// Plays a primary's messages to a MirrorImage without a network.
//
// Thread safety: none.
#pragma once

#include <doctest/doctest.h>

#include <memory>
#include <utility>
#include <vector>

#include "mirror/receiver/mirror_image.h"
#include "mirror/wire/packer.h"
#include "tests/support/mirror_fixture.h"

namespace tarnfs::testing {

inline wire::Hello hello_of(const FakePrimary& primary) {
  wire::Hello hello;
  const Superblock superblock = primary.superblock();
  const RootBlock root = primary.newest_root();
  hello.volume = volume_of(superblock);
  std::memcpy(hello.superblock.data(), &superblock, kBlockSize);
  hello.epoch = state_of(root).epoch;
  hello.newest = Cp{root.cp};
  hello.root_checksum = root.checksum;
  return hello;
}

class ImageDriver {
 public:
  ImageDriver(MirrorImage& image, FakePrimary& primary) : image_(image), primary_(primary) {}

  Result<wire::Welcome> begin() {
    auto welcome = image_.begin_session(hello_of(primary_));
    if (welcome.ok()) base_ = welcome->cp;
    sequence_ = 0;
    sent_.reset();
    return welcome;
  }

  Result<wire::Credit> send_blocks(Cp cp, const std::vector<BlockWrite>& blocks) {
    const Message message = wire::Packer().pack(cp, ++sequence_, blocks);
    for (const BlockWrite& block : blocks) sent_.add({block.address, block.checksum});
    return image_.apply(std::get<wire::Blocks>(*wire::decode(message.header)), message.payload);
  }

  wire::Root root_message(const RootBlock& root) const {
    wire::Root message;
    std::memcpy(message.root.data(), &root, kBlockSize);
    message.base = base_;
    message.block_count = sent_.count();
    message.running_checksum = sent_.value();
    return message;
  }

  Result<wire::Published> send_root(const RootBlock& root) {
    auto published = image_.apply(root_message(root));
    if (published.ok()) base_ = Cp{root.cp};
    sent_.reset();
    return published;
  }

  // All blocks that are newer than the mirror's state, then the newest root.
  Result<wire::Published> catch_up() {
    const RootBlock root = primary_.newest_root();
    std::vector<BlockWrite> batch;
    TARNFS_TRY(primary_.walk_changed(root, base_, [&](const BlockWrite& block) -> Status {
      batch.push_back(block);
      if (batch.size() < 5) return {};
      const auto sent = send_blocks(Cp{root.cp}, std::exchange(batch, {}));
      return sent.ok() ? Status{} : Status(sent.error());
    }));
    if (!batch.empty()) {
      if (const auto sent = send_blocks(Cp{root.cp}, batch); !sent.ok()) return sent.error();
    }
    return send_root(root);
  }

 private:
  MirrorImage& image_;
  FakePrimary& primary_;
  Cp base_;
  std::uint64_t sequence_ = 0;
  wire::RunningChecksum sent_;
};

// A mirror without a network: its image, opened on what a disk has, or nothing; a target; and who sends to it.
struct OpenedMirror {
  OpenedMirror(RecordingDisk& disk, FakePrimary& primary)
      : storage(disk), image(open(storage)), target(primary.book(), image->device()), driver(*image, primary) {
    const Status attached = image->attach(target);
    REQUIRE_MESSAGE(attached.ok(), (attached.ok() ? "" : attached.error().describe()));
  }
  std::uint64_t cp() const { return target.root() ? target.root()->cp : 0; }

  MemoryMirrorStorage storage;
  std::unique_ptr<MirrorImage> image;
  FakeTarget target;
  ImageDriver driver;

 private:
  static std::unique_ptr<MirrorImage> open(MemoryMirrorStorage& storage) {
    auto image = MirrorImage::open(storage);
    REQUIRE_MESSAGE(image.ok(), (image.ok() ? "" : image.error().describe()));
    return *std::move(image);
  }
};

}  // namespace tarnfs::testing
