// Orphans: inodes without links, from the moment when the last name goes to the moment when their blocks are freed.
//
// An orphan that somebody holds stays whole. When nobody does, it is deleted with the next consistency point; a large
// one is cut down by a part with each, so that none takes long. The orphan file keeps the list over a crash.
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <span>

#include "common/log.h"
#include "fs/engine/engine.h"

namespace tarnfs {
namespace {

constexpr std::uint64_t kBlocksDeletedAtOnceMax = 65536;
constexpr std::uint64_t kPagesCutAtOnceMin = 65536;

}  // namespace

void Engine::add_orphan(InodeNumber number) {
  MutexLock lock(orphans_mutex_);
  orphans_.insert(number.value);
  orphans_changed_ = true;
}

bool Engine::is_orphan(InodeNumber number) {
  MutexLock lock(orphans_mutex_);
  return orphans_.contains(number.value);
}

// Lets an inode's slot, blocks and attributes go with the next consistency point.
void Engine::delete_content(Operation& op, Inode& inode) {
  begin_change(op, inode);
  inode.deleted = true;
  cut_pages(op, inode, 0, kEndOfFile);
}

// Frees an inode without links that nobody holds any more.
Status Engine::reclaim(InodeNumber number, Intent intent) {
  return run(intent, 2 * blocks_for_inode(), [&](Operation& op) -> Status {
    TARNFS_ASSIGN(const InodePtr inode, get_inode(op, number));
    WriteLock lock(inode->mutex);
    if (inode->deleted || inode->record.link_count != 0 || !lookups_.is_zero(number)) return {};
    if (inode->record.block_count > kBlocksDeletedAtOnceMax) {
      {
        MutexLock usage_lock(usage_mutex_);
        coming_space_.set_orphan(number, blocks_left_of_orphan(*inode));
      }
      MutexLock orphans_lock(orphans_mutex_);
      shrinking_.push_back(number);
      return {};
    }
    TARNFS_ASSIGN(const InodePtr attributes, get_attribute_inode(op, *inode));
    delete_content(op, *inode);
    if (attributes != nullptr) {
      WriteLock attributes_lock(attributes->mutex);
      delete_content(op, *attributes);
    }
    inode_count_.fetch_sub(1);
    count_protected(inode->record.flags, 0);
    MutexLock orphans_lock(orphans_mutex_);
    orphans_.erase(number.value);
    orphans_changed_ = true;
    return {};
  });
}

// The name is gone whatever becomes of the blocks: what fails here is done with a later consistency point or mount.
void Engine::reclaim_unheld(InodeNumber number) {
  const Status status = reclaim(number);
  if (!status.ok()) reclaim_later(number, status.error());
}

void Engine::reclaim_later(InodeNumber number, const Error& reason) {
  if (reason.code() == ErrorCode::kStale) return;  // done already
  if (reason.code() != ErrorCode::kCorrupt) {
    MutexLock lock(orphans_mutex_);
    shrinking_.push_back(number);
    return;
  }
  {
    MutexLock lock(usage_mutex_);
    coming_space_.forget_orphan(number);
  }
  log_warning("orphan " + std::to_string(number.value) + " stays: " + reason.describe());
}

// Cuts the last part off a large orphan, with all that is below the same node at `level`: nodes from there down need
// not be read. Sets `height` to that of its tree.
Status Engine::cut_orphan(InodeNumber number, unsigned level, unsigned& height) {
  return run(Intent::kHousekeeping, blocks_for_inode() + blocks_for_cut(), [&](Operation& op) -> Status {
    TARNFS_ASSIGN(const InodePtr inode, get_inode(op, number));
    WriteLock lock(inode->mutex);
    if (inode->deleted) return Error(ErrorCode::kStale);
    // It may be here because it could not be read when it was to be reclaimed.
    if (inode->record.link_count != 0 || !lookups_.is_zero(number)) return {};
    height = inode->record.height;
    const std::uint64_t pages = (inode->record.size_bytes + kBlockSize - 1) / kBlockSize;
    const std::uint64_t step = std::max(kPagesCutAtOnceMin, pages / 64);
    const std::uint64_t wanted = pages > step ? pages - step : 0;
    const std::uint64_t first = (wanted >> (kNodeShift * level)) << (kNodeShift * level);
    if (first != 0) TARNFS_TRY(find_node(tree_of(inode->record), first, level, op));
    begin_change(op, *inode);
    inode->record.size_bytes = first * kBlockSize;
    cut_pages(op, *inode, first, kEndOfFile);
    return {};
  });
}

// A node above the place of the cut that cannot be read is cut off whole.
Status Engine::shrink_orphan(InodeNumber number) {
  unsigned height = 0;
  for (unsigned level = 0;; ++level) {
    Status cut = cut_orphan(number, level, height);
    if (cut.ok() || level >= height) return cut;
    if (cut.error().code() != ErrorCode::kCorrupt && cut.error().code() != ErrorCode::kIo) return cut;
  }
}

// Cuts a part off every large orphan. Called before a consistency point, on its thread. Returns whether there is more
// to cut with the next one.
bool Engine::shrink_orphans() {
  bool more = false;
  std::set<InodeNumber> shrinking;  // who lets go while all are looked through after a mount lists one again
  {
    MutexLock lock(orphans_mutex_);
    shrinking.insert(shrinking_.begin(), shrinking_.end());
    shrinking_.clear();
  }
  for (const InodeNumber number : shrinking) {
    const Status cut = shrink_orphan(number);
    const Status status = cut.ok() ? reclaim(number, Intent::kHousekeeping) : cut;  // small enough now, or once more
    if (!status.ok()) reclaim_later(number, status.error());
    more = more || (status.ok() && is_orphan(number));
  }
  return more;
}

// What a crash or an unmount left in the orphan file. It stays until the journal has been read: that may give one of
// them a name.
void Engine::load_orphans() {
  auto content = run(Intent::kRead, 0, [&](Operation& op) -> Result<std::string> {
    auto file = get_inode(op, kOrphanFile);
    if (!file.ok() && file.error().code() == ErrorCode::kStale) return std::string();
    if (!file.ok()) return file.error();
    ReadLock lock((*file)->mutex);
    return content_of(op, **file);
  });
  if (!content.ok()) {
    MutexLock lock(orphans_mutex_);
    orphans_unreadable_ = true;
    log_warning(device_.name() + ": the orphan file cannot be read: " + content.error().describe());
    return;
  }
  for (std::size_t done = 0; done + sizeof(std::uint64_t) <= content->size(); done += sizeof(std::uint64_t)) {
    InodeNumber number;
    std::memcpy(&number.value, content->data() + done, sizeof number.value);
    add_orphan(number);
  }
}

// Nobody holds any of them yet.
void Engine::reclaim_all_orphans() {
  std::vector<InodeNumber> numbers;
  {
    MutexLock lock(orphans_mutex_);
    for (const std::uint64_t number : orphans_) numbers.push_back(InodeNumber{number});
  }
  for (const InodeNumber number : numbers) {
    const Status status = reclaim(number, Intent::kHousekeeping);
    if (!status.ok()) reclaim_later(number, status.error());
  }
}

void Engine::forget(InodeNumber number, std::uint64_t count) {
  if (!lookups_.subtract(number, count) || !is_orphan(number)) return;
  reclaim_unheld(number);
}

}  // namespace tarnfs
