#include "fs/journal/journal_writer.h"

#include <algorithm>

namespace tarnfs {

JournalGeometry journal_geometry_of(const Superblock& superblock, const RootBlock& root) {
  JournalGeometry geometry;
  geometry.first = Address{superblock.journal_first};
  geometry.size_blocks = superblock.journal_blocks;
  geometry.volume.bytes = superblock.volume;
  geometry.epoch.bytes = root.epoch;
  return geometry;
}

// Equal positions mean an empty ring: it is never filled to the last block.
std::uint64_t JournalWriter::used_locked() const {
  return (head_.block + geometry_.size_blocks - tail_.block) % geometry_.size_blocks;
}

bool JournalWriter::place(JournalBatch& batch) {
  const std::uint64_t blocks = batch.size_blocks();
  if (blocks > journal_batch_blocks_max(geometry_.size_blocks)) return false;
  MutexLock lock(mutex_);
  if (!epoch_ || used_locked() + blocks >= geometry_.size_blocks) return false;
  batch.seal(head_, geometry_.volume, *epoch_);
  placed_block_ = head_.block;
  head_.sequence += 1;
  head_.block = (head_.block + blocks) % geometry_.size_blocks;
  head_.chain = batch.checksum();
  return true;
}

Status JournalWriter::write(const JournalBatch& batch) {
  const std::vector<PageRef> blocks = batch.blocks();
  const std::span<const PageRef> all(blocks);
  const std::size_t before_end = std::min<std::size_t>(all.size(), geometry_.size_blocks - placed_block_);
  TARNFS_TRY(device_.write(Address{geometry_.first.value + placed_block_}, all.first(before_end)));
  if (before_end < all.size()) TARNFS_TRY(device_.write(geometry_.first, all.subspan(before_end)));
#ifdef TARNFS_PLANT_MISSING_FLUSH  // a bug for the crash simulator to find, in a build of its test only
  return {};
#else
  return device_.flush();
#endif
}

JournalPosition JournalWriter::head() {
  MutexLock lock(mutex_);
  return head_;
}

void JournalWriter::end_epoch() {
  MutexLock lock(mutex_);
  epoch_.reset();
}

void JournalWriter::begin_epoch(const Epoch& epoch) {
  MutexLock lock(mutex_);
  epoch_ = epoch;
}

void JournalWriter::release(const JournalPosition& tail) {
  MutexLock lock(mutex_);
  tail_ = tail;
}

std::uint64_t JournalWriter::used_blocks() {
  MutexLock lock(mutex_);
  return geometry_.size_blocks == 0 ? 0 : used_locked();
}

}  // namespace tarnfs
