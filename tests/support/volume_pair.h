// A volume and its mirror, both with engines, joined by a network in memory.
//
// Thread safety: none; sender and receiver have their threads.
#pragma once

#include <doctest/doctest.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "mirror/wire/messages.h"
#include "tests/support/memory_channel.h"
#include "tests/support/mirror_pair.h"
#include "tests/support/test_volume.h"

namespace tarnfs::testing {

// What the primary puts on the wire: the blocks that it offers, and those that it sends.
struct Traffic {
  // `on_message` is called before each Offer, Blocks and Root goes out.
  explicit Traffic(MemoryNetwork& network, std::function<void()> on_message = {}) {
    network.set_filter([this, on_message = std::move(on_message)](Message& message) {
      const auto decoded = wire::decode(message.header);
      if (!decoded.ok()) return;
      const bool has_blocks = std::holds_alternative<wire::Offer>(*decoded) ||
                              std::holds_alternative<wire::Blocks>(*decoded) ||
                              std::holds_alternative<wire::Root>(*decoded);
      if (on_message && has_blocks) on_message();
      if (const auto* offer = std::get_if<wire::Offer>(&*decoded)) offered += offer->count;
      if (const auto* blocks = std::get_if<wire::Blocks>(&*decoded)) sent += blocks->entries.size();
    });
  }
  std::atomic<std::uint64_t> offered{0};
  std::atomic<std::uint64_t> sent{0};
};

// A volume and its mirror, both with engines, on devices in memory.
class VolumePair {
 public:
  static constexpr std::uint64_t kFiles = 12;
  static constexpr std::uint64_t kFileBytes = 16 * kBlockSize;

  explicit VolumePair(std::uint64_t pin_size_bytes) : storage_(disk) {
    receiver_ = Receiver::open(storage_, {}).value();
    VolumeOptions options;
    options.mode = VolumeMode::kMirror;
    mirror = Volume::open(receiver_->device(), options).value();
    REQUIRE(receiver_->start(*mirror, network.listen()).ok());
    primary.options.pin_size_bytes = pin_size_bytes;
    REQUIRE(primary.volume->close().ok());
    open_primary();
    for (std::uint64_t i = 0; i < kFiles; ++i) files_.push_back(primary.make(kRootDirectory, std::to_string(i)));
    next_state();
    sender->start(*primary.volume);
  }
  ~VolumePair() {
    sender->stop();
    receiver_->stop();
  }

  // The primary's process ends, and is started again on what its device has then.
  void unmount() {
    sender->stop();
    REQUIRE(primary.volume->close().ok());
    primary.volume.reset();
  }
  void mount() {
    open_primary();
    sender->start(*primary.volume);
  }

  // Each file is written anew, with another letter.
  Cp next_state() {
    letter_ = letter_ == 'z' ? 'a' : static_cast<char>(letter_ + 1);
    for (const InodeNumber file : files_) REQUIRE(primary.write(file, 0, std::string(kFileBytes, letter_)).ok());
    return primary.volume->consistency_point().value();
  }
  // What the newest root refers to: addresses and checksums.
  std::map<std::uint64_t, std::uint64_t> blocks() {
    std::map<std::uint64_t, std::uint64_t> blocks;
    REQUIRE(primary.volume
                ->list_changed(primary.volume->newest_root(), Cp{0},
                               [&](const BlockPointer& block) -> Status {
                                 blocks[block.address] = block.checksum;
                                 return {};
                               })
                .ok());
    return blocks;
  }
  std::set<std::uint64_t> blocks_in_use() {
    std::set<std::uint64_t> addresses;
    for (const auto& [address, checksum] : blocks()) addresses.insert(address);
    return addresses;
  }
  // Every file of the mirror has one letter throughout.
  bool read_mirror() {
    for (std::uint64_t i = 0; i < kFiles; ++i) {
      const auto found = mirror->lookup(kRootDirectory, std::to_string(i));
      if (!found.ok()) return false;
      std::string text(kFileBytes, '?');
      const auto count = mirror->read(found->inode, 0, std::as_writable_bytes(std::span(text)));
      mirror->forget(found->inode, 1);
      if (!count.ok() || *count != kFileBytes || text.find_first_not_of(text.front()) != std::string::npos)
        return false;
    }
    return true;
  }
  bool wait_equal() { return sender->wait_published(Cp{primary.volume->newest_root().cp}, kPatience).ok(); }
  bool wait(const std::function<bool(const SenderStatus&)>& condition) {
    return sender->wait_for(condition, kPatience).ok();
  }
  void disconnect() {
    network.set_reachable(false);
    network.cut();
    REQUIRE(wait([](const SenderStatus& status) { return status.state == SenderState::kConnecting; }));
  }
  void check_equal() {
    CHECK(mirror->newest_root().checksum == primary.volume->newest_root().checksum);
    CHECK(read_mirror());
    const auto report = check_volume(receiver_->device(), CheckOptions{});
    REQUIRE(report.ok());
    CHECK(report->problems.empty());
  }
  std::uint64_t staging_files() const {
    std::uint64_t count = 0;
    for (const auto& operation : disk.log()) count += operation.kind == RecordingDisk::Kind::kCreate ? 1 : 0;
    return count - 1;  // the image
  }

  RecordingDisk disk;
  MemoryNetwork network;
  std::atomic<bool> reads_at_each_message{false};
  std::atomic<std::uint64_t> reads_at_messages{0};
  std::atomic<std::uint64_t> failed_at_messages{0};
  Traffic traffic{network, [this] {
                    if (!reads_at_each_message) return;
                    ++reads_at_messages;
                    if (!read_mirror()) ++failed_at_messages;
                  }};
  std::unique_ptr<Sender> sender;
  TestVolume primary{2048};
  std::unique_ptr<Volume> mirror;

 private:
  void open_primary() {
    SenderOptions sender_options;
    sender_options.url = "test://mirror";
    sender_options.connect = network.connector();
    sender_options.backoff_min_ms = 1;
    sender_options.backoff_max_ms = 10;
    sender_options.diverged_retry_ms = 10;
    auto next_sender = Sender::create(sender_options);
    primary.volume.reset();
    primary.options.feed = next_sender.get();
    sender = std::move(next_sender);
    primary.open();
  }

  MemoryMirrorStorage storage_;
  std::unique_ptr<Receiver> receiver_;
  std::vector<InodeNumber> files_;
  char letter_ = 'a';
};

}  // namespace tarnfs::testing
