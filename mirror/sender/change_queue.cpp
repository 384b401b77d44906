#include "mirror/sender/change_queue.h"

#include <algorithm>

namespace tarnfs {

void ChangeQueue::open() {
  open_ = true;
}

void ChangeQueue::close() {
  open_ = false;
  // What was taken of the newest entry is lost with the connection, so the rest of it is of no use to the next one.
  if (!entries_.empty()) missed_ = std::max(missed_, entries_.back().cp);
  entries_.clear();
  queued_bytes_ = 0;
}

ChangeQueue::Entry& ChangeQueue::entry_of(Cp cp) {
  if (entries_.empty() || entries_.back().cp != cp) {
    Entry entry;
    entry.cp = cp;
    entry.incomplete = cp <= missed_;
    entries_.push_back(std::move(entry));
  }
  return entries_.back();
}

void ChangeQueue::let_go(Entry& entry) {
  queued_bytes_ -= entry.blocks.size() * kBlockSize;
  entry.blocks.clear();
}

void ChangeQueue::add_blocks(Cp cp, std::span<const BlockWrite> blocks) {
  if (!open_) {
    missed_ = std::max(missed_, cp);
    return;
  }
  Entry& entry = entry_of(cp);
  if (entry.incomplete) return;
  const std::uint64_t size_bytes = blocks.size() * kBlockSize;
  if (queued_bytes_ + size_bytes > limit_bytes_) {
    entry.incomplete = true;
    let_go(entry);
    ++overflow_count_;
    return;
  }
  entry.blocks.insert(entry.blocks.end(), blocks.begin(), blocks.end());
  queued_bytes_ += size_bytes;
}

void ChangeQueue::add_root(const RootBlock& root) {
  newest_ = Cp{root.cp};
  if (open_) entry_of(newest_).root = root;
}

void ChangeQueue::note_newest(Cp newest) {
  newest_ = std::max(newest_, newest);
}

void ChangeQueue::drop_through(Cp cp) {
  while (!entries_.empty() && entries_.front().cp <= cp) {
    let_go(entries_.front());
    entries_.pop_front();
  }
}

ChangeQueue::Step ChangeQueue::next(Cp base, std::size_t blocks_max) {
  drop_through(base);
  Step step;
  const bool streamable =
      !entries_.empty() && entries_.front().cp.value == base.value + 1 && !entries_.front().incomplete;
  if (!streamable) {
    if (newest_ > base) step.kind = Step::Kind::kCatchUp;
    return step;
  }
  Entry& front = entries_.front();
  step.cp = front.cp;
  if (!front.blocks.empty()) {
    step.kind = Step::Kind::kBlocks;
    while (!front.blocks.empty() && step.blocks.size() < blocks_max) {
      step.blocks.push_back(std::move(front.blocks.front()));
      front.blocks.pop_front();
    }
    queued_bytes_ -= step.blocks.size() * kBlockSize;
  } else if (front.root) {
    step.kind = Step::Kind::kRoot;
    step.root = front.root;
    entries_.pop_front();
  }
  return step;
}

}  // namespace tarnfs
