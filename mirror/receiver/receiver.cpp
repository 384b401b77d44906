#include "mirror/receiver/receiver.h"

#include <optional>
#include <thread>

#include "common/log.h"
#include "common/mutex.h"
#include "mirror/receiver/mirror_image.h"
#include "mirror/receiver/network_loop.h"

namespace tarnfs {
namespace {

wire::RefuseCode refuse_code_of(const Error& error) {
  switch (error.code()) {
    case ErrorCode::kCorrupt:
      return wire::RefuseCode::kProtocol;
    case ErrorCode::kRefused:
      return wire::RefuseCode::kVolume;
    case ErrorCode::kIncompatible:
      return wire::RefuseCode::kVersion;
    default:
      return wire::RefuseCode::kFailed;
  }
}

class ReceiverWithThreads final : public Receiver, private NetworkObserver {
 public:
  ReceiverWithThreads(std::unique_ptr<MirrorImage> image, const ReceiverOptions& options)
      : options_(options), image_(std::move(image)) {
    note_image();
  }
  ~ReceiverWithThreads() override { stop(); }

  BlockDevice& device() override { return image_->device(); }
  KeptBlocks& kept() override { return image_->kept(); }

  Status show(MirrorTarget& target) override {
    TARNFS_TRY(image_->attach(target));
    shown_ = true;
    return {};
  }

  Status start(MirrorTarget& target, std::unique_ptr<ServerChannel> channel) override {
    TARNFS_ASSERT(!network_);
    if (!shown_) TARNFS_TRY(show(target));
    channel_ = std::move(channel);
    network_.emplace(*channel_, queue_, static_cast<NetworkObserver&>(*this), options_);
    network_thread_ = std::thread([this] { network_->run(); });
    worker_thread_ = std::thread([this] { work(); });
    return {};
  }

  void stop() override {
    if (!network_) return;
    network_->stop();
    network_thread_.join();
    Work last;
    last.kind = Work::Kind::kStop;
    queue_.push(std::move(last));
    worker_thread_.join();
    network_.reset();
    channel_.reset();
  }

  ReceiverStatus status() const override {
    MutexLock lock(mutex_);
    return status_;
  }

  Status wait_for(const std::function<bool(const ReceiverStatus&)>& condition,
                  std::chrono::milliseconds timeout) override {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    MutexLock lock(mutex_);
    while (!condition(status_)) {
      const auto left = deadline - std::chrono::steady_clock::now();
      if (left <= left.zero()) return Error(ErrorCode::kTimeout, "the mirror did not get there in time");
      changed_.wait_for(mutex_, left);
    }
    return {};
  }

 private:
  void on_connected(bool connected) override {
    MutexLock lock(mutex_);
    status_.connected = connected;
    if (status_.state != ReceiverState::kStopped && status_.state != ReceiverState::kPublishing) {
      status_.state = connected ? ReceiverState::kConnected : ReceiverState::kWaiting;
    }
    changed_.notify_all();
  }
  void on_received(std::uint64_t wire_bytes) override {
    MutexLock lock(mutex_);
    status_.wire_bytes += wire_bytes;
  }
  void on_refused() override {
    MutexLock lock(mutex_);
    ++status_.refused_count;
    changed_.notify_all();
  }
  void on_error(const std::string& text) override {
    MutexLock lock(mutex_);
    status_.last_error = text;
    changed_.notify_all();
  }

  void work() {
    for (;;) {
      Work next = queue_.pop();
      if (next.kind == Work::Kind::kStop) return;
      if (next.kind == Work::Kind::kEnd) {
        image_->end_session();
        note_image();
        continue;
      }
      Answer answer = apply(next);
      answer.session = next.session;
      note_image();
      queue_.push_answer(std::move(answer));
      channel_->wake();
    }
  }

  Answer apply(const Work& work) {
    if (const auto* hello = std::get_if<wire::Hello>(&work.message)) return answer_hello(*hello);
    if (const auto* blocks = std::get_if<wire::Blocks>(&work.message)) {
      set_state(ReceiverState::kReceiving);
      auto credit = image_->apply(*blocks, work.payload);
      if (!credit.ok()) return refusal(credit.error());
      MutexLock lock(mutex_);
      status_.received_bytes += blocks->raw_bytes;
      return Answer{0, *credit, {}};
    }
    if (const auto* offer = std::get_if<wire::Offer>(&work.message)) {
      set_state(ReceiverState::kReceiving);
      auto want = image_->compare(*offer, work.payload);
      if (!want.ok()) return refusal(want.error());
      return Answer{0, *want, {}};
    }
    set_state(ReceiverState::kPublishing);
    const auto& root = std::get<wire::Root>(work.message);
    auto published = image_->apply(root);
    if (!published.ok()) return refusal(published.error());
    if (options_.kept.feed != nullptr) options_.kept.feed->on_adopted(*image_->root(), root.block_count * kBlockSize);
    MutexLock lock(mutex_);
    status_.last_publish = options_.clock->now();
    return Answer{0, *published, {}};
  }

  Answer answer_hello(const wire::Hello& hello) {
    auto welcome = image_->begin_session(hello);
    if (!welcome.ok()) return refusal(welcome.error());
    welcome->window_bytes = options_.window_bytes;
    return Answer{0, *welcome, {}};
  }

  Answer refusal(const Error& error) {
    const std::string text = error.describe();
    on_error(text);
    return Answer{0, wire::Refuse{refuse_code_of(error), text}, text};
  }

  void set_state(ReceiverState state) {
    MutexLock lock(mutex_);
    status_.state = state;
    changed_.notify_all();
  }

  // Copies what the image is now into the status. Worker thread, or before it runs.
  void note_image() {
    MutexLock lock(mutex_);
    if (const auto& superblock = image_->superblock()) {
      status_.volume = volume_of(*superblock);
      status_.label = std::string(label_of(*superblock));
      status_.size_blocks = superblock->size_blocks;
    }
    if (const auto& root = image_->root()) {
      status_.published = state_of(*root);
      status_.used_blocks = root->used_blocks;
    }
    status_.staged_bytes = image_->staged_bytes();
    if (image_->stopped()) {
      status_.state = ReceiverState::kStopped;
      status_.last_error = image_->stopped()->message();
    } else if (queue_.idle() || !status_.connected) {
      status_.state = status_.connected ? ReceiverState::kConnected : ReceiverState::kWaiting;
    }
    changed_.notify_all();
  }

  const ReceiverOptions options_;
  const std::unique_ptr<MirrorImage> image_;  // of the worker thread once it runs
  std::unique_ptr<ServerChannel> channel_;    // of the network thread once it runs, but for wake()
  WorkQueue queue_;
  std::optional<NetworkLoop> network_;
  bool shown_ = false;
  std::thread network_thread_;
  std::thread worker_thread_;

  mutable Mutex mutex_;
  Condition changed_;
  ReceiverStatus status_ TARNFS_GUARDED_BY(mutex_);
};

}  // namespace

std::string_view name_of(ReceiverState state) {
  switch (state) {
    case ReceiverState::kWaiting:
      return "waiting";
    case ReceiverState::kConnected:
      return "connected";
    case ReceiverState::kReceiving:
      return "receiving";
    case ReceiverState::kPublishing:
      return "publishing";
    case ReceiverState::kStopped:
      return "stopped";
  }
  return "unknown";
}

Result<std::unique_ptr<Receiver>> Receiver::open(MirrorStorage& storage, const ReceiverOptions& options) {
  TARNFS_ASSIGN(std::unique_ptr<MirrorImage> image, MirrorImage::open(storage, options.kept));
  return std::unique_ptr<Receiver>(std::make_unique<ReceiverWithThreads>(std::move(image), options));
}

}  // namespace tarnfs
