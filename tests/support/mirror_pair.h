// A fake primary with the real sender, and the real receiver with a fake target, joined by some channel.
//
// Thread safety: none; sender and receiver have their threads.
#pragma once

#include <doctest/doctest.h>

#include <chrono>
#include <memory>
#include <utility>

#include "mirror/receiver/receiver.h"
#include "mirror/sender/sender.h"
#include "tests/support/mirror_fixture.h"

namespace tarnfs::testing {

inline constexpr std::chrono::seconds kPatience{20};

class MirrorSide {
 public:
  MirrorSide(const StateBook& book, RecordingDisk& disk, std::unique_ptr<ServerChannel> channel,
             const ReceiverOptions& options = {})
      : storage_(disk) {
    auto opened = Receiver::open(storage_, options);
    REQUIRE_MESSAGE(opened.ok(), (opened.ok() ? "" : opened.error().describe()));
    receiver_ = *std::move(opened);
    target_ = std::make_unique<FakeTarget>(book, receiver_->device());
    REQUIRE(receiver_->start(*target_, std::move(channel)).ok());
  }
  ~MirrorSide() { receiver_->stop(); }

  Receiver& receiver() { return *receiver_; }
  FakeTarget& target() { return *target_; }
  bool wait(const std::function<bool(const ReceiverStatus&)>& condition) {
    return receiver_->wait_for(condition, kPatience).ok();
  }

 private:
  MemoryMirrorStorage storage_;
  std::unique_ptr<Receiver> receiver_;
  std::unique_ptr<FakeTarget> target_;
};

class PrimarySide {
 public:
  PrimarySide(FakePrimary& primary, ChannelFactory connect, const std::function<void(SenderOptions&)>& adjust = {})
      : primary_(primary) {
    SenderOptions options;
    options.url = "test://mirror";
    options.connect = std::move(connect);
    options.backoff_min_ms = 1;
    options.backoff_max_ms = 10;
    options.diverged_retry_ms = 10;
    if (adjust) adjust(options);
    sender_ = Sender::create(std::move(options));
    primary_.set_feed(sender_.get());
    sender_->start(primary_);
  }
  ~PrimarySide() {
    primary_.set_feed(nullptr);
    sender_->stop();
  }

  Sender& sender() { return *sender_; }
  bool wait(const std::function<bool(const SenderStatus&)>& condition) {
    return sender_->wait_for(condition, kPatience).ok();
  }
  bool wait_live() {
    return wait([](const SenderStatus& status) { return status.state == SenderState::kLive; });
  }
  // Waits until the mirror has the primary's newest root.
  bool wait_equal() { return sender_->wait_published(Cp{primary_.newest_root().cp}, kPatience).ok(); }

 private:
  FakePrimary& primary_;
  std::unique_ptr<Sender> sender_;
};

inline void fill(FakePrimary& primary, std::uint64_t first, std::uint64_t count, std::uint64_t seed) {
  for (std::uint64_t i = 0; i < count; ++i) primary.put(first + i, seed + i, seed % 2 == 0);
}

// The mirror shows the primary's newest root, every block of it.
inline void check_equal(FakePrimary& primary, MirrorSide& mirror) {
  REQUIRE(mirror.target().root());
  CHECK(mirror.target().root()->checksum == primary.newest_root().checksum);
  CHECK(mirror.target().check().ok());
}

}  // namespace tarnfs::testing
