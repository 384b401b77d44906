#include "mirror/sender/session.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/failpoint.h"
#include "mirror/wire/history.h"
#include "mirror/wire/payload.h"

namespace tarnfs {
namespace {

constexpr std::uint64_t kNsPerMs = 1'000'000;
// While a walk finds nothing to send, the connection is looked after this often.
constexpr std::uint64_t kPumpIntervalNs = 50 * kNsPerMs;

Error peer_fault(const std::string& what) {
  return Error(ErrorCode::kCorrupt, "the mirror broke the protocol: " + what);
}

// Keeps a root from reuse while it lives.
class ScopedPin {
 public:
  ScopedPin(ReplicationSource& source, SessionHost& host, PinId pin) : source_(source), host_(host), pin_(pin) {
    host_.on_copy_pinned(pin);
  }
  ~ScopedPin() {
    host_.on_copy_pinned(std::nullopt);
    source_.unpin(pin_);
  }
  ScopedPin(const ScopedPin&) = delete;
  ScopedPin& operator=(const ScopedPin&) = delete;

 private:
  ReplicationSource& source_;
  SessionHost& host_;
  const PinId pin_;
};

wire::Hello hello_of(const Superblock& superblock, const RootBlock& root, const Id128& sender) {
  wire::Hello hello;
  hello.volume = volume_of(superblock);
  hello.label = std::string(label_of(superblock));
  const auto bytes = std::as_bytes(std::span(&superblock, 1));
  std::copy(bytes.begin(), bytes.end(), hello.superblock.begin());
  hello.sender = sender;
  const StateName state = state_of(root);
  hello.epoch = state.epoch;
  hello.newest = state.cp;
  hello.root_checksum = state.root_checksum;
  const std::size_t count = std::min<std::size_t>(root.history_count, kHistoryMax);
  hello.history.assign(root.history.begin(), root.history.begin() + static_cast<std::ptrdiff_t>(count));
  return hello;
}

}  // namespace

Error Session::run() {
  host_.on_state(SenderState::kHandshaking);
  next_ping_ns_ = options_.clock->monotonic_ns();
  Status status = handshake();
  if (status.ok()) status = stream();
  // Best effort: a mirror that does not get it sees the connection break.
  if (status.error().code() == ErrorCode::kCanceled && welcomed_) {
    if (!send(wire::Bye{}).ok()) return status.error();
  }
  return status.error();
}

Status Session::handshake() {
  const RootBlock ours = source_.newest_root();
  const Superblock superblock = source_.superblock();
  told_size_blocks_ = superblock.size_blocks;
  told_epoch_ = state_of(ours).epoch;
  TARNFS_TRY(send(hello_of(superblock, ours, options_.id)));
  TARNFS_FAILPOINT("primary: Hello sent");
  while (!welcome_) TARNFS_TRY(pump(true));
  TARNFS_TRY(judge(*welcome_, ours));
  TARNFS_FAILPOINT("primary: Welcome received");
  welcomed_ = true;
  window_bytes_ = std::min(options_.window_bytes, welcome_->window_bytes);
  stream_base_ = mirror_cp_;
  host_.on_mirror_state({mirror_cp_, welcome_->root_checksum, welcome_->time, is_known_ours_});
  host_.open_queue(Cp{ours.cp});
  return {};
}

Status Session::judge(const wire::Welcome& welcome, const RootBlock& ours) {
  if (!welcome.has_state) return {};
  StateName theirs = state_of(ours);
  theirs.epoch = welcome.epoch;
  theirs.cp = welcome.cp;
  theirs.root_checksum = welcome.root_checksum;
  if (welcome.cp.value == 0) return peer_fault("a state without a cp");
  if (options_.source_is_mirror && welcome.cp > Cp{ours.cp} && !knows_end_of(ours, welcome.epoch)) {
    ahead_ = welcome.cp;
    return Error(ErrorCode::kRefused, "the mirror at " + options_.url + " has cp " + std::to_string(welcome.cp.value) +
                                          ", and this one is still at cp " + std::to_string(ours.cp) +
                                          "; it goes on when this one has got there");
  }
  // A volume that went back to an older state, and on from there, has other roots of the same cps.
  const auto known = source_.root_checksum(welcome.cp);
  const Relation relation = relation_of(theirs, ours);
  if ((known && *known != welcome.root_checksum) || relation == Relation::kDiverged) {
    diverged_ = true;
    return Error(ErrorCode::kRefused, "the mirror at " + options_.url + " has cp " + std::to_string(welcome.cp.value) +
                                          " of epoch " + welcome.epoch.to_string() + ", which this volume (cp " +
                                          std::to_string(ours.cp) + ") never had: the two have diverged; both keep " +
                                          "their data, choose one side before replication goes on");
  }
  is_known_ours_ = known || relation != Relation::kUnproven || host_.has_met(welcome.cp, welcome.root_checksum);
  mirror_cp_ = welcome.cp;
  return {};
}

Status Session::stream() {
  for (;;) {
    if (may_compare()) TARNFS_TRY(catch_up());
    ChangeQueue::Step step = host_.next_step(stream_base_, blocks_max());
    if (step.kind != ChangeQueue::Step::Kind::kCatchUp) host_.on_state(SenderState::kLive);
    switch (step.kind) {
      case ChangeQueue::Step::Kind::kWait:
        TARNFS_TRY(pump(true));
        break;
      case ChangeQueue::Step::Kind::kBlocks:
        TARNFS_TRY(send_batch(step.cp, step.blocks));
        break;
      case ChangeQueue::Step::Kind::kRoot:
        TARNFS_TRY(check_told(*step.root));
        TARNFS_TRY(send_root(*step.root));
        break;
      case ChangeQueue::Step::Kind::kCatchUp:
        TARNFS_TRY(catch_up());
        break;
    }
  }
}

// Between two cps, and once there is a newer root than was sent: a mirror does not take one twice.
bool Session::may_compare() const {
  return host_.compare_due() && since_root_.count() == 0 && Cp{source_.newest_root().cp} > stream_base_;
}

Status Session::catch_up() {
  const PinnedRoot pinned = source_.pin_newest_root();
  const ScopedPin pin(source_, host_, pinned.pin);
  const Cp cp{pinned.root.cp};
  TARNFS_TRY(check_told(pinned.root));
  const bool is_other_line = stream_base_.value != 0 && !source_.is_one_line(stream_base_, cp);
  const bool compares_all = host_.compare_due() || is_other_line;
  const Cp since = compares_all ? Cp{0} : stream_base_;
  host_.on_catch_up(since.value == 0 ? pinned.root.used_blocks * kBlockSize : 0);
  host_.on_state(SenderState::kCatchingUp);
  // What was cut off before was sent for the root that the mirror still has, so it is of use once.
  const bool has_parts = std::exchange(welcome_->has_parts, false);
  TARNFS_TRY(has_parts || compares_all ? offer_changed(pinned.root, since) : send_changed(pinned.root));
  TARNFS_TRY(send_root(pinned.root));
  // Our own pin holds until the mirror's has moved to this root.
  while (mirror_cp_ < cp) TARNFS_TRY(pump(true));
  if (compares_all) host_.on_compared();
  return {};
}

Status Session::check_told(const RootBlock& root) const {
  const bool has_epoch = state_of(root).epoch == told_epoch_ || follows_epoch(root, told_epoch_);
  if (root.size_blocks == told_size_blocks_ && has_epoch) return {};
  return Error(ErrorCode::kCanceled,
               "the volume has grown or has another writer; the next connection tells the mirror");
}

Status Session::send_changed(const RootBlock& root) {
  std::vector<BlockWrite> batch;
  TARNFS_TRY(source_.walk_changed(root, stream_base_, [&](const BlockWrite& block) -> Status {
    batch.push_back(block);
    if (batch.size() == blocks_max()) return send_batch(Cp{root.cp}, std::exchange(batch, {}));
    return pump_if_due();
  }));
  return batch.empty() ? Status() : send_batch(Cp{root.cp}, batch);
}

Status Session::offer_changed(const RootBlock& root, Cp since) {
  std::vector<BlockPointer> blocks;
  TARNFS_TRY(source_.list_changed(root, since, [&](const BlockPointer& block) -> Status {
    blocks.push_back(block);
    if (blocks.size() >= offer_blocks_max()) return offer(root, std::exchange(blocks, {}));
    return pump_if_due();
  }));
  return blocks.empty() ? Status() : offer(root, blocks);
}

// Sends what the mirror does not have. Both sides count what it has before what is sent.
Status Session::offer(const RootBlock& root, const std::vector<BlockPointer>& blocks) {
  TARNFS_TRY(wait_for_limit());
  Message message = wire::pack_offer(Cp{root.cp}, blocks);
  bucket_.spend(message.size_bytes());
  offered_count_ = static_cast<std::uint32_t>(blocks.size());
  const std::uint64_t offer_bytes = message.size_bytes();
  host_.on_sent(0, offer_bytes);
  TARNFS_TRY(channel_.send(std::move(message)));
  TARNFS_FAILPOINT("primary: Offer sent");
  while (offered_count_ != 0) TARNFS_TRY(pump(true));
  flow_.on_applied(offer_bytes, offer_bytes);
  const wire::Want want = *std::exchange(want_, {});
  std::vector<const BlockPointer*> wanted;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if ((want.bits[i / 8] >> i % 8 & 1) != 0) {
      wanted.push_back(&blocks[i]);
    } else {
      since_root_.add({Address{blocks[i].address}, blocks[i].checksum});
    }
  }
  host_.on_had((blocks.size() - wanted.size()) * kBlockSize);
  std::vector<BlockWrite> batch;
  for (const BlockPointer* block : wanted) {
    TARNFS_ASSIGN(BlockWrite read, source_.read_listed(root, *block));
    batch.push_back(std::move(read));
    if (batch.size() == blocks_max()) TARNFS_TRY(send_batch(Cp{root.cp}, std::exchange(batch, {})));
    TARNFS_TRY(pump_if_due());
  }
  return batch.empty() ? Status() : send_batch(Cp{root.cp}, batch);
}

Status Session::pump_if_due() {
  if (options_.clock->monotonic_ns() - last_pump_ns_ < kPumpIntervalNs) return {};
  return pump(false);
}

std::size_t Session::blocks_max() const {
  // A part of what may be on its way: several messages keep network and disk at work, and a ping gets in between.
  std::uint64_t blocks = std::min<std::uint64_t>(options_.batch_blocks_max, wire::kBatchBlocksMax);
  blocks = std::min(blocks, flow_.bytes() / 4 / kBlockSize);
  // With a limit, less than what is allowed in a tenth of a second, so that it is a stream and not one gust a minute.
  const std::uint64_t limit_bytes = host_.limit_bytes_per_second();
  if (limit_bytes != 0) blocks = std::min(blocks, limit_bytes / 10 / kBlockSize);
  return std::max<std::uint64_t>(blocks, 1);
}

std::size_t Session::offer_blocks_max() const {
  const std::uint64_t fitting = flow_.bytes() / wire::kOfferEntryBytes;
  return std::clamp<std::uint64_t>(fitting, wire::kBatchBlocksMax, wire::kOfferBlocksMax);
}

Status Session::send_batch(Cp cp, const std::vector<BlockWrite>& blocks) {
  const std::uint64_t raw_bytes = blocks.size() * kBlockSize;
  const auto window_full = [&] {
    const std::uint64_t unapplied_bytes = sent_bytes_ - credited_bytes_;
    return (unapplied_bytes > 0 && unapplied_bytes + raw_bytes > std::min(window_bytes_, flow_.bytes())) ||
           unanswered_messages() >= wire::kUnansweredMessagesMax;
  };
  TARNFS_TRY(pump(false));
  while (window_full()) TARNFS_TRY(pump(true));
  TARNFS_TRY(wait_for_limit());
  Message message = packer_.pack(cp, ++sequence_, blocks);
  for (const BlockWrite& block : blocks) since_root_.add({block.address, block.checksum});
  sent_bytes_ += raw_bytes;
  const std::uint64_t wire_bytes = message.size_bytes();
  bucket_.spend(wire_bytes);
  TARNFS_TRY(channel_.send(std::move(message)));
  TARNFS_FAILPOINT("primary: Blocks sent");
  host_.on_sent(raw_bytes, wire_bytes);
  return {};
}

// Until the limit allows one more message. It may be changed meanwhile.
Status Session::wait_for_limit() {
  for (;;) {
    const std::uint64_t now_ns = options_.clock->monotonic_ns();
    bucket_.set_rate(host_.limit_bytes_per_second(), now_ns);
    const std::uint64_t wait_ns = bucket_.wait_ns(now_ns);
    if (wait_ns == 0) return {};
    TARNFS_TRY(pump(true, wait_ns));
  }
}

Status Session::send_root(const RootBlock& root) {
  while (unanswered_messages() >= wire::kUnansweredMessagesMax) TARNFS_TRY(pump(true));
  wire::Root message;
  const auto bytes = std::as_bytes(std::span(&root, 1));
  std::copy(bytes.begin(), bytes.end(), message.root.begin());
  message.base = stream_base_;
  message.block_count = since_root_.count();
  message.running_checksum = since_root_.value();
  sent_roots_.push_back({Cp{root.cp}, root.checksum});
  host_.on_root_sent(Cp{root.cp}, root.checksum);
  since_root_.reset();
  stream_base_ = Cp{root.cp};
  told_epoch_ = state_of(root).epoch;
  TARNFS_TRY(send(message));
  TARNFS_FAILPOINT("primary: Root sent");
  return {};
}

Status Session::send(const wire::AnyMessage& message) {
  Message encoded;
  encoded.header = wire::encode(message);
  return channel_.send(std::move(encoded));
}

Status Session::pump(bool wait, std::uint64_t wait_max_ns) {
  for (;;) {
    if (host_.ending()) return Error(ErrorCode::kCanceled, "replication stops");
    TARNFS_TRY(keep_alive());
    last_pump_ns_ = options_.clock->monotonic_ns();
    const std::uint64_t ping_in_ns = next_ping_ns_ - std::min(next_ping_ns_, last_pump_ns_);
    const std::uint64_t wait_ns = wait ? std::min(ping_in_ns, wait_max_ns) : 0;
    TARNFS_ASSIGN(const auto message, channel_.receive(std::chrono::nanoseconds(wait_ns)));
    if (!message) return check_alive();
    unanswered_ping_ns_.reset();
    TARNFS_TRY(handle(*message));
    wait = false;
  }
}

Status Session::keep_alive() {
  const std::uint64_t now_ns = options_.clock->monotonic_ns();
  if (now_ns < next_ping_ns_) return {};
  next_ping_ns_ = now_ns + options_.ping_interval_ms * kNsPerMs;
  if (!unanswered_ping_ns_) unanswered_ping_ns_ = now_ns;
  return send(wire::Ping{now_ns});
}

Status Session::check_alive() const {
  if (!unanswered_ping_ns_) return {};
  if (options_.clock->monotonic_ns() - *unanswered_ping_ns_ < options_.dead_ms * kNsPerMs) return {};
  return Error(ErrorCode::kDisconnected, "the mirror at " + options_.url + " has not answered for " +
                                             std::to_string(options_.dead_ms) +
                                             " ms; check the network and tarn-mirrord there");
}

Status Session::handle(const Message& message) {
  TARNFS_ASSIGN(const wire::AnyMessage decoded, wire::decode(message.header));
  if (const auto* refuse = std::get_if<wire::Refuse>(&decoded)) {
    if (refuse->code == wire::RefuseCode::kDiverged) diverged_ = true;
    return Error(ErrorCode::kRefused, "the mirror at " + options_.url + " refuses: " + refuse->text);
  }
  if (const auto* pong = std::get_if<wire::Pong>(&decoded)) {
    const std::uint64_t now_ns = options_.clock->monotonic_ns();
    if (pong->stamp > now_ns) return peer_fault("an answer to a ping that was never sent");
    host_.on_rtt(now_ns - pong->stamp);
    flow_.on_answer(pong->stamp, now_ns);
    return {};
  }
  if (const auto* welcome = std::get_if<wire::Welcome>(&decoded)) {
    if (welcome_) return peer_fault("a second Welcome");
    welcome_ = *welcome;
    return {};
  }
  if (!welcomed_) return peer_fault(std::string(wire::name_of(decoded)) + " before the Welcome");
  if (const auto* credit = std::get_if<wire::Credit>(&decoded)) return on_credit(*credit);
  if (const auto* published = std::get_if<wire::Published>(&decoded)) return on_published(*published);
  if (const auto* want = std::get_if<wire::Want>(&decoded)) return on_want(*want);
  return peer_fault("a mirror does not send " + std::string(wire::name_of(decoded)));
}

Status Session::on_credit(const wire::Credit& credit) {
  if (credit.sequence < credited_sequence_ || credit.sequence > sequence_ || credit.applied_bytes < credited_bytes_ ||
      credit.applied_bytes > sent_bytes_) {
    return peer_fault("a credit for blocks that were never sent");
  }
  flow_.on_applied(credit.applied_bytes - credited_bytes_, sent_bytes_ - credited_bytes_);
  credited_sequence_ = credit.sequence;
  credited_bytes_ = credit.applied_bytes;
  return {};
}

Status Session::on_want(const wire::Want& want) {
  if (offered_count_ == 0 || want.count != offered_count_ || want.bits.size() != (want.count + 7) / 8) {
    return peer_fault("it answered an offer that was not made");
  }
  offered_count_ = 0;
  want_ = want;
  return {};
}

Status Session::on_published(const wire::Published& published) {
  if (sent_roots_.empty() || sent_roots_.front().cp != published.cp ||
      sent_roots_.front().root_checksum != published.root_checksum) {
    return peer_fault("it published a root that was not sent");
  }
  TARNFS_FAILPOINT("primary: Published received");
  sent_roots_.pop_front();
  published_ = true;
  mirror_cp_ = published.cp;
  host_.on_mirror_published(mirror_cp_);
  return {};
}

}  // namespace tarnfs
