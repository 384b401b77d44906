// fsync: what changed goes to the journal, in one batch with all who wait.
//
// A batch has the operations on names that no batch has yet, all of them in their order, and the state of the inodes
// that are waited for. A file that was renamed over another goes along with that rename: whoever replaces a file that
// way finds the old content after a crash or the new one, never neither.
//
// Pages that share blocks with others are in no batch: a consistency point has to count the blocks' references first.
// An fsync that has to make such pages durable takes one.
#include <sys/stat.h>

#include "common/checksum.h"
#include "fs/engine/engine.h"

namespace tarnfs {
namespace {

// The run that page `index`, which is at `address` (0: in the batch), goes on with; a new one when none does.
JournalPages& run_for(JournalInodeState& state, std::uint64_t index, Address address) {
  if (!state.pages.empty()) {
    JournalPages& last = state.pages.back();
    const std::uint64_t count = last.checksums.size();
    const std::uint64_t expected = last.in_batch() ? 0 : last.address.value + count;
    if (last.first_page + count == index && address.value == expected) return last;
  }
  JournalPages& run = state.pages.emplace_back();
  run.first_page = index;
  run.address = address;
  return run;
}

}  // namespace

bool Engine::logs_content(const Inode& inode) const {
  return journal_ != nullptr && S_ISREG(inode.record.mode) && (inode.record.flags & kInodeFlagAttributes) == 0;
}

// Called with the locks held of all that the operation changed.
void Engine::log_name(Operation& op, JournalRecord::Body body, InodeNumber replacing) {
  if (journal_ == nullptr) return;
  const JournalRecord record{Cp{op.generation}, op.now(), std::move(body)};
  name_log_.append(std::span(&record, 1), replacing);
}

// What the frozen generation has not logged, unless its root is durable by now.
UnloggedChanges* Engine::frozen_unlogged(const Inode& inode) const {
  if (inode.frozen == nullptr || inode.frozen->generation <= published_cp_.load()) return nullptr;
  return &inode.frozen->unlogged;
}

// An fsync of a clean inode has nothing to do but to wait for a write that took its changes a moment ago.
Status Engine::fsync(InodeNumber number, bool data_only) {
  const RunningFsync running(*this);  // before it looks: either it sees a shutdown, or the shutdown waits for it
  if (shut_down_) return Error(ErrorCode::kIo);
  if (mode_ != VolumeMode::kReadWrite) return {};
  if (stopped_) return stopped_error(ErrorCode::kIo);
  bool changed = false;
  std::uint64_t shares_generation = 0;  // its consistency point alone makes some of the inode durable; 0: none
  bool shares_are_open = false;
  const auto found = run(Intent::kRead, 0, [&](Operation& op) -> Result<InodePtr> {
    TARNFS_ASSIGN(InodePtr inode, get_inode(op, number));
    ReadLock lock(inode->mutex);
    if (journal_ == nullptr) {
      changed = inode->dirty_generation != 0 || inode->frozen != nullptr;
      return inode;
    }
    const UnloggedChanges* const frozen = frozen_unlogged(*inode);
    shares_generation = unpublished_shares(*inode);
    shares_are_open = shares_generation == op.generation;
    changed = data_only ? inode->unlogged.any_data() || (frozen != nullptr && frozen->any_data())
                        : inode->unlogged.any() || (frozen != nullptr && frozen->any());
    return inode;
  });
  if (!found.ok()) return found.error();
  if (journal_ == nullptr) return changed ? request_cp(false) : Status();
  if (shares_are_open) return commit_by_cp();
  if (shares_generation != 0) TARNFS_TRY(wait_until_published(shares_generation));
  if (!changed && name_log_.pending_bytes() == 0 && commits_.idle()) return {};
  // Before the group's turn: who waits for a small file does not wait for a large one.
  if (const Status placed = place_large_file(**found); !placed.ok()) {
    return placed.error().code() == ErrorCode::kNoSpace ? commit_by_cp() : placed;
  }
  Status status =
      commits_.commit(*found, [this](std::span<const InodePtr> inodes) { return commit_to_journal(inodes); });
  if (stopped_) return stopped_error(ErrorCode::kIo);
  return status;
}

// The generation whose consistency point makes pages of the inode durable that share blocks; 0: there are none.
std::uint64_t Engine::unpublished_shares(const Inode& inode) const {
#ifdef TARNFS_PLANT_UNLOGGED_SHARES  // a test plants this bug: a state is logged without the pages that share blocks
  if (inode.number != InodeNumber{}) return 0;
#endif
  if (!inode.open.shared.empty()) return inode.dirty_generation;
  if (inode.frozen == nullptr || inode.frozen->delta.shared.empty()) return 0;
  return inode.frozen->generation > published_cp_.load() ? inode.frozen->generation : 0;
}

// What does not fit, or cannot be logged, is left to a consistency point.
Status Engine::commit_to_journal(std::span<const InodePtr> inodes) {
  if (stopped_) return stopped_error(ErrorCode::kIo);
  if (unlogged_blocks(inodes) > journal_batch_blocks_max(journal_->size_blocks())) return commit_by_cp();
  JournalBatch batch;
  bool composed = false;
  bool placed = false;
  {
    const HeldBlocks none;
    Operation op(gate_, cache_, none, open_generation_, clock_);
    composed = compose_batch(op, inodes, batch);
    // Inside the gate, so that the consistency point that closes it knows which batches it makes superfluous.
    placed = composed && !batch.empty() && journal_->place(batch);
  }
  if (!composed) return commit_by_cp();
  if (batch.empty()) return {};
  if (!placed) return commit_by_cp();
  if (Status status = journal_->write(batch); !status.ok()) {
    stop(status.error());
    return status;
  }
  if (journal_->half_full()) want_cp_soon();
  return {};
}

Status Engine::commit_by_cp() {
  fsync_cp_count_.fetch_add(1);
  return request_cp(true);
}

// About how large a batch would be; what changes meanwhile is found out when it gets its place.
std::uint64_t Engine::unlogged_blocks(std::span<const InodePtr> inodes) {
  std::uint64_t blocks = name_log_.pending_bytes() / kBlockSize + 1;
  for (const InodePtr& inode : inodes) {
    ReadLock lock(inode->mutex);
    const std::uint64_t pages = inode->unlogged.pages.count();
    blocks += inode->unlogged.reserved.ranges().size() * sizeof(JournalPageRange) / kBlockSize;
    blocks += pages - std::min<std::uint64_t>(inode->open.placed.size(), pages);
    blocks += inode->open.placed.size() * sizeof(std::uint64_t) / kBlockSize;
    if (const UnloggedChanges* const frozen = frozen_unlogged(*inode)) blocks += frozen->pages.count();
  }
  return blocks;
}

// False: what no batch can have is among it. What was taken for the batch is in the consistency point that follows.
bool Engine::compose_batch(Operation& op, std::span<const InodePtr> inodes, JournalBatch& batch) {
  for (bool again = true; again;) {
    again = false;
    const NameLog::Taken names = name_log_.take();
    batch.add_encoded(names.records, names.count);
    if (batch.size_blocks() > journal_batch_blocks_max(journal_->size_blocks())) return false;
    for (const InodeNumber number : names.replacing) {
      // What is not in memory any more is durable.
      const InodePtr inode = inodes_.find(number);
      if (inode == nullptr) continue;
      WriteLock lock(inode->mutex);
      if (!log_state(op, *inode, batch)) return false;
      // An orphan's content may be gone. What took its name away may have been done since the names were taken; without
      // that it would be there after a crash, and empty.
      again = again || inode->record.link_count == 0;
    }
  }
  for (const InodePtr& inode : inodes) {
    WriteLock lock(inode->mutex);
    if (!log_state(op, *inode, batch)) return false;
  }
  return true;
}

// False: the state cannot be logged.
bool Engine::log_state(Operation& op, Inode& inode, JournalBatch& batch) {
  if (unpublished_shares(inode) != 0) return false;
  UnloggedChanges* const frozen = frozen_unlogged(inode);
  if (inode.deleted || !(inode.unlogged.any() || (frozen != nullptr && frozen->any()))) return true;
  JournalInodeState state;
  state.inode = inode.number;
  state.attribute_inode = InodeNumber{inode.record.xattr_inode};
  state.attributes = journal_attributes_of(inode.record);
  RangeSet cut = inode.unlogged.cut;
  RangeSet pages = inode.unlogged.pages;
  RangeSet reserved = inode.unlogged.reserved;
  if (frozen != nullptr) {
    // The frozen generation's pages come before what the open one cut.
    for (const auto& [first, end] : cut.ranges()) frozen->pages.remove(first, end);
    for (const auto& [first, end] : cut.ranges()) frozen->reserved.remove(first, end);
    for (const auto& [first, end] : frozen->pages.ranges()) pages.add(first, end);
    for (const auto& [first, end] : frozen->reserved.ranges()) reserved.add(first, end);
    for (const auto& [first, end] : frozen->cut.ranges()) cut.add(first, end);
  }
  for (const auto& [first, end] : cut.ranges()) state.cut.push_back({first, end});
  for (const auto& [first, end] : reserved.ranges()) state.reserved.push_back({first, end});
  for (const auto& [first, end] : pages.ranges()) {
    auto placed = inode.open.placed.lower_bound(first);
    for (std::uint64_t index = first; index < end; ++index) {
      if (placed != inode.open.placed.end() && placed->first == index) {
        run_for(state, index, Address{placed->second.address}).checksums.push_back(placed->second.checksum);
        ++placed;
      } else {
        log_page(inode, index, state, batch);
      }
    }
  }
  if (inode.unlogged.xattrs || (frozen != nullptr && frozen->xattrs)) state.xattrs = xattrs_in_memory(op, inode);
  batch.add({Cp{op.generation}, op.now(), std::move(state)});
  inode.unlogged = UnloggedChanges();
  if (frozen != nullptr) *frozen = UnloggedChanges();
  return true;
}

// A page of the open generation that has no block yet, or one of the frozen generation.
void Engine::log_page(const Inode& inode, std::uint64_t index, JournalInodeState& state, JournalBatch& batch) {
  const PageRef* page = inode.open.pages.find(index);
  if (page == nullptr) {
    const InodeDelta& delta = inode.frozen->delta;
    if (const auto placed = delta.placed.find(index); placed != delta.placed.end()) {
      run_for(state, index, Address{placed->second.address}).checksums.push_back(placed->second.checksum);
      return;
    }
    page = delta.pages.find(index);
  }
  TARNFS_ASSERT(page != nullptr);
  run_for(state, index, Address{}).checksums.push_back(checksum_of(page->bytes()));
  batch.add_page(*page);
}

// The serialised attributes; nothing when they are in a durable root by now, which is where alone they can have gone.
std::optional<std::vector<std::byte>> Engine::xattrs_in_memory(Operation& op, const Inode& inode) {
  if (inode.record.xattr_inode == 0) return std::vector<std::byte>();
  const auto set = xattrs_of(op, inode);
  if (!set.ok()) return std::nullopt;
  return set->serialise();
}

}  // namespace tarnfs
