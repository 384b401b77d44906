#include "mirror/sender/sender.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <thread>
#include <utility>

#include "common/log.h"
#include "common/mutex.h"
#include "mirror/sender/change_queue.h"
#include "mirror/sender/lag_tracker.h"
#include "mirror/sender/session.h"

namespace tarnfs {
namespace {

constexpr double kNsPerSecond = 1e9;
constexpr std::uint64_t kNsPerSecondInteger = 1'000'000'000;
// Who waits for a mirror looks this often whether its refusals have lasted too long.
constexpr std::chrono::milliseconds kRefusalCheck{500};  // also of whether somebody still waits

SenderOptions with_id(SenderOptions options) {
  if (options.id.is_zero()) options.id = options.clock->random_id();
  return options;
}

std::string text_of(const LostPin& lost, bool of_copy, const std::string& pin_size_option) {
  const std::string cp = std::to_string(lost.cp.value);
  const std::string option = lost.why == PinLoss::kSize ? pin_size_option : "pin_age=";
  std::string text = of_copy ? "the blocks of cp " + cp + ", which is being copied to it, are kept no longer"
                             : "the blocks of its last published root, cp " + cp + ", are kept no longer";
  text += ", as " + option + " says: they held " + std::to_string(lost.held_bytes) + " bytes, and the root was left " +
          std::to_string(lost.age_ns / kNsPerSecondInteger) + " s ago; ";
  text += of_copy ? "the copy may have to begin again with a newer root, then it sends what the mirror lacks"
                  : "it stays readable, and all its blocks are compared when it catches up";
  return text + "; see why it is behind, or give a larger " + option;
}

class SenderWithThread final : public Sender, private SessionHost {
 public:
  explicit SenderWithThread(SenderOptions options)
      : options_(with_id(std::move(options))), queue_(options_.queue_limit_bytes), lag_(*options_.clock) {}
  ~SenderWithThread() override { stop(); }

  void on_blocks(Cp cp, std::span<const BlockWrite> blocks) override {
    MutexLock lock(mutex_);
    queue_.add_blocks(cp, blocks);
    lag_.add_bytes(blocks.size() * kBlockSize);
    if (channel_ != nullptr) channel_->wake();
  }

  void on_published(const RootBlock& root) override {
    MutexLock lock(mutex_);
    queue_.add_root(root);
    lag_.add_cp(Cp{root.cp}, root.used_blocks * kBlockSize);
    if (channel_ != nullptr) channel_->wake();
    changed_.notify_all();
  }

  void on_adopted(const RootBlock& root, std::uint64_t received_bytes) override {
    MutexLock lock(mutex_);
    queue_.note_newest(Cp{root.cp});
    lag_.add_bytes(received_bytes);
    lag_.add_cp(Cp{root.cp}, root.used_blocks * kBlockSize);
    if (channel_ != nullptr) channel_->wake();
    changed_.notify_all();
  }

  void on_pin_lost(const LostPin& lost) override {
    bool of_copy = false;
    {
      MutexLock lock(mutex_);
      of_copy = lost.pin == copy_pin_;
      // One that was moved meanwhile holds again.
      if (!of_copy && (lost.pin != mirror_pin_ || lost.cp != pinned_cp_)) return;
      ++pins_lost_;
      // A full volume gives pins up again and again, and what the mirror lacks is known by birth cps all the same.
      if (!of_copy && lost.why != PinLoss::kSpace) compare_due_ = true;
      changed_.notify_all();
    }
    if (lost.why != PinLoss::kSpace)
      log_warning("mirror " + options_.url + ": " + text_of(lost, of_copy, options_.pin_size_option));
  }

  void start(ReplicationSource& source) override {
    TARNFS_ASSERT(!thread_.joinable());
    {
      MutexLock lock(mutex_);
      source_ = &source;
      stopping_ = false;
      state_ = SenderState::kConnecting;
    }
    begin_lag(source);
    thread_ = std::thread([this, &source] { run(source); });
  }

  void stop() override {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
      if (channel_ != nullptr) channel_->wake();
      changed_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
    MutexLock lock(mutex_);
    drop_pin();
    source_ = nullptr;
  }

  SenderStatus status() const override {
    MutexLock lock(mutex_);
    return status_now();
  }

  using Sender::wait_published;
  Status wait_published(Cp cp, std::chrono::milliseconds timeout, const std::function<bool()>& given_up) override {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    MutexLock lock(mutex_);
    // Somebody waits, so the mirror is asked again at once, and only what it says from now on counts.
    const std::uint64_t refusals_before = refusal_count_;
    if (mirror_cp_ < cp && state_ == SenderState::kConnecting) {
      reconnect_asked_ = true;
      changed_.notify_all();
    }
    while (mirror_cp_ < cp) {
      if (stopping_) return Error(ErrorCode::kCanceled, "replication to " + options_.url + " was stopped");
      if (given_up()) return Error(ErrorCode::kCanceled, "nobody waits for " + options_.url + " any more");
      if (paused_) return paused_error();
      if (state_ == SenderState::kDiverged || (refusal_count_ > refusals_before && refused_for_good())) {
        return Error(ErrorCode::kRefused, last_error_);
      }
      const auto left = deadline - std::chrono::steady_clock::now();
      if (left <= left.zero()) return not_in_time();
      changed_.wait_for(mutex_, std::min<std::chrono::nanoseconds>(left, kRefusalCheck));
    }
    return {};
  }

  Status wait_for(const std::function<bool(const SenderStatus&)>& condition,
                  std::chrono::milliseconds timeout) override {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    MutexLock lock(mutex_);
    while (!condition(status_now())) {
      if (stopping_) return Error(ErrorCode::kCanceled, "replication to " + options_.url + " was stopped");
      const auto left = deadline - std::chrono::steady_clock::now();
      if (left <= left.zero()) return not_in_time();
      changed_.wait_for(mutex_, left);
    }
    return {};
  }

  void pause() override { set_paused(true); }
  void resume() override { set_paused(false); }

  void limit(std::uint64_t bytes_per_second) override {
    MutexLock lock(mutex_);
    limit_bytes_ = bytes_per_second;
    if (channel_ != nullptr) channel_->wake();
    changed_.notify_all();
  }

  void reconnect_now() override {
    MutexLock lock(mutex_);
    reconnect_asked_ = true;
    changed_.notify_all();
  }

 private:
  // What a connection's end means for the next one.
  struct Ended {
    bool published = false;
    bool refused = false;
    bool diverged = false;
    Cp ahead;  // the mirror has this one, which the source has not got yet
  };

  void begin_lag(ReplicationSource& source) {
    const Timestamp created{source.superblock().created_seconds, 0};
    const RootBlock newest = source.newest_root();
    MutexLock lock(mutex_);
    lag_.begin(Cp{newest.cp}, newest.used_blocks * kBlockSize, created);
  }

  // A source that is a mirror has nothing to send before its first root. False when something else is to be done.
  bool wait_for_root(ReplicationSource& source) {
    if (source.newest_root().cp != 0) return true;
    {
      MutexLock lock(mutex_);
      while (queue_.newest().value == 0 && !stopping_ && !paused_) changed_.wait(mutex_);
      if (stopping_ || paused_) return false;
    }
    begin_lag(source);
    return true;
  }

  void run(ReplicationSource& source) {
    std::uint64_t backoff_ms = options_.backoff_min_ms;
    set_backoff(backoff_ms);
    while (!stopping()) {
      if (wait_while_paused()) backoff_ms = options_.backoff_min_ms;
      if (!wait_for_root(source)) continue;
      if (stopping()) break;
      const Ended ended = run_connection(source);
      if (ended.published) backoff_ms = options_.backoff_min_ms;
      if (ended.diverged) forget_mirror_root();
      set_state(ended.diverged ? SenderState::kDiverged : SenderState::kConnecting);
      const bool is_long = ended.diverged || ended.ahead.value != 0;
      back_off(is_long ? options_.diverged_retry_ms : backoff_ms, ended.ahead);
      backoff_ms = std::min(2 * backoff_ms, options_.backoff_max_ms);
      set_backoff(backoff_ms);
    }
    set_state(SenderState::kStopped);
  }

  Ended run_connection(ReplicationSource& source) {
    auto channel = options_.connect();
    if (!channel.ok()) {
      note_error(channel.error());
      return {};
    }
    set_channel(channel->get());
    Session session(**channel, source, *this, options_);
    const Error reason = session.run();
    set_channel(nullptr);
    if (reason.code() != ErrorCode::kCanceled) note_error(reason);
    return {session.published(), reason.code() == ErrorCode::kRefused, session.diverged(), session.ahead()};
  }

  void set_channel(Channel* channel) {
    MutexLock lock(mutex_);
    channel_ = channel;
    if (channel == nullptr) queue_.close();
  }

  // What the mirror has is no root of ours.
  void forget_mirror_root() {
    MutexLock lock(mutex_);
    drop_pin();
  }

  // The mirror's newest root is that of `cp` (0: it has none).
  void pin(Cp cp) TARNFS_REQUIRES(mutex_) {
    if (mirror_pin_ && cp == pinned_cp_) return;
    if (mirror_pin_ && cp > pinned_cp_) {
      source_->move_pin(*mirror_pin_, cp);
    } else {
      drop_pin();
      if (cp.value != 0) mirror_pin_ = source_->pin_root(cp);
    }
    pinned_cp_ = cp;
  }

  void drop_pin() TARNFS_REQUIRES(mutex_) {
    if (mirror_pin_) source_->unpin(*mirror_pin_);
    mirror_pin_.reset();
    pinned_cp_ = Cp{};
  }

  void set_backoff(std::uint64_t backoff_ms) {
    MutexLock lock(mutex_);
    backoff_ms_ = backoff_ms;
    changed_.notify_all();
  }

  // `ahead`, if it is one, ends it when the source has got there.
  void back_off(std::uint64_t wait_ms, Cp ahead) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(wait_ms);
    MutexLock lock(mutex_);
    while (!stopping_ && !reconnect_asked_ && !paused_) {
      if (ahead.value != 0 && queue_.newest() >= ahead) break;
      const auto left = deadline - std::chrono::steady_clock::now();
      if (left <= left.zero()) break;
      changed_.wait_for(mutex_, left);
    }
    reconnect_asked_ = false;
  }

  // Each text is logged once in a row: a mirror that stays away is tried every few seconds.
  void note_error(const Error& error) {
    const std::string text = error.describe();
    bool is_new = false;
    {
      MutexLock lock(mutex_);
      is_new = text != logged_error_;
      last_error_ = text;
      logged_error_ = text;
      if (error.code() == ErrorCode::kRefused) ++refusal_count_;
      if (error.code() != ErrorCode::kRefused) {
        refused_since_ns_.reset();
      } else if (!refused_since_ns_) {
        refused_since_ns_ = options_.clock->monotonic_ns();
      }
      changed_.notify_all();
    }
    if (is_new) log_warning("mirror " + options_.url + ": " + text);
  }

  bool stopping() const {
    MutexLock lock(mutex_);
    return stopping_;
  }

  bool ending() const override {
    MutexLock lock(mutex_);
    return stopping_ || paused_;
  }

  std::uint64_t limit_bytes_per_second() const override {
    MutexLock lock(mutex_);
    return limit_bytes_;
  }

  void set_paused(bool paused) {
    MutexLock lock(mutex_);
    paused_ = paused;
    if (channel_ != nullptr) channel_->wake();
    changed_.notify_all();
  }

  // True when it was paused.
  bool wait_while_paused() {
    {
      MutexLock lock(mutex_);
      if (!paused_) return false;
      last_error_.clear();
      logged_error_.clear();
    }
    set_state(SenderState::kPaused);
    log_info("mirror " + options_.url + " is paused");
    {
      MutexLock lock(mutex_);
      while (paused_ && !stopping_) changed_.wait(mutex_);
    }
    set_state(SenderState::kConnecting);
    return true;
  }

  Error paused_error() const {
    return Error(ErrorCode::kRefused, "replication to " + options_.url + " is paused; go on with tarn resume");
  }

  void open_queue(Cp newest) override {
    MutexLock lock(mutex_);
    queue_.open();
    queue_.note_newest(newest);
  }

  ChangeQueue::Step next_step(Cp base, std::size_t blocks_max) override {
    MutexLock lock(mutex_);
    return queue_.next(base, blocks_max);
  }

  void on_state(SenderState state) override {
    {
      // The next try does not hide what is wrong until it went better.
      MutexLock lock(mutex_);
      if (state == SenderState::kHandshaking && state_ == SenderState::kDiverged) return;
    }
    set_state(state);
  }

  void set_state(SenderState state) {
    bool became_live = false;
    {
      MutexLock lock(mutex_);
      if (state_ == state) return;
      state_ = state;
      // A mirror of a mirror catches up with each root: that is told once.
      became_live = state == SenderState::kLive && !(options_.source_is_mirror && was_live_);
      if (state == SenderState::kLive) was_live_ = true;
      if (!is_connected(state)) was_live_ = false;
      if (state != SenderState::kCatchingUp) catch_up_done_ = catch_up_total_ = 0;
      if (state == SenderState::kLive) {
        last_error_.clear();
        logged_error_.clear();
      }
      changed_.notify_all();
    }
    if (became_live) log_info("mirror " + options_.url + " is live");
    if (options_.on_state_changed) options_.on_state_changed();
  }

  bool has_met(Cp cp, std::uint64_t root_checksum) const override {
    MutexLock lock(mutex_);
    return std::find(met_roots_.begin(), met_roots_.end(), std::pair(cp, root_checksum)) != met_roots_.end();
  }

  void on_mirror_state(const MirrorState& state) override {
    bool compare_begins = false;
    {
      MutexLock lock(mutex_);
      if (state.cp > mirror_cp_) refused_since_ns_.reset();
      mirror_cp_ = state.cp;
      met_roots_.clear();
      if (state.is_known_ours) met_roots_.emplace_back(state.cp, state.root_checksum);
      compare_begins = !state.is_known_ours && !std::exchange(compare_due_, true);
      pin(state.cp);
      lag_.meet_mirror(state.cp, state.time);
      changed_.notify_all();
    }
    if (!compare_begins) return;
    log_warning("mirror " + options_.url + ": nothing here tells any more whether its cp " +
                std::to_string(state.cp.value) + " is one of this volume's past or of another copy's; " +
                "it stays readable, and all its blocks are compared");
  }

  void on_root_sent(Cp cp, std::uint64_t root_checksum) override {
    MutexLock lock(mutex_);
    met_roots_.emplace_back(cp, root_checksum);
  }

  void on_mirror_published(Cp cp) override {
    MutexLock lock(mutex_);
    if (cp > mirror_cp_) refused_since_ns_.reset();
    mirror_cp_ = cp;
    while (!met_roots_.empty() && met_roots_.front().first < cp) met_roots_.pop_front();
    pin(cp);
    lag_.set_mirror(cp);
    changed_.notify_all();
  }

  void on_copy_pinned(std::optional<PinId> pin) override {
    MutexLock lock(mutex_);
    copy_pin_ = pin;
  }

  bool compare_due() const override {
    MutexLock lock(mutex_);
    return compare_due_;
  }

  void on_compared() override {
    {
      MutexLock lock(mutex_);
      compare_due_ = false;
      changed_.notify_all();
    }
    log_info("mirror " + options_.url + " was compared in full");
  }

  void on_sent(std::uint64_t raw_bytes, std::uint64_t wire_bytes) override {
    MutexLock lock(mutex_);
    sent_bytes_ += raw_bytes;
    wire_bytes_ += wire_bytes;
    if (state_ == SenderState::kCatchingUp) catch_up_done_ += raw_bytes;
    changed_.notify_all();
  }

  void on_had(std::uint64_t raw_bytes) override {
    MutexLock lock(mutex_);
    catch_up_done_ += raw_bytes;
    changed_.notify_all();
  }

  void on_catch_up(std::uint64_t bytes_total) override {
    MutexLock lock(mutex_);
    catch_up_done_ = 0;
    catch_up_total_ = bytes_total;
    catch_up_began_ns_ = options_.clock->monotonic_ns();
  }

  void on_rtt(std::uint64_t rtt_ns) override {
    MutexLock lock(mutex_);
    rtt_ns_ = rtt_ns;
  }

  Error not_in_time() const TARNFS_REQUIRES(mutex_) {
    return Error(ErrorCode::kTimeout, "the mirror at " + options_.url + " did not get there in time" +
                                          (last_error_.empty() ? "" : ": " + last_error_));
  }

  // A mirror that still serves a primary that just died takes us in a moment; others say no for longer.
  bool refused_for_good() const TARNFS_REQUIRES(mutex_) {
    if (!refused_since_ns_) return false;
    return options_.clock->monotonic_ns() - *refused_since_ns_ >= options_.refusal_patience_ms * 1'000'000;
  }

  SenderStatus status_now() const TARNFS_REQUIRES(mutex_) {
    const std::uint64_t now_ns = options_.clock->monotonic_ns();
    SenderStatus status;
    status.url = options_.url;
    status.state = state_;
    status.published_cp = mirror_cp_;
    status.lag_cps = lag_.lag_cps();
    status.lag_bytes = lag_.lag_bytes();
    status.lag_seconds = static_cast<double>(lag_.lag_ns()) / kNsPerSecond;
    status.limit_bytes_per_second = limit_bytes_;
    status.sent_bytes = sent_bytes_;
    status.wire_bytes = wire_bytes_;
    if (wire_bytes_ > 0) status.compression_ratio = static_cast<double>(sent_bytes_) / static_cast<double>(wire_bytes_);
    status.rtt_ms = static_cast<double>(rtt_ns_) / 1e6;
    status.bytes_done = catch_up_done_;
    status.bytes_total = catch_up_total_ == 0 ? 0 : std::max(catch_up_total_, catch_up_done_);
    if (status.bytes_total > 0 && catch_up_done_ > 0) {
      const double elapsed_seconds = static_cast<double>(now_ns - catch_up_began_ns_) / kNsPerSecond;
      const double left_bytes = static_cast<double>(status.bytes_total - catch_up_done_);
      status.eta_seconds = left_bytes * elapsed_seconds / static_cast<double>(catch_up_done_);
    }
    status.queued_bytes = queue_.queued_bytes();
    status.backoff_ms = backoff_ms_;
    status.overflow_count = queue_.overflow_count();
    status.last_error = last_error_;
    if (source_ != nullptr && mirror_pin_) status.held_bytes = source_->held_bytes(*mirror_pin_);
    if (source_ != nullptr && copy_pin_)
      status.held_bytes = std::max(status.held_bytes, source_->held_bytes(*copy_pin_));
    status.pins_lost = pins_lost_;
    status.compare_due = compare_due_;
    return status;
  }

  const SenderOptions options_;
  std::thread thread_;  // start() and stop() only

  mutable Mutex mutex_;
  Condition changed_;
  ChangeQueue queue_ TARNFS_GUARDED_BY(mutex_);
  LagTracker lag_ TARNFS_GUARDED_BY(mutex_);
  Channel* channel_ TARNFS_GUARDED_BY(mutex_) = nullptr;  // of the connection that stands; to wake it
  bool stopping_ TARNFS_GUARDED_BY(mutex_) = false;
  bool paused_ TARNFS_GUARDED_BY(mutex_) = false;
  std::uint64_t limit_bytes_ TARNFS_GUARDED_BY(mutex_) = 0;
  bool reconnect_asked_ TARNFS_GUARDED_BY(mutex_) = false;
  bool was_live_ TARNFS_GUARDED_BY(mutex_) = false;  // on this connection
  std::uint64_t backoff_ms_ TARNFS_GUARDED_BY(mutex_) = 0;
  SenderState state_ TARNFS_GUARDED_BY(mutex_) = SenderState::kConnecting;
  Cp mirror_cp_ TARNFS_GUARDED_BY(mutex_);
  // The mirror's root, when that is known to be ours, and those that were sent since and not answered, oldest first.
  std::deque<std::pair<Cp, std::uint64_t>> met_roots_ TARNFS_GUARDED_BY(mutex_);
  std::uint64_t sent_bytes_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::uint64_t wire_bytes_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::uint64_t catch_up_done_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::uint64_t catch_up_total_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::uint64_t catch_up_began_ns_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::uint64_t rtt_ns_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::string last_error_ TARNFS_GUARDED_BY(mutex_);
  ReplicationSource* source_ TARNFS_GUARDED_BY(mutex_) = nullptr;  // from start() to stop()
  std::optional<PinId> mirror_pin_ TARNFS_GUARDED_BY(mutex_);
  Cp pinned_cp_ TARNFS_GUARDED_BY(mutex_);  // by it
  std::optional<PinId> copy_pin_ TARNFS_GUARDED_BY(mutex_);
  std::uint64_t pins_lost_ TARNFS_GUARDED_BY(mutex_) = 0;
  bool compare_due_ TARNFS_GUARDED_BY(mutex_) = false;
  std::optional<std::uint64_t> refused_since_ns_ TARNFS_GUARDED_BY(mutex_);  // nothing but refusals since then
  std::uint64_t refusal_count_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::string logged_error_ TARNFS_GUARDED_BY(mutex_);
};

}  // namespace

bool is_connected(SenderState state) {
  return state == SenderState::kCatchingUp || state == SenderState::kLive;
}

std::string_view name_of(SenderState state) {
  switch (state) {
    case SenderState::kConnecting:
    case SenderState::kHandshaking:
      return "connecting";
    case SenderState::kCatchingUp:
      return "catching_up";
    case SenderState::kLive:
      return "live";
    case SenderState::kDiverged:
      return "diverged";
    case SenderState::kPaused:
      return "paused";
    case SenderState::kStopped:
      return "stopped";
  }
  return "unknown";
}

std::unique_ptr<Sender> Sender::create(SenderOptions options) {
  return std::make_unique<SenderWithThread>(std::move(options));
}

}  // namespace tarnfs
