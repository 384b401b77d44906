// Space: what there is, what will be, and how an operation gets it.
#include <algorithm>

#include "common/log.h"
#include "fs/engine/engine.h"

namespace tarnfs {

// Whoever goes on writing to a full volume finds it full again with every operation: it is said once a minute.
void Engine::warn_of_pins_given_up(std::uint64_t now_ns) {
  constexpr std::uint64_t kIntervalNs = 60'000'000'000;
  std::uint64_t warned_ns = pins_warning_ns_.load();
  if (warned_ns != 0 && now_ns - warned_ns < kIntervalNs) return;
  if (!pins_warning_ns_.compare_exchange_strong(warned_ns, now_ns)) return;
  log_warning(device_.name() +
              " is full: the blocks kept for its mirrors are given up, they will stage what lands on them");
}

void Engine::lose_all_pins(std::uint64_t now_ns) {
  const std::vector<LostPin> lost = pins_.lose_all(now_ns);
  if (lost.empty()) return;
  warn_of_pins_given_up(now_ns);
  tell_of_lost_pins(lost);
}

// Tries to turn promises and freed blocks into free ones. False when there is no use in trying again.
bool Engine::make_space(SpaceAttempts& attempts, std::uint64_t blocks, SpaceClaim claim, WaitNote& wait) {
  constexpr unsigned kAttemptsMax = 3;
  if (stopped_) return false;
  // A large orphan gives back a part with each consistency point: as long as they get fewer there is use.
  const std::uint64_t orphans_blocks = orphans_blocks_left();
  const bool orphans_shrink = orphans_blocks < attempts.orphans_blocks;
  attempts.orphans_blocks = orphans_blocks;
  // And as long as there was enough, but others were quicker to take it.
  const std::uint64_t cp = published_cp_;
  const bool was_beaten = cp != attempts.cp && ledger_->was_offered(blocks, claim);
  attempts.cp = cp;
  const bool counts = !orphans_shrink && !was_beaten;
  if (counts && attempts.count++ >= kAttemptsMax) return false;
  const std::uint64_t began_ns = clock_.monotonic_ns();
  if (counts && attempts.count == 2 && held_blocks_ > 0) lose_all_pins(began_ns);
  const Status taken = request_cp(true);
  wait.waited_ns += clock_.monotonic_ns() - began_ns;
  return taken.ok();
}

std::uint64_t Engine::orphans_blocks_left() {
  MutexLock lock(usage_mutex_);
  return coming_space_.orphans_blocks();
}

// The inode has at least so many blocks, or has them kept for it, in what is written or being written.
std::uint64_t Engine::written_blocks_min(const Inode& inode) {
  if (inode.record.layout == kInodeInlineTarget) return 0;
  const std::uint64_t blocks = inode.record.block_count + reserve_of(inode.record);
  if (inode.frozen == nullptr) return blocks;
  // What a cut of the running consistency point leaves is not known before it has walked the tree.
  if (!inode.frozen->delta.removed.empty()) return 0;
  return std::max<std::uint64_t>(blocks, inode.frozen->delta.pages.size());
}

// What no generation's count of freed blocks has yet.
std::uint64_t Engine::blocks_left_of_orphan(const Inode& inode) {
  if (inode.deleted) return 0;
  const std::uint64_t written = written_blocks_min(inode);
  return written - std::min(written, inode.open.freed_blocks);
}

// All from `first_page` on is cut off, among it what had so many blocks promised. Of the written tree no more can be
// left than leads to the pages before.
void Engine::count_freed(const Operation& op, Inode& inode, std::uint64_t first_page, std::uint64_t promised_blocks) {
  // What was kept again without a promise is in the written tree's blocks.
  const std::uint64_t promised = promised_blocks - std::min(promised_blocks, inode.open.kept_again);
  const std::uint64_t written = written_blocks_min(inode);
  const std::uint64_t left = tree_blocks_max(first_page);
  const std::uint64_t freed = written - std::min(written, left);
  const std::uint64_t more = freed - std::min(freed, inode.open.freed_blocks);
  inode.open.freed_blocks += more;
  if (more + promised == 0) return;
  MutexLock lock(usage_mutex_);
  coming_space_.add_freed(op.generation, promised, inode.number, more);
}

FileSystemUsage Engine::usage() {
  const RootBlock root = newest_root();
  FileSystemUsage usage;
  if (root.cp == 0) return usage;
  usage.size_blocks = end_of_data_blocks(root.size_blocks) - kFirstDataBlock;
  usage.inode_count = inode_count_.load();
  if (ledger_ == nullptr) {
    usage.free_blocks = usage.size_blocks - std::min(root.used_blocks + root.reserve_blocks, usage.size_blocks);
    usage.available_blocks = usage.free_blocks;
    usage.inode_count = root.inode_count;
    return usage;
  }
  MutexLock lock(usage_mutex_);
  // What is kept for mirrors is given up before an operation gets ENOSPC.
  const std::uint64_t coming = held_blocks_.load() + (sharing_ ? 0 : coming_space_.blocks());
  const std::int64_t reserve = ledger_->reserve_blocks();
  const std::int64_t free = ledger_->available() + static_cast<std::int64_t>(coming);
  usage.free_blocks =
      std::min<std::uint64_t>(usage.size_blocks, static_cast<std::uint64_t>(std::max<std::int64_t>(0, free)));
  usage.available_blocks = static_cast<std::uint64_t>(std::max<std::int64_t>(0, free - reserve));
  usage.available_blocks = std::min(usage.available_blocks, usage.free_blocks);
  return usage;
}

// Where blocks are shared only a consistency point knows which of them a deletion frees.
Status Engine::settle_usage() {
  if (!sharing_ || !takes_changes() || stopped_) return {};
  {
    MutexLock lock(usage_mutex_);
    if (coming_space_.blocks() == coming_space_.orphans_blocks()) return {};
  }
  if (NoWaitScope::is_active()) return Error(ErrorCode::kWouldWait);
  return request_cp(false);
}

}  // namespace tarnfs
