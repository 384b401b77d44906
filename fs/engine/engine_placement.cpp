// Large files are not written twice: an fsync writes their pages to blocks of their own at once, and the journal and
// the next consistency point only refer to them.
//
// The blocks are set aside in the free map, where no root has them in use, until the consistency point of their
// generation adopts them. A block whose page was changed again stays set aside until that root is durable, because a
// batch of the journal may name it.
#include <algorithm>

#include "common/checksum.h"
#include "fs/engine/engine.h"

namespace tarnfs {
namespace {

constexpr std::size_t kPagesAtOnceMax = 2048;

}  // namespace

struct Engine::Placement {
  std::uint64_t generation = 0;
  std::vector<std::pair<std::uint64_t, PageRef>> pages;  // by index
  std::vector<BlockPointer> pointers;                    // of the same
};

// Called with the inode's lock held: the block stays as it is for the sake of the journal.
void Engine::supersede(Operation& op, Inode& inode, std::uint64_t first, std::uint64_t end) {
  PlacedPages& placed = inode.open.placed;
  if (placed.empty()) return;
  const auto begin = placed.lower_bound(first);
  const auto last = placed.lower_bound(end);
  MutexLock lock(superseded_mutex_);
  for (auto page = begin; page != last; ++page) {
    superseded_.emplace_back(op.generation, Address{page->second.address});
  }
  placed.erase(begin, last);
}

// The root of `generation` is durable, and does not need the journal's batches of before.
void Engine::release_superseded(std::uint64_t generation) {
  std::vector<Address> addresses;
  {
    MutexLock lock(superseded_mutex_);
    std::erase_if(superseded_, [&](const auto& block) {
      if (block.first > generation) return false;
      addresses.push_back(block.second);
      return true;
    });
  }
  if (!addresses.empty()) free_map_->unreserve(addresses);
}

Status Engine::wait_until_published(std::uint64_t generation) {
  MutexLock lock(cp_mutex_);
  while (published_cp_ < generation && !stopped_ && !closing_) cp_changed_.wait(cp_mutex_);
  if (published_cp_ >= generation) return {};
  return stopped_ ? stopped_error(ErrorCode::kIo) : Error(ErrorCode::kCanceled);
}

// The generation of the running consistency point when that writes much of what an fsync of the inode needs; else 0.
std::uint64_t Engine::large_frozen_generation(Inode& inode) {
  const HeldBlocks none;
  const Operation op(gate_, cache_, none, open_generation_, clock_);
  WriteLock lock(inode.mutex);
  // Its generation may be closed already, with the consistency point on the way to freeze it.
  if (inode.dirty_generation != 0 && inode.dirty_generation != op.generation) inode.freeze();
  const UnloggedChanges* const frozen = frozen_unlogged(inode);
  return frozen != nullptr && frozen->pages.count() >= options_.placed_pages_min ? inode.frozen->generation : 0;
}

// Gives the pages that an fsync of the inode has to log blocks of their own and makes those durable, if there are many.
Status Engine::place_large_file(Inode& inode) {
  constexpr unsigned kRoundsMax = 3;  // somebody may write on all the while
  for (unsigned round = 0; round < kRoundsMax; ++round) {
    // What a running consistency point writes is not written twice.
    if (const std::uint64_t generation = large_frozen_generation(inode); generation != 0) {
      TARNFS_TRY(wait_until_published(generation));
    }
    Placement placement = collect_unplaced(inode);
    const std::uint64_t count = placement.pages.size();
    if (count < options_.placed_pages_min) return {};
    if (!ledger_->promise(count, SpaceClaim::kOrdinary)) return Error(ErrorCode::kNoSpace);
    auto addresses = free_map_->reserve(count);
    if (!addresses.ok()) {
      ledger_->give_back(static_cast<std::int64_t>(count));
      return addresses.error();
    }
    Status written = write_placed(placement, *addresses);
    if (written.ok()) written = device_.flush();
    if (!written.ok()) {
      stop(written.error());
      return Error(ErrorCode::kIo, written.error().describe());
    }
    install_placed(inode, placement);
  }
  return {};
}

// Pages that are to be logged and have no block yet. The gate is left now and then, so that a consistency point does
// not have to wait.
Engine::Placement Engine::collect_unplaced(Inode& inode) {
  Placement placement;
  for (std::uint64_t from = 0;;) {
    const HeldBlocks none;
    const Operation op(gate_, cache_, none, open_generation_, clock_);
    ReadLock lock(inode.mutex);
    if (placement.generation == 0) placement.generation = op.generation;
    // Changes of a generation that is closed are the consistency point's: their blocks would have the wrong birth.
    const bool is_open = placement.generation == op.generation && inode.dirty_generation == op.generation;
    if (inode.deleted || !is_open) return placement;
    std::size_t looked_at = 0;
    for (const auto& [first, end] : inode.unlogged.pages.ranges()) {
      for (std::uint64_t index = std::max(first, from); index < end && looked_at < kPagesAtOnceMax; ++index) {
        ++looked_at;
        from = index + 1;
        if (inode.open.placed.contains(index)) continue;
        const PageRef* const page = std::as_const(inode.open.pages).find(index);
        TARNFS_ASSERT(page != nullptr);
        placement.pages.emplace_back(index, *page);
      }
    }
    if (looked_at < kPagesAtOnceMax) return placement;
  }
}

// From here on the blocks may be named by the journal: they are durable.
void Engine::install_placed(Inode& inode, const Placement& placement) {
  std::vector<Address> unused;
  for (std::size_t next = 0; next < placement.pages.size();) {
    const std::size_t end = std::min(placement.pages.size(), next + kPagesAtOnceMax);
    const std::size_t unused_before = unused.size();
    const HeldBlocks none;
    const Operation op(gate_, cache_, none, open_generation_, clock_);
    WriteLock lock(inode.mutex);
    promised_blocks_[op.generation & 1].fetch_add(static_cast<std::int64_t>(end - next));
    for (; next < end; ++next) {
      const auto& [index, page] = placement.pages[next];
      // A page that was changed meanwhile is another one, because we share this one.
      const PageRef* const now = std::as_const(inode.open.pages).find(index);
      const bool same = op.generation == placement.generation && now != nullptr && now->data() == page.data();
      if (same && inode.open.placed.try_emplace(index, placement.pointers[next]).second) continue;
      unused.push_back(Address{placement.pointers[next].address});
    }
    const auto unused_now = static_cast<std::int64_t>(unused.size() - unused_before);
    promised_blocks_[op.generation & 1].fetch_sub(unused_now);
    ledger_->give_back(unused_now);
  }
  if (!unused.empty()) free_map_->unreserve(unused);
}

Status Engine::write_placed(Placement& placement, std::span<const Address> addresses) {
  std::vector<PageRef> run;
  for (std::size_t i = 0; i < addresses.size(); ++i) {
    const PageRef& page = placement.pages[i].second;
    BlockPointer& pointer = placement.pointers.emplace_back();
    pointer.address = addresses[i].value;
    pointer.birth_cp = placement.generation;
    pointer.checksum = checksum_of(page.bytes());
    run.push_back(page);
    const bool continues = i + 1 < addresses.size() && addresses[i + 1].value == addresses[i].value + 1;
    if (continues) continue;
    TARNFS_TRY(device_.write(Address{addresses[i].value + 1 - run.size()}, run));
    run.clear();
  }
  return {};
}

}  // namespace tarnfs
