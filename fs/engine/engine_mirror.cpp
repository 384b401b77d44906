// What replication asks of a volume: roots, pins and changed blocks on the primary, the moving view on the mirror.
#include <algorithm>
#include <bitset>
#include <cstring>
#include <limits>
#include <unordered_map>

#include "common/log.h"
#include "fs/engine/engine.h"
#include "fs/engine/view_difference.h"

namespace tarnfs {
namespace {

// Reads past the cache: a walk over a whole volume must not push out what is in use. Nodes are read once each.
class DeviceSource final : public BlockSource {
 public:
  explicit DeviceSource(BlockDevice& device) : device_(device) {}
  Result<PageRef> get(const BlockPointer& pointer) override {
    if (pointer == last_pointer_ && last_page_) return last_page_;
    TARNFS_ASSIGN(last_page_, read_block(device_, pointer));
    last_pointer_ = pointer;
    return last_page_;
  }

 private:
  BlockDevice& device_;
  BlockPointer last_pointer_;  // a visitor asks for a node right before its children are looked at
  PageRef last_page_;
};

class CachedSource final : public BlockSource {
 public:
  explicit CachedSource(BlockCache& cache) : cache_(cache) {}
  Result<PageRef> get(const BlockPointer& pointer) override { return cache_.load(pointer); }

 private:
  BlockCache& cache_;
};

// Data blocks that were visited: others may refer to them too.
class VisitedBlocks {
 public:
  // False when it was there already.
  bool add(std::uint64_t address) {
    auto bit = chunks_[address / kChunkBlocks][address % kChunkBlocks];
    if (bit) return false;
    bit = true;
    return true;
  }

 private:
  static constexpr std::uint64_t kChunkBlocks = 32768;
  std::unordered_map<std::uint64_t, std::bitset<kChunkBlocks>> chunks_;
};

}  // namespace

PinnedRoot Engine::pin_newest_root() {
  // Under the lock, so that no newer root is installed between the two: release_held() comes after install's.
  ReadLock lock(root_mutex_);
  return PinnedRoot{root_, pins_.add(Cp{root_.cp}, PinKind::kCopied)};
}

// Each root names the one before it. What is in a slot and is not named so is of another line of the volume.
std::optional<std::uint64_t> Engine::root_checksum(Cp cp) {
  const Superblock volume = superblock();
  RootBlock root = newest_root();
  if (cp.value == root.cp) return root.checksum;
  if (cp.value == 0 || cp.value > root.cp || root.cp - cp.value > kRootSlots) return std::nullopt;
  while (root.cp > cp.value + 1) {
    const auto before = read_root(device_, volume, Cp{root.cp - 1});
    if (!before.ok() || before->checksum != root.previous_checksum) return std::nullopt;
    root = *before;
  }
  return root.previous_checksum;
}

PinId Engine::pin_root(Cp cp) {
  return pins_.add(cp, PinKind::kPublished);
}

void Engine::move_pin(PinId pin, Cp cp) {
  pins_.move(pin, cp);
}

void Engine::unpin(PinId pin) {
  pins_.remove(pin);
}

std::uint64_t Engine::held_bytes(PinId pin) {
  return pins_.held_bytes(pin);
}

// The limit by size is a share of the volume unless somebody says otherwise.
PinLimits Engine::pin_limits() const {
  PinLimits limits;
  const std::uint64_t quarter_bytes = size_blocks_.load() / 4 * kBlockSize;
  limits.held_bytes = options_.pin_size_bytes.value_or(std::min(quarter_bytes, kPinSizeDefaultMaxBytes));
  limits.age_ns = options_.pin_age_ms * 1'000'000;
  return limits;
}

void Engine::limit_pins() {
  tell_of_lost_pins(pins_.lose_beyond(pin_limits(), clock_.monotonic_ns()));
}

void Engine::tell_of_lost_pins(const std::vector<LostPin>& lost) {
  if (options_.feed == nullptr) return;
  for (const LostPin& pin : lost) options_.feed->on_pin_lost(pin);
}

// Visits what was born after `since`, each block once. `source` has a block's node right after it was visited.
static Status visit_changed(const RootBlock& root, Cp since, DeviceSource& source,
                            const std::function<Status(const BlockPointer&)>& visit) {
  bool any_shared = false;
  VisitedBlocks visited;
  const auto visit_block = [&](const TreeVisit& block) -> Status {
    if (any_shared && block.level == 0 && !visited.add(block.pointer.address)) return {};
    TARNFS_TRY(check_pointer(block.pointer, root.size_blocks, Cp{root.cp}));
    return visit(block.pointer);
  };
  const auto visit_inode_block = [&](const TreeVisit& block) -> Status {
    TARNFS_TRY(visit_block(block));
    if (block.level != 0) return {};
    TARNFS_ASSIGN(const PageRef page, source.get(block.pointer));
    for (std::size_t slot = 0; slot < kInodesPerBlock; ++slot) {
      InodeRecord record;
      std::memcpy(static_cast<void*>(&record), page.data() + slot * sizeof record, sizeof record);
      if (record.mode == 0 || record.layout == kInodeInlineTarget) continue;
      // It comes before the files. One block may be that of several files' pages: it is visited once.
      any_shared = any_shared || (record.number == kShareFile.value && record.block_count != 0);
      TARNFS_TRY(visit_tree(tree_of(record), since, source, visit_block));
    }
    return {};
  };
  TARNFS_TRY(visit_tree(tree_of(root.inode_file), since, source, visit_inode_block));
  return visit_tree(tree_of(root.free_map), since, source, visit_block);
}

// A block that is damaged because it was used again, after its pin was given up, is no damage.
Error Engine::reading_failed(const RootBlock& root, const Error& error) {
  // At a mirror the pins are the receiver's (mirror/receiver/mirror_source.h).
  if (mode_ == VolumeMode::kMirror) return error;
  if (error.code() != ErrorCode::kCorrupt || pins_.oldest(Cp{newest_root().cp}) <= Cp{root.cp}) return error;
  return Error(ErrorCode::kCanceled,
               "the blocks of cp " + std::to_string(root.cp) + " were given up while they were read; begin again");
}

Status Engine::walk_changed(const RootBlock& root, Cp since, const std::function<Status(const BlockWrite&)>& visit) {
  DeviceSource source(device_);
  const Status status = visit_changed(root, since, source, [&](const BlockPointer& block) -> Status {
    TARNFS_ASSIGN(const PageRef page, source.get(block));
    return visit({Address{block.address}, block.checksum, page});
  });
  return status.ok() ? status : reading_failed(root, status.error());
}

Status Engine::list_changed(const RootBlock& root, Cp since, const std::function<Status(const BlockPointer&)>& visit) {
  DeviceSource source(device_);
  const Status status = visit_changed(root, since, source, visit);
  return status.ok() ? status : reading_failed(root, status.error());
}

Result<BlockWrite> Engine::read_listed(const RootBlock& root, const BlockPointer& block) {
  auto page = read_block(device_, block);
  if (!page.ok()) return reading_failed(root, page.error());
  return BlockWrite{Address{block.address}, block.checksum, *std::move(page)};
}

// What is known of the view that is left and will not be true in `next`. Both can be read.
ViewChange Engine::change_of_view(const RootBlock& next) {
  CachedSource source(cache_);
  const auto known = [this](InodeNumber number) { return is_known(number); };
  ViewDifferenceLimits limits;
  if (!view_listener_->forgets_all_names()) {
    limits.blocks_max = limits.names_bytes_max = std::numeric_limits<std::uint64_t>::max();
  }
  auto difference = view_difference(newest_root(), next, source, known, limits);
  if (difference.ok()) return std::move(difference).value();
  if (difference.error().code() != ErrorCode::kCanceled) {
    log_error("what cp " + std::to_string(next.cp) + " changes: " + difference.error().describe());
  }
  ViewChange everything;
  everything.all_names = true;
  everything.is_known = known;
  for (const InodeNumber number : lookups_.held()) everything.inodes.push_back({number, {}});
  everything.inodes.push_back({kRootDirectory, {}});
  for (ViewChange::Inode& inode : everything.inodes) inode.pages.add(0, kEndOfFile);
  return everything;
}

Status Engine::adopt(const RootBlock& root) {
  TARNFS_ASSERT(mode_ == VolumeMode::kMirror);
  TARNFS_ASSIGN(Superblock superblock, read_superblock(device_));
  // The image's follows a root that is larger.
  if (superblock.size_blocks != root.size_blocks) superblock = grown(superblock, root.size_blocks);
  if (view_listener_ != nullptr) {
    view_listener_->prepare();
    view_listener_->forget(change_of_view(root));
  }
  gate_.close();
  {
    WriteLock lock(root_mutex_);
    root_ = root;
    superblock_ = superblock;
    size_blocks_ = root.size_blocks;
  }
  inodes_.clear();
  view_.fetch_add(1);
  gate_.open();
  if (view_listener_ != nullptr) view_listener_->finish();
  return {};
}

Result<bool> Engine::in_use(Address address) {
  return in_use_by(newest_root(), address);
}

Result<bool> Engine::in_use_by(const RootBlock& root, Address address) {
  if (root.cp == 0 || !is_data_address(address, root.size_blocks)) return false;
  CachedSource source(cache_);
  return is_block_used(tree_of(root.free_map), address, source);
}

}  // namespace tarnfs
