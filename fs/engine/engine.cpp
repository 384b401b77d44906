#include "fs/engine/engine.h"

#include <algorithm>
#include <cstring>

#include "common/log.h"

namespace tarnfs {
namespace {

constexpr std::uint64_t kInodesInMemoryMin = 4096;
constexpr std::uint64_t kBytesPerCachedInode = 1024;

Status check_free_map_fields(const RootBlock& root) {
  const std::uint64_t data_blocks = end_of_data_blocks(root.size_blocks) - kFirstDataBlock;
  if (root.free_map.height == height_for(map_pages_of(root.size_blocks)) && root.used_blocks <= data_blocks) return {};
  return Error(ErrorCode::kCorrupt, "the root block's free map cannot be; run fsck.tarnfs");
}

}  // namespace

Result<std::unique_ptr<Volume>> Volume::open(BlockDevice& device, const VolumeOptions& options) {
  if (options.mode == VolumeMode::kMirror && options.feed != nullptr) {
    return Error(ErrorCode::kInvalid, "a mirror's read-only view announces nothing; its receiver tells of new roots");
  }
  if (options.mode != VolumeMode::kReadOnly && !options.replay_journal) {
    return Error(ErrorCode::kInvalid, "only a read-only volume can be opened without its journal");
  }
  if (options.mode == VolumeMode::kReadWrite || options.feed != nullptr) {
    // The newest root and the end of the journal may have been written but not flushed when their writer died. What
    // is done from now on rests on them, and mirrors are sent them, so they must not vanish any more.
    TARNFS_TRY(device.flush());
  }
  Superblock superblock;
  RootBlock root;
  root.cp = 0;
  if (options.mode != VolumeMode::kMirror) {
    TARNFS_ASSIGN(superblock, read_superblock(device));
    TARNFS_ASSIGN(root, read_newest_root(device, superblock));
    if (root.size_blocks != superblock.size_blocks) {
      // A growth was cut off behind its commit. Nothing may be written to the new size before the superblocks say it.
      const std::uint64_t old_size_blocks = superblock.size_blocks;
      superblock = grown(superblock, root.size_blocks);
      if (options.mode == VolumeMode::kReadWrite) TARNFS_TRY(finish_growth(device, superblock, old_size_blocks));
    }
    if (options.mode == VolumeMode::kReadWrite) TARNFS_TRY(renew_superblock(device, superblock));
    if (const Status fields = check_free_map_fields(root); !fields.ok()) return fields.error().in(device.name());
  }
  auto engine = std::make_unique<Engine>(device, options, superblock, root);
  if (options.mode != VolumeMode::kMirror) TARNFS_TRY(engine->recover());
  if (options.mode == VolumeMode::kReadWrite) TARNFS_TRY(engine->start());
  return std::unique_ptr<Volume>(std::move(engine));
}

Engine::Engine(BlockDevice& device, const VolumeOptions& options, const Superblock& superblock, const RootBlock& root)
    : device_(device),
      options_(options),
      mode_(options.mode),
      access_times_(options.access_times),
      superblock_(superblock),
      clock_(*options.clock),
      cache_(device, options.cache_limit_bytes),
      inodes_(std::max(kInodesInMemoryMin, options.cache_limit_bytes / 4 / kBytesPerCachedInode)),
      root_(root),
      published_cp_(root.cp),
      size_blocks_(root.size_blocks),
      open_generation_(root.cp + 1),
      next_inode_(std::max(root.next_inode, kFirstFreeInode.value)),
      inode_count_(root.inode_count),
      protected_inodes_(static_cast<std::int64_t>(root.protected_inodes)) {
  if (options.mode == VolumeMode::kMirror) return;
  writer_ = std::make_unique<BlockWriter>(device, cache_, options.feed, [this] { wake_dirty_waiters(); });
  free_map_ = std::make_unique<FreeMap>(root, *writer_);
  shares_ = std::make_unique<ShareMap>(*writer_);
  allocatable_before_blocks_ = free_map_->unused_blocks();
  ledger_ = std::make_unique<SpaceLedger>(allocatable_before_blocks_);
  set_reserves(false, true);
  ledger_->take(root.reserve_blocks);
  any_reserve_ = root.reserve_blocks != 0;
}

Engine::~Engine() {
  {
    MutexLock lock(cp_mutex_);
    closing_ = true;
    cp_changed_.notify_all();
  }
  if (cp_thread_.joinable()) cp_thread_.join();
}

Status Engine::start() {
  cp_thread_ = std::thread([this] { run_cp_thread(); });
  return replayed_records_ > 0 ? request_cp(true) : Status();
}

// What recovery found is in memory already, as after open() for kReadWrite.
Status Engine::make_writable() {
  if (mode_ == VolumeMode::kReadWrite) return {};
  if (mode_ == VolumeMode::kMirror) return Error(ErrorCode::kReadOnly, device_.name() + " is a mirror");
  if (unwritable_) return Error(ErrorCode::kReadOnly, unwritable_->describe());
  TARNFS_TRY(device_.flush());
  TARNFS_ASSIGN(const Superblock on_disk, read_superblock(device_));
  if (on_disk.size_blocks != size_blocks_) {
    TARNFS_TRY(finish_growth(device_, superblock(), on_disk.size_blocks));
  }
  TARNFS_TRY(renew_superblock(device_, superblock()));
  mode_ = VolumeMode::kReadWrite;
  return start();
}

Status Engine::close() {
  if (mode_ != VolumeMode::kReadWrite) return {};
  Status status;
  if (cp_thread_.joinable()) {
    if (!stopped_) status = request_cp(false);
    {
      MutexLock lock(cp_mutex_);
      closing_ = true;
      cp_changed_.notify_all();
    }
    cp_thread_.join();
  }
  if (shut_down_) return {};
  if (stopped_) {
    MutexLock lock(cp_mutex_);
    return Error(ErrorCode::kIo, "the volume had stopped: " + stop_reason_);
  }
  return status;
}

// What operations leave alone follows from the size of the volume, and from whether blocks are shared, which they are
// from now on with `shares`. Consistency points may have to rewrite all of the share map, whatever operations were
// promised: from the first shared block on they have a reserve for it. False, unless it `must` be: there is no space
// for that.
bool Engine::set_reserves(bool shares, bool must) {
  MutexLock lock(reserves_mutex_);
  const std::uint64_t size_blocks = size_blocks_.load();
  const bool sharing = sharing_ || shares;
  const SpaceReserves reserves{.cp_blocks = cp_reserve_blocks_of(map_pages_of(size_blocks)) +
                                            (sharing ? share_map_reserve_blocks(size_blocks) : 0),
                               .deletion_blocks = deletion_reserve_blocks_of(size_blocks),
                               .largest_deletion_blocks = largest_deletion_blocks_of(size_blocks),
                               .accepted_blocks = accepted_reserve_blocks_of(size_blocks)};
  if (!ledger_->set_reserves(reserves, must)) return false;
  sharing_ = sharing;
  return true;
}

std::int64_t Engine::dirty_bytes() const {
  return dirty_bytes_[0].load() + dirty_bytes_[1].load();
}

// What is dirty and not written yet. It falls while a consistency point writes.
std::int64_t Engine::unwritten_bytes() const {
  const std::int64_t dirty = dirty_bytes();
  const std::uint64_t writing = writing_generation_.load();
  if (writing == 0) return dirty;
  const auto written = static_cast<std::int64_t>(writer_->written_pages() * kBlockSize);
  return dirty - std::min(dirty_bytes_[writing & 1].load(), written);
}

void Engine::wake_dirty_waiters() {
  if (dirty_waiters_.load() == 0) return;
  MutexLock lock(cp_mutex_);
  cp_changed_.notify_all();
}

// Slows writers down before dirty memory passes its limit; refuses changes where there can be none. Pages stay in
// memory until the root is published, so what is not written may be half of the limit: the other half is being
// published. Content is begun with early, so that the disk is never idle beside a stream. Names are gathered for
// longer: a consistency point costs one page for each part of a directory that changed, however many names in it did.
Status Engine::before_change(Intent intent, WaitNote& wait) {
  if (mode_ != VolumeMode::kReadWrite) return Error(ErrorCode::kReadOnly);
  if (changes_.load() != Changes::kTaken) TARNFS_TRY(obey_policy(intent));
  const auto limit_bytes = static_cast<std::int64_t>(options_.dirty_limit_bytes);
  const bool content = changes_content(intent);
  if (dirty_bytes() >= (content ? limit_bytes / 4 : limit_bytes * 3 / 8)) {
    want_cp_soon();
    const std::int64_t wait_bytes = content ? limit_bytes * 3 / 8 : limit_bytes / 2;
    if (unwritten_bytes() >= wait_bytes) TARNFS_TRY(wait_for_writes(intent, wait_bytes, wait));
  }
  if (much_is_promised()) want_cp_soon();
  if (stopped_) return stopped_error(ErrorCode::kReadOnly);
  return {};
}

void Engine::set_changes(Changes changes) {
  MutexLock lock(cp_mutex_);
  changes_ = changes;
  cp_changed_.notify_all();
}

// Holds a change back, or refuses it, as set_changes() says. Not counted as a wait for a consistency point.
Status Engine::obey_policy(Intent intent) {
  if (intent == Intent::kOptional) return Error(ErrorCode::kNoSpace);
  if (!waits(intent) || intent == Intent::kReclaim) return {};
  if (changes_.load() == Changes::kRefused) return Error(ErrorCode::kReadOnly);
  if (NoWaitScope::is_active()) return Error(ErrorCode::kWouldWait);
  MutexLock lock(cp_mutex_);
  while (changes_.load() == Changes::kWait && !stopped_ && !closing_) cp_changed_.wait(cp_mutex_);
  if (changes_.load() == Changes::kRefused) return Error(ErrorCode::kReadOnly);
  return {};
}

// Whether what the open generation was promised is more than is left. Promises are upper bounds, and a consistency
// point makes most of them free again: one that begins in time spares operations the wait for space.
bool Engine::much_is_promised() const {
  constexpr std::int64_t kPromisedBlocksMin = 4096;
  const std::uint64_t writing = writing_generation_.load();
  std::int64_t promised = promised_blocks_[0].load() + promised_blocks_[1].load();
  if (writing != 0) promised -= promised_blocks_[writing & 1].load();
  return promised >= kPromisedBlocksMin && promised > static_cast<std::int64_t>(ledger_->available_to_users_blocks());
}

// Until less than `wait_bytes` is unwritten.
Status Engine::wait_for_writes(Intent intent, std::int64_t wait_bytes, WaitNote& wait) {
  if (intent == Intent::kOptional) return Error(ErrorCode::kNoSpace);
  if (!waits(intent)) return {};
  if (NoWaitScope::is_active()) return Error(ErrorCode::kWouldWait);
  MutexLock lock(cp_mutex_);
  dirty_waiters_.fetch_add(1);
  const std::uint64_t began_ns = clock_.monotonic_ns();
  while (unwritten_bytes() >= wait_bytes && !stopped_ && !closing_) cp_changed_.wait(cp_mutex_);
  const std::uint64_t waited_ns = clock_.monotonic_ns() - began_ns;
  dirty_waiters_.fetch_sub(1);
  dirty_wait_.add(waited_ns);
  // A stream of writes that is faster than the disk waits for the disk; whoever else has to is held up by a
  // consistency point.
  if (!changes_content(intent)) wait.waited_ns += waited_ns;
  return {};
}

// Books what the operation used to its generation. Inside the gate.
void Engine::settle(const Operation& op) {
  if (ledger_ == nullptr) return;
  promised_blocks_[op.generation & 1].fetch_add(static_cast<std::int64_t>(op.blocks_used));
  dirty_bytes_[op.generation & 1].fetch_add(op.dirty_bytes_added);
  ledger_->give_back(static_cast<std::int64_t>(op.blocks_promised) - static_cast<std::int64_t>(op.blocks_used));
}

Status Engine::load_missing(Attempt& attempt, std::uint64_t view) {
  constexpr std::size_t kBlocksPerOperationMax = 1U << 20;
  const BlockPointer missing = attempt.missing;
  const auto fail = [&](const Error& error) -> Status {
    // Outside the gate the block may have been freed and reused, or a mirror's view have moved on: the operation runs
    // again. When it asks for the very same block, that one is damaged.
    if (view_.load() != view || attempt.failed != missing) {
      attempt.failed = missing;
      return {};
    }
    ++error_count_;
    log_error(error.describe());
    if (attempt.missing_is_dispensable) {
      attempt.held[missing.address] = {missing, PageRef()};
      return {};
    }
    return Error(error.code() == ErrorCode::kCorrupt ? ErrorCode::kCorrupt : ErrorCode::kIo, error.describe());
  };
  if (attempt.held.size() > kBlocksPerOperationMax) {
    return Error(ErrorCode::kCorrupt, device_.name() + ": an operation needs more blocks than any tree can have");
  }
  // A birth in the future is found by fsck; here only what would be read matters.
  const Cp any{~std::uint64_t{0}};
  if (auto status = check_pointer(missing, size_blocks_.load(), any); !status.ok()) return fail(status.error());
  if (NoWaitScope::is_active() && !block_loads_.is_short()) return Error(ErrorCode::kWouldWait);
  auto page = block_loads_.timed(clock_, [&] { return cache_.load(missing); });
  if (!page.ok()) return fail(page.error());
  attempt.held[missing.address] = {missing, std::move(page).value()};
  return {};
}

Superblock Engine::superblock() const {
  ReadLock lock(root_mutex_);
  return superblock_;
}

RootBlock Engine::newest_root() const {
  ReadLock lock(root_mutex_);
  return root_;
}

// Of the root's 4 KiB, what an operation needs for an inode that is not in memory.
std::optional<TreeRoot> Engine::newest_inode_file() const {
  ReadLock lock(root_mutex_);
  if (root_.cp == 0) return std::nullopt;
  return tree_of(root_.inode_file);
}

VolumeStatus Engine::status() {
  VolumeStatus status;
  status.superblock = superblock();
  status.root = newest_root();
  status.usage = usage();
  status.dirty_bytes = static_cast<std::uint64_t>(std::max<std::int64_t>(0, dirty_bytes()));
  status.held_blocks = held_blocks_.load();
  if (takes_changes() && journal_ != nullptr) {
    status.journal_size_bytes = journal_->size_blocks() * kBlockSize;
    status.journal_used_bytes = journal_->used_blocks() * kBlockSize;
  }
  status.cache_bytes = cache_.used_bytes();
  status.cp_count = cp_count_.load();
  status.error_count = error_count_.load();
  status.cp_swap_longest_ns = swap_longest_ns_.load();
  status.cp_lock_longest_ns = lock_longest_ns_.load();
  status.cp_wait = cp_wait_.summary();
  status.dirty_wait = dirty_wait_.summary();
  status.fsync_cp_count = fsync_cp_count_.load();
  status.stopped = stopped_;
  status.shut_down = shut_down_;
  MutexLock lock(cp_mutex_);
  status.stop_reason = stop_reason_;
  return status;
}

}  // namespace tarnfs
