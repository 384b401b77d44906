#include "mirror/receiver/mirror_image.h"

#include <cstring>

#include "common/aligned_buffer.h"
#include "common/checksum.h"
#include "common/failpoint.h"
#include "common/log.h"
#include "mirror/wire/history.h"
#include "mirror/wire/payload.h"

namespace tarnfs {
namespace {

constexpr std::size_t kCompareBlocks = 256;  // read at once

Error peer_fault(const std::string& what) {
  return Error(ErrorCode::kCorrupt, "the primary broke the protocol: " + what);
}

// An error on our own side is never taken for one of the peer.
Error own_fault(const Error& error) {
  return Error(error.code() == ErrorCode::kCorrupt ? ErrorCode::kIo : error.code(), error.describe());
}

// True when the blocks that any volume fills are all zero: a new block device, or an image that was never finished.
Result<bool> is_blank(BlockDevice& device) {
  if (device.size_blocks() < kVolumeBlocksMin) return device.size_blocks() == 0;
  PageRef page = PageRef::uninitialised();
  for (const std::uint64_t block : {std::uint64_t{0}, std::uint64_t{1}, device.size_blocks() - 1}) {
    TARNFS_TRY(device.read(Address{block}, page.mutable_bytes()));
    if (!is_all_zero(page.bytes())) return false;
  }
  return true;
}

}  // namespace

Result<std::unique_ptr<MirrorImage>> MirrorImage::open(MirrorStorage& storage, const KeptOptions& kept) {
  std::unique_ptr<MirrorImage> image(new MirrorImage(storage, kept));
  TARNFS_TRY(image->load_image());
  return image;
}

Status MirrorImage::load_image() {
  auto opened = storage_.open_image();
  if (!opened.ok() && opened.error().code() == ErrorCode::kNotFound) return {};
  if (!opened.ok()) return opened.error();
  image_ = *std::move(opened);
  TARNFS_ASSIGN(const bool blank, is_blank(*image_));
  if (blank) {
    image_.reset();  // and with it the lock on the image, which create() takes again
    return {};
  }
  TARNFS_ASSIGN(superblock_, read_superblock(*image_));
  // The newest root may have been written and not flushed when its writer died. What is done from now on rests on it.
  TARNFS_TRY(image_->flush());
  TARNFS_ASSIGN(const bool committed, staging_.recover(*superblock_));
  TARNFS_TRY(committed ? finish_publish() : check_no_publish_is_open(*image_, *superblock_));
  auto newest = read_newest_root(*image_, *superblock_);
  if (newest.ok()) {
    if (newest->size_blocks != superblock_->size_blocks) {
      TARNFS_TRY(image_->flush());  // the root may not be durable yet, and the superblock rests on it
      TARNFS_TRY(grow(*newest));
    }
    TARNFS_TRY(renew_superblock(*image_, *superblock_));
    root_ = *newest;
  } else if (newest.error().code() != ErrorCode::kCorrupt) {
    return newest.error();
  }
  // Without a valid root the mirror is empty: the first copy was not finished.
  has_parts_ = !root_;
  device_.set_image(image_);
  return {};
}

Status MirrorImage::finish_publish() {
  const RootBlock root = staging_.root();
  const auto newest = read_newest_root(*image_, *superblock_);
  if (!newest.ok() && newest.error().code() != ErrorCode::kCorrupt) return newest.error();
  if (newest.ok() && newest->cp >= root.cp) {
    // It is not needed, but another one may be.
    TARNFS_TRY(check_no_publish_is_open(*image_, *superblock_));
  } else {
    TARNFS_TRY(check_image_is_marked());
    TARNFS_TRY(staging_.device()->flush());  // the same goes for the commit record
    // All of it is verified before the first block is changed.
    TARNFS_TRY(staging_.copy_to(nullptr));
    TARNFS_TRY(put_mark(PublishMark::kDecided, root, *staging_.base()));
    TARNFS_TRY(grow(root));
    TARNFS_TRY(staging_.copy_to(image_.get()));
    TARNFS_FAILPOINT("mirror: at the start, before the root write");
    TARNFS_TRY(publish_root(*image_, root));
    TARNFS_FAILPOINT("mirror: at the start, after the root write");
    log_info(storage_.name() + ": finished the publish of cp " + std::to_string(root.cp) + " after a restart");
  }
  return staging_.drop();
}

// A file of one name beside a file of another is no proof that the two belong together.
Status MirrorImage::check_image_is_marked() const {
  const std::string staging = staging_.device()->name();
  if (!staging_.base()) {
    return Error(ErrorCode::kIncompatible,
                 staging +
                     " was written by an earlier release of tarnfs, and does not say for which image; start that " +
                     "release once, which finishes it, or remove both to copy the volume anew");
  }
  const PublishMark mark = mark_of(PublishMark::kPrepared, staging_.root(), *staging_.base());
  PageRef page = PageRef::uninitialised();
  TARNFS_TRY(image_->read(place_of(mark), page.mutable_bytes()));
  if (std::memcmp(page.data(), page_of(mark).data(), kBlockSize) == 0) return {};
  return Error(ErrorCode::kRefused,
               staging + " was not written for this image, which is an older copy or another mirror's; put the image " +
                   "back that it belongs to, or remove the staging file to go on with this image as it is");
}

Status MirrorImage::attach(MirrorTarget& target) {
  target_ = &target;
  if (!root_) return {};
  return target_->adopt(*root_);
}

Status MirrorImage::create(const Superblock& superblock) {
  // What is left of an image that is gone must not decide anything in the new one.
  TARNFS_TRY(staging_.drop_left());
  TARNFS_ASSIGN(image_, storage_.create_image(superblock.size_blocks));
  // The ring of roots gets its storage now, so that a publish cannot fail on a full disk for want of it.
  const std::vector<PageRef> ring(kRootSlotsPerEnd, PageRef::zeroed());
  TARNFS_TRY(image_->write(Address{1}, ring));
  TARNFS_TRY(image_->write(Address{end_of_data_blocks(superblock.size_blocks)}, ring));
  // The copy at the end first: a torn superblock at the front is then read from there.
  const PageRef page = page_of(superblock);
  TARNFS_TRY(image_->write(Address{superblock.size_blocks - 1}, std::span(&page, 1)));
  TARNFS_TRY(image_->flush());
  TARNFS_FAILPOINT("mirror: image half made");
  TARNFS_TRY(image_->write(Address{0}, std::span(&page, 1)));
  TARNFS_TRY(image_->flush());
  superblock_ = superblock;
  device_.set_image(image_);
  return {};
}

// Room for a volume that has become larger. The published state stays what and where it is.
Status MirrorImage::prepare_growth(const Superblock& superblock) {
  if (superblock.size_blocks < superblock_->size_blocks + kGrowthBlocksMin) {
    return peer_fault("its volume grew by less than a volume can");
  }
  const Superblock larger = grown(*superblock_, superblock.size_blocks);
  Status status = prepare_grown_end(*image_, larger);
  // Without a state there is nothing that the old end is needed for.
  if (status.ok() && !root_) {
    status = finish_growth(*image_, larger, superblock_->size_blocks);
    if (status.ok()) superblock_ = larger;
  }
  if (status.ok()) return {};
  const ErrorCode code = status.error().code();
  if (code != ErrorCode::kNoSpace && code != ErrorCode::kUnsupported) stop(status.error());
  return status.error().in(storage_.name() + " cannot grow with the volume");
}

// `root` is decided: the image has its size from now on.
Status MirrorImage::grow(const RootBlock& root) {
  if (root.size_blocks == superblock_->size_blocks) return {};
  const Superblock larger = grown(*superblock_, root.size_blocks);
  TARNFS_TRY(finish_growth(*image_, larger, superblock_->size_blocks));
  superblock_ = larger;
  log_info(storage_.name() + ": the volume has " + std::to_string(root.size_blocks * kBlockSize) + " bytes now");
  return {};
}

bool MirrorImage::is_old_end(Address address) const {
  return address.value >= end_of_data_blocks(superblock_->size_blocks) && address.value < superblock_->size_blocks;
}

Result<wire::Welcome> MirrorImage::begin_session(const wire::Hello& hello) {
  if (stopped_) return *stopped_;
  auto superblock = check_superblock(hello.superblock);
  if (!superblock.ok()) return peer_fault(superblock.error().describe());
  if (volume_of(*superblock) != hello.volume) return peer_fault("its superblock is of another volume");
  if (superblock_ && volume_of(*superblock_) != hello.volume) {
    return Error(ErrorCode::kRefused, storage_.name() + " mirrors volume " + volume_of(*superblock_).to_string() +
                                          ", not " + hello.volume.to_string() +
                                          "; give this volume a mirror of its own");
  }
  if (superblock_ && superblock_->size_blocks > superblock->size_blocks) {
    return Error(ErrorCode::kRefused, storage_.name() + " is of a larger volume than the primary's");
  }
  if (!superblock_) {
    if (const Status created = create(*superblock); !created.ok()) {
      image_.reset();
      return own_fault(created.error()).in("create the mirror's image");
    }
  }
  end_session();
  if (stopped_) return *stopped_;
  session_size_blocks_ = superblock->size_blocks;
  if (session_grows()) {
    TARNFS_TRY(prepare_growth(*superblock));
  }
  TARNFS_FAILPOINT("mirror: Hello let in");
  session_open_ = true;
  epoch_ = hello.epoch;
  wire::Welcome welcome;
  welcome.has_parts = has_parts_;
  if (root_) {
    const StateName state = state_of(*root_);
    welcome.has_state = true;
    welcome.epoch = state.epoch;
    welcome.cp = state.cp;
    welcome.root_checksum = state.root_checksum;
    welcome.time = {root_->time_seconds, root_->time_nanoseconds};
  }
  return welcome;
}

void MirrorImage::end_session() {
  session_open_ = false;
  sequence_ = 0;
  applied_bytes_ = 0;
  since_root_.reset();
  compares_ = false;
  if (stopped_) return;  // what is committed must stay for the next start
  if (const Status dropped = staging_.drop(); !dropped.ok()) stop(dropped.error());
}

void MirrorImage::stop(const Error& reason) {
  stopped_ = Error(ErrorCode::kIo, "the mirror stopped after a failed write (" + reason.describe() +
                                       "); repair the cause and start tarn-mirrord again");
  log_error(storage_.name() + ": " + stopped_->message());
}

Result<wire::Credit> MirrorImage::apply(const wire::Blocks& blocks, std::span<const Frame> payload) {
  if (stopped_) return *stopped_;
  if (!session_open_) return peer_fault("blocks outside a session");
  auto credit = take(blocks, payload);
  session_open_ = credit.ok();
  return credit;
}

Result<wire::Want> MirrorImage::compare(const wire::Offer& offer, std::span<const Frame> payload) {
  if (stopped_) return *stopped_;
  if (!session_open_) return peer_fault("an offer outside a session");
  auto want = take(offer, payload);
  session_open_ = want.ok();
  return want;
}

Result<wire::Published> MirrorImage::apply(const wire::Root& message) {
  if (stopped_) return *stopped_;
  if (!session_open_) return peer_fault("a root outside a session");
  auto published = take(message);
  session_open_ = published.ok();
  return published;
}

Result<wire::Credit> MirrorImage::take(const wire::Blocks& blocks, std::span<const Frame> payload) {
  if (blocks.sequence != sequence_ + 1) return peer_fault("blocks are missing or came twice");
  if (blocks.cp <= published_cp()) return peer_fault("blocks of a cp that is published");
  for (const wire::BlockEntry& entry : blocks.entries) TARNFS_TRY(check_address(entry.address));
  TARNFS_ASSIGN(const std::vector<PageRef> pages, wire::unpack(blocks, payload));
  TARNFS_TRY(write_blocks(blocks, pages));
  for (const wire::BlockEntry& entry : blocks.entries) since_root_.add(entry);
  sequence_ = blocks.sequence;
  applied_bytes_ += blocks.raw_bytes;
  return wire::Credit{sequence_, applied_bytes_};
}

Result<wire::Want> MirrorImage::take(const wire::Offer& offer, std::span<const Frame> payload) {
  if (offer.cp <= published_cp()) return peer_fault("an offer of a cp that is published");
  TARNFS_ASSIGN(const std::vector<wire::BlockEntry> entries, wire::unpack(offer, payload));
  for (const wire::BlockEntry& entry : entries) TARNFS_TRY(check_address(entry.address));
  const std::vector<bool> found = find_in_place(entries);
  compares_ = true;
  wire::Want want;
  want.count = offer.count;
  want.bits.resize((entries.size() + 7) / 8);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (found[i]) {
      since_root_.add(entries[i]);
    } else {
      want.bits[i / 8] = static_cast<std::uint8_t>(want.bits[i / 8] | 1U << i % 8);
    }
  }
  return want;
}

// Which blocks the image has, read now: what it had before a loss of power counts for nothing. A publish flushes them.
std::vector<bool> MirrorImage::find_in_place(std::span<const wire::BlockEntry> entries) {
  std::vector<bool> found(entries.size());
  AlignedBuffer buffer(kCompareBlocks);
  for (std::size_t first = 0; first < entries.size();) {
    std::size_t count = 1;
    while (count < kCompareBlocks && first + count < entries.size() &&
           entries[first + count].address.value == entries[first].address.value + count) {
      ++count;
    }
    const std::span<std::byte> bytes = buffer.first(count);
    // What cannot be read is sent again: writing it may help.
    const bool read = image_->read(entries[first].address, bytes).ok();
    for (std::size_t i = 0; read && i < count; ++i) {
      const wire::BlockEntry& entry = entries[first + i];
      const bool equal = checksum_of(bytes.subspan(i * kBlockSize, kBlockSize)) == entry.checksum;
      // Not where a growth or what is staged since the last root still writes.
      found[first + i] = equal && !is_old_end(entry.address) && !staging_.blocks().contains(entry.address);
    }
    first += count;
  }
  return found;
}

Status MirrorImage::check_address(Address address) const {
  if (is_data_address(address, session_size_blocks_)) return {};
  return peer_fault("address " + std::to_string(address.value) + " is outside the data area");
}

Status MirrorImage::write_blocks(const wire::Blocks& blocks, const std::vector<PageRef>& pages) {
  std::vector<BlockWrite> in_place;
  std::vector<BlockWrite> staged;
  for (std::size_t i = 0; i < pages.size(); ++i) {
    const wire::BlockEntry& entry = blocks.entries[i];
    const auto used = root_ ? target_->in_use(entry.address) : Result<bool>(false);
    if (!used.ok()) return own_fault(used.error()).in("look up a block of the published state");
    (*used || is_old_end(entry.address) ? staged : in_place).push_back({entry.address, entry.checksum, pages[i]});
  }
  Status status;
  has_parts_ = has_parts_ || !in_place.empty();
  if (!staged.empty()) status = staging_.add(session_size_blocks_, staged);
  if (!staged.empty()) TARNFS_FAILPOINT("mirror: Blocks staged");
  if (status.ok()) {
    keep_under(blocks.cp, in_place);
    status = write_in_place(*image_, in_place);
  }
  TARNFS_FAILPOINT("mirror: Blocks applied");
  if (status.ok()) return {};
  // A full disk changed nothing that was promised: the primary sends these blocks again. Any other failure may have
  // lost writes that seemed done.
  if (status.error().code() == ErrorCode::kNoSpace) return status.error();
  if (status.error().code() == ErrorCode::kCorrupt) return peer_fault(status.error().message());
  stop(status.error());
  return *stopped_;
}

// What roots that are pinned have at these addresses is kept before it is overwritten.
void MirrorImage::keep_under(Cp cp, std::span<const BlockWrite> blocks) {
  std::vector<Address> addresses;
  for (const BlockWrite& block : blocks) addresses.push_back(block.address);
  kept_.keep(*image_, *target_, cp, std::move(addresses));
}

void MirrorImage::keep_under_staged(Cp cp) {
  std::vector<Address> addresses;
  for (const auto& [address, place] : staging_.blocks()) addresses.push_back(address);
  kept_.keep(*image_, *target_, cp, std::move(addresses));
}

Result<RootBlock> MirrorImage::check(const wire::Root& message) const {
  auto root = check_root_block(message.root);
  if (!root.ok()) return peer_fault(root.error().describe());
  if (root->volume != superblock_->volume || root->size_blocks != session_size_blocks_) {
    return peer_fault("a root block of another volume");
  }
  if (root->epoch != epoch_.bytes && !follows_epoch(*root, epoch_)) {
    return peer_fault("a root block of another epoch than the primary's");
  }
  if (message.base != published_cp()) return peer_fault("a root on top of another cp than the published one");
  if (root->cp <= published_cp().value) return peer_fault("a root that is not newer than the published one");
  if (root_) {
    // What is unproven to us, the primary has found out by its ring, or has compared in full.
    const Relation relation = relation_of(state_of(*root_), *root);
    if (relation != Relation::kBehind && relation != Relation::kUnproven) {
      return peer_fault("a root whose history does not have the published state");
    }
  }
  if (message.block_count != since_root_.count() || message.running_checksum != since_root_.value()) {
    return peer_fault("the root does not fit the blocks before it");
  }
  return root;
}

// The primary compares in full where nothing tells it that our state is a past one of its own; a copy that goes on
// after a cut is offered, too.
bool MirrorImage::may_be_another_line(const RootBlock& root) const {
  return compares_ && root_ && relation_of(state_of(*root_), root) == Relation::kUnproven;
}

Result<wire::Published> MirrorImage::take(const wire::Root& message) {
  TARNFS_ASSIGN(const RootBlock root, check(message));
  if (may_be_another_line(root)) kept_.begin_line(Cp{root.cp});
  // A write to the published root's own slot may leave neither of the two: then the staging file decides, too.
  const bool over_published =
      root_ && root_slot_of(Cp{root_->cp}, root_->size_blocks) == root_slot_of(Cp{root.cp}, root.size_blocks);
  const Status published = staging_.empty() && !over_published ? publish(root) : publish_staged(root);
  if (!published.ok()) {
    stop(published.error());
    return *stopped_;
  }
  root_ = root;
  epoch_ = state_of(root).epoch;
  has_parts_ = false;
  compares_ = false;
  since_root_.reset();
  return wire::Published{Cp{root.cp}, root.checksum};
}

Status MirrorImage::publish(const RootBlock& root) {
  TARNFS_FAILPOINT("mirror: before the root write");
  TARNFS_TRY(publish_root(*image_, root));
  TARNFS_FAILPOINT("mirror: after the root write");
  TARNFS_TRY(grow(root));
  return target_->adopt(root);
}

// And makes everything that was written to the image durable.
Status MirrorImage::put_mark(PublishMark::Kind kind, const RootBlock& root, const StateName& base) {
  const PublishMark mark = mark_of(kind, root, base);
  const PageRef page = page_of(mark);
  TARNFS_TRY(image_->write(place_of(mark), std::span(&page, 1)));
  return image_->flush();
}

Status MirrorImage::publish_staged(const RootBlock& root) {
  const StateName base = state_of(*root_);
  TARNFS_TRY(put_mark(PublishMark::kPrepared, root, base));
  TARNFS_FAILPOINT("mirror: before the commit record");
  TARNFS_TRY(staging_.commit(root, base));
  TARNFS_FAILPOINT("mirror: after the commit record");
  device_.show(staging_.blocks(), staging_.device());
  TARNFS_TRY(target_->adopt(root));
  TARNFS_FAILPOINT("mirror: staged state shown");
  TARNFS_TRY(put_mark(PublishMark::kDecided, root, base));
  TARNFS_TRY(grow(root));
  keep_under_staged(Cp{root.cp});
  TARNFS_TRY(staging_.copy_to(image_.get()));
  TARNFS_FAILPOINT("mirror: staged blocks copied");
  TARNFS_TRY(publish_root(*image_, root));
  TARNFS_FAILPOINT("mirror: after the root write of a staged state");
  device_.hide();
  TARNFS_TRY(staging_.drop());
  TARNFS_FAILPOINT("mirror: staging file removed");
  return {};
}

}  // namespace tarnfs
