#include "fs/engine/consistency_point.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "common/failpoint.h"

namespace tarnfs {
namespace {

// Notes how long it was held at most. Consistency points run one at a time, so nobody else writes `longest_ns`.
class TARNFS_SCOPED_CAPABILITY TimedWriteLock {
 public:
  TimedWriteLock(SharedMutex& mutex, Clock& clock, std::atomic<std::uint64_t>& longest_ns) TARNFS_ACQUIRE(mutex)
      : mutex_(mutex), clock_(clock), longest_ns_(longest_ns) {
    mutex_.lock();
    began_ns_ = clock_.monotonic_ns();
  }
  ~TimedWriteLock() TARNFS_RELEASE() {
    const std::uint64_t held_ns = clock_.monotonic_ns() - began_ns_;
    mutex_.unlock();
    if (held_ns > longest_ns_.load()) longest_ns_.store(held_ns);
  }
  TimedWriteLock(const TimedWriteLock&) = delete;
  TimedWriteLock& operator=(const TimedWriteLock&) = delete;

 private:
  SharedMutex& mutex_;
  Clock& clock_;
  std::atomic<std::uint64_t>& longest_ns_;
  std::uint64_t began_ns_ = 0;
};

// The inode's place in its page of the inode file.
void put_record(PageRef& page, const FrozenInode& frozen) {
  InodeRecord record;
  if (!frozen.deleted) {
    record = frozen.record;
    if (record.layout != kInodeInlineTarget) store_tree(record, frozen.written_tree);
  }
  std::byte* const place = page.mutable_bytes().data() + frozen.record.number % kInodesPerBlock * sizeof record;
  std::memcpy(place, &record, sizeof record);
}

// A directory's page was changed because it is in use: operations took it out of the cache, where its mark was.
std::optional<BlockCache::Use> use_of_content(const InodeRecord& record, bool is_metadata) {
  if (is_metadata) return BlockCache::Use::kAskedFor;
  if (S_ISLNK(record.mode)) return BlockCache::Use::kNotYet;
  return std::nullopt;
}

InodeRecord new_reserved_inode(InodeNumber number) {
  InodeRecord record;
  record.number = number.value;
  record.mode = S_IFREG | 0600;
  record.link_count = 1;
  return record;
}

}  // namespace

TreeEnvironment ConsistencyPoint::environment() {
  return TreeEnvironment{*engine_.writer_, *engine_.free_map_, *engine_.writer_, Cp{root_.cp}};
}

// Of regular files, the only ones whose data blocks may have other references.
TreeEnvironment ConsistencyPoint::environment_of_files() {
  return TreeEnvironment{*engine_.writer_, sharing_allocator_, *engine_.writer_, Cp{root_.cp}};
}

// The only moment in which operations wait for a consistency point.
bool ConsistencyPoint::close_generation(bool force) {
  ShareMap::Claims old_claims;  // freed when the gate is open again
  const std::uint64_t started_ns = engine_.clock_.monotonic_ns();
  engine_.gate_.close();
  {
    MutexLock lock(engine_.dirty_mutex_);
    inodes_.swap(engine_.dirty_);
  }
  {
    MutexLock lock(engine_.orphans_mutex_);
    orphans_changed_ = std::exchange(engine_.orphans_changed_, false) && !engine_.orphans_unreadable_;
    if (orphans_changed_) orphans_.assign(engine_.orphans_.begin(), engine_.orphans_.end());
  }
  const bool anything = force || !inodes_.empty() || orphans_changed_;
  if (anything) {
    generation_ = engine_.open_generation_++;
    root_ = engine_.newest_root();
    begins_epoch_ = !std::exchange(engine_.epoch_begun_, true);
    if (engine_.journal_ != nullptr && begins_epoch_) engine_.journal_->end_epoch();
    if (engine_.journal_ != nullptr) set_journal_start(root_, engine_.journal_->head());
    root_.next_inode = engine_.next_inode_.load();
    engine_.readable_inode_page_ = 0;
    root_.inode_count = engine_.inode_count_.load();
    root_.protected_inodes = static_cast<std::uint64_t>(std::max<std::int64_t>(0, engine_.protected_inodes_.load()));
    old_claims = engine_.shares_->take_claims_before(engine_.open_generation_);
  }
  engine_.gate_.open();
  const std::uint64_t swap_ns = engine_.clock_.monotonic_ns() - started_ns;
  if (swap_ns > engine_.swap_longest_ns_.load()) engine_.swap_longest_ns_.store(swap_ns);
  if (!anything) return false;
  reserve_before_blocks_ = root_.reserve_blocks;
  root_.format_version = kFormatVersion;
  root_.previous_checksum = root_.checksum;
  if (begins_epoch_) begin_epoch();
  root_.cp += 1;
  TARNFS_ASSERT(root_.cp == generation_);
  return true;
}

// Each opening of the volume has an epoch of its own. So a cp of an epoch names one state, whatever copies were made of
// the image and went on, and a mirror can tell whose state it has.
void ConsistencyPoint::begin_epoch() {
  if (root_.history_count == kHistoryMax) {
    std::move(root_.history.begin() + 1, root_.history.end(), root_.history.begin());
    root_.history_count -= 1;
  }
  root_.history.at(root_.history_count++) = {root_.epoch, root_.cp};
  root_.epoch = engine_.clock_.random_id().bytes;
}

Status ConsistencyPoint::complete() {
  engine_.writer_->begin(Cp{root_.cp});
  engine_.writing_generation_ = generation_;
  engine_.free_map_->begin(Cp{root_.cp});
  if (const std::uint64_t size_blocks = engine_.growing_to_blocks_.exchange(0); size_blocks != 0) {
    grows_ = true;
    root_.size_blocks = size_blocks;
    root_.free_map.size_bytes = map_pages_of(size_blocks) * kBlockSize;
    TARNFS_TRY(engine_.free_map_->prepare_growth(size_blocks));
  }
  freeze_inodes();
  TARNFS_TRY(count_shares());
  TARNFS_TRY(write_inodes());
  TARNFS_TRY(write_orphans());
  TARNFS_TRY(write_share_map());
  TARNFS_TRY(write_inode_file());
  TARNFS_TRY(write_free_map());
  TARNFS_TRY(publish());
  install();
  return {};
}

void ConsistencyPoint::freeze_inodes() {
  // In the order of their numbers, so that neighbours in the inode file are written together.
  std::sort(inodes_.begin(), inodes_.end(), [](const auto& a, const auto& b) { return a->number < b->number; });
  frozen_.reserve(inodes_.size());
  for (const InodePtr& inode : inodes_) {
    const TimedWriteLock lock(inode->mutex, engine_.clock_, engine_.lock_longest_ns_);
    // An operation of the next generation may have frozen it before us.
    if (inode->dirty_generation == generation_) inode->freeze();
    TARNFS_ASSERT(inode->frozen != nullptr);
    frozen_.push_back(inode->frozen);
  }
}

// Before anything is released: each of these blocks was in use at the end of the generation before this one, and who
// gives it up now may have been the only one.
Status ConsistencyPoint::count_shares() {
  for (const auto& frozen : frozen_) {
    for (SharedPages::Cursor page(frozen->delta.shared); !page.at_end(); page.advance()) {
      TARNFS_TRY(engine_.shares_->add(page.pointer()));
    }
  }
  return {};
}

Status ConsistencyPoint::write_inodes() {
  for (std::size_t i = 0; i < inodes_.size(); ++i) {
    FrozenInode& frozen = *frozen_[i];
    const InodeRecord& record = frozen.record;
    frozen.written_tree = tree_of(record);
    if (record.layout == kInodeInlineTarget || !frozen.delta.changes_pages()) continue;
    const bool content_is_metadata = S_ISDIR(record.mode) || (record.flags & kInodeFlagAttributes) != 0;
    engine_.writer_->set_caching_data(use_of_content(record, content_is_metadata));
    const bool may_share = S_ISREG(record.mode) && !content_is_metadata;
    const InodeDelta& delta = frozen.delta;
    auto written = rewrite_tree(frozen.written_tree, delta.removed, delta.pages, delta.placed, delta.shared,
                                may_share ? environment_of_files() : environment(), 0, delta.reserved);
    if (!written.ok()) return written.error().in("inode " + std::to_string(record.number));
    frozen.written_tree = std::move(written).value();
    root_.reserve_blocks += frozen.deleted ? 0 : frozen.written_tree.reserve_blocks;
    root_.reserve_blocks -= std::min(root_.reserve_blocks, reserve_of(record));
  }
  return {};
}

// The list of orphans as it was when the generation was closed; written anew when it changed.
Status ConsistencyPoint::write_orphans() {
  if (!orphans_changed_) return {};
  TARNFS_ASSIGN(InodeRecord record, reserved_inode(kOrphanFile));
  if (record.mode == 0) {
    if (orphans_.empty()) return {};
    record = new_reserved_inode(kOrphanFile);
  }
  const auto bytes = std::as_bytes(std::span<const std::uint64_t>(orphans_));
  record.size_bytes = bytes.size();
  RangeSet all;
  all.add(0, kEndOfFile);
  PageMap pages;
  for (std::size_t done = 0; done < bytes.size(); done += kBlockSize) {
    pages.put(done / kBlockSize, PageRef::copy_of(bytes.subspan(done, std::min(kBlockSize, bytes.size() - done))));
  }
  engine_.writer_->set_caching_data(BlockCache::Use::kNotYet);
  TARNFS_ASSIGN(const TreeRoot tree, rewrite_tree(tree_of(record), all, pages, {}, {}, environment()));
  add_reserved_file(record, tree);
  return {};
}

// After everything that releases blocks of files.
Status ConsistencyPoint::write_share_map() {
  shares_changed_ = engine_.shares_->changed();
  if (!shares_changed_) return {};
  TARNFS_ASSIGN(InodeRecord record, reserved_inode(kShareFile));
  if (record.mode == 0) record = new_reserved_inode(kShareFile);
  record.size_bytes = share_pages_of(root_.size_blocks) * kBlockSize;
  engine_.writer_->set_caching_data(BlockCache::Use::kNotYet);
  TARNFS_ASSIGN(const TreeRoot tree, engine_.shares_->write_tree(environment()));
  add_reserved_file(record, tree);
  return {};
}

// No operation changes these, so they are in no list of dirty inodes. In the order of their numbers.
void ConsistencyPoint::add_reserved_file(const InodeRecord& record, const TreeRoot& tree) {
  FrozenInode& file = *reserved_files_.emplace_back(std::make_unique<FrozenInode>());
  file.record = record;
  file.written_tree = tree;
}

// As the newest root has it.
Result<InodeRecord> ConsistencyPoint::reserved_inode(InodeNumber number) {
  TARNFS_ASSIGN(const PageRef page, inode_page(tree_of(root_.inode_file), number.value / kInodesPerBlock));
  InodeRecord record;
  std::memcpy(static_cast<void*>(&record), page.data() + number.value % kInodesPerBlock * sizeof record, sizeof record);
  return record;
}

Result<PageRef> ConsistencyPoint::inode_page(const TreeRoot& tree, std::uint64_t index) {
  TARNFS_ASSIGN(const BlockPointer pointer, find_pointer(tree, index, *engine_.writer_));
  if (pointer.is_hole()) return PageRef::zeroed();
  return engine_.writer_->get(pointer);
}

// What is written to the inode file, in the order of the inodes' numbers.
std::vector<const FrozenInode*> ConsistencyPoint::written_slots() const {
  const auto by_number = [](const auto* slot, const auto* other) { return slot->record.number < other->record.number; };
  std::vector<const FrozenInode*> slots;
  slots.reserve(frozen_.size() + reserved_files_.size());
  for (const auto& frozen : frozen_) slots.push_back(frozen.get());
  for (const auto& file : reserved_files_) {
    slots.insert(std::lower_bound(slots.begin(), slots.end(), file.get(), by_number), file.get());
  }
  return slots;
}

Status ConsistencyPoint::write_inode_file() {
  const TreeRoot inode_file = tree_of(root_.inode_file);
  const std::vector<const FrozenInode*> slots = written_slots();
  RangeSet removed;
  PageMap pages;
  for (auto slot = slots.begin(); slot != slots.end();) {
    const std::uint64_t index = (*slot)->record.number / kInodesPerBlock;
    TARNFS_ASSIGN(PageRef page, inode_page(inode_file, index));
    page.make_unique();
    for (; slot != slots.end() && (*slot)->record.number / kInodesPerBlock == index; ++slot) {
      put_record(page, **slot);
    }
    if (is_all_zero(page.bytes())) {
      removed.add(index, index + 1);
    } else {
      pages.put(index, std::move(page));
    }
  }
  engine_.writer_->set_caching_data(BlockCache::Use::kNotYet);
  TARNFS_ASSIGN(const TreeRoot tree, rewrite_tree(inode_file, removed, pages, {}, {}, environment()));
  store_tree(root_.inode_file, tree);
  root_.inode_file.size_bytes = (root_.next_inode + kInodesPerBlock - 1) / kInodesPerBlock * kBlockSize;
  return {};
}

Status ConsistencyPoint::write_free_map() {
  engine_.writer_->set_caching_data(BlockCache::Use::kNotYet);
  TARNFS_ASSIGN(const TreeRoot tree, engine_.free_map_->write_tree(*engine_.writer_, Cp{root_.cp}));
  store_tree(root_.free_map, tree);
  root_.used_blocks = engine_.free_map_->used_blocks();
  root_.allocation_cursor = engine_.free_map_->cursor();
  return {};
}

Status ConsistencyPoint::publish() {
  TARNFS_TRY(engine_.writer_->finish());
  const Timestamp now = engine_.clock_.now();
  root_.time_seconds = now.seconds;
  root_.time_nanoseconds = now.nanoseconds;
  seal(root_);
  if (engine_.stopped_) return Error(ErrorCode::kIo, "the volume stopped");  // a failed write to the journal
  TARNFS_FAILPOINT("primary: before the root write");
  TARNFS_TRY(publish_root(engine_.device_, root_));
  TARNFS_FAILPOINT("primary: after the root write");
  if (!grows_) return {};
  const Superblock smaller = engine_.superblock();
  return finish_growth(engine_.device_, grown(smaller, root_.size_blocks), smaller.size_blocks);
}

void ConsistencyPoint::install() {
  Engine& engine = engine_;
  std::vector<std::pair<InodeNumber, std::uint64_t>> orphans_left;  // how many blocks those inodes still have
  if (grows_) {
    engine.note_growth(root_);
  } else {
    WriteLock lock(engine.root_mutex_);
    engine.root_ = root_;
  }
  engine.published_cp_ = root_.cp;
  engine.name_log_.drop_up_to(Cp{root_.cp});
  if (engine.journal_ != nullptr && begins_epoch_) engine.journal_->begin_epoch(state_of(root_).epoch);
  if (engine.journal_ != nullptr) engine.journal_->release(journal_start_of(root_));
  for (std::size_t i = 0; i < inodes_.size(); ++i) {
    const TimedWriteLock lock(inodes_[i]->mutex, engine.clock_, engine.lock_longest_ns_);
    if (inodes_[i]->record.layout != kInodeInlineTarget) store_tree(inodes_[i]->record, frozen_[i]->written_tree);
    inodes_[i]->frozen = nullptr;
    if (frozen_[i]->deleted) engine.inodes_.erase(inodes_[i]->number);
    if (frozen_[i]->record.link_count == 0) {
      orphans_left.emplace_back(inodes_[i]->number, engine.blocks_left_of_orphan(*inodes_[i]));
    }
  }
  inodes_.clear();  // so that those that are clean now are in nobody's use
  if (orphans_changed_) engine.inodes_.erase(kOrphanFile);
  if (shares_changed_) engine.shares_->install();
  engine.writer_->forget_written();
  std::uint64_t freed_blocks = 0;
  for (const FreeMap::Run& run : engine.free_map_->released_by(Cp{root_.cp})) {
    engine.cache_.forget(Address{run.first}, run.count);
    freed_blocks += run.count;
  }
  engine.pins_.note_root(Cp{root_.cp}, freed_blocks, engine.clock_.monotonic_ns());
  engine.limit_pins();
  engine.free_map_->release_held(engine.pins_.release_point(Cp{root_.cp}));
  engine.release_superseded(root_.cp);
  const std::uint64_t held = engine.free_map_->held_blocks();
  const std::uint64_t allocatable = engine.free_map_->unused_blocks();
  const std::int64_t promised = engine.promised_blocks_[generation_ & 1].exchange(0);
  {
    MutexLock lock(engine.usage_mutex_);
    engine.held_blocks_ = held;
    engine.ledger_->offer(promised + static_cast<std::int64_t>(allocatable + reserve_before_blocks_) -
                          static_cast<std::int64_t>(engine.allocatable_before_blocks_ + root_.reserve_blocks));
    engine.coming_space_.published(generation_);
    for (const auto& [number, left] : orphans_left) {
      if (!engine.coming_space_.has_orphan(number)) continue;
      if (left == 0) engine.coming_space_.forget_orphan(number);
      if (left != 0) engine.coming_space_.set_orphan(number, left);
    }
  }
  engine.allocatable_before_blocks_ = allocatable;
  engine.writing_generation_ = 0;
  engine.dirty_bytes_[generation_ & 1].store(0);
  engine.cp_count_.fetch_add(1);
  if (engine.options_.feed != nullptr) engine.options_.feed->on_published(root_);
}

}  // namespace tarnfs
