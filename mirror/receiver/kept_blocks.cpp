#include "mirror/receiver/kept_blocks.h"

#include <algorithm>
#include <utility>

#include "common/log.h"
#include "mirror/receiver/staging_file.h"

namespace tarnfs {
namespace {

constexpr std::size_t kBlocksPerStep = 256;
constexpr std::uint64_t kPlacesMax = 0xffff'fffe;  // a link is a place + 1, in 32 bits

}  // namespace

PinnedRoot KeptBlocks::pin(const std::function<RootBlock()>& newest) {
  MutexLock lock(mutex_);
  const RootBlock root = newest();
  pins_[++last_].root = root;
  return {root, last_};
}

PinId KeptBlocks::pin_nothing() {
  MutexLock lock(mutex_);
  return ++last_;
}

void KeptBlocks::unpin(PinId pin) {
  std::shared_ptr<BlockDevice> unused;  // closing a large file takes time
  MutexLock lock(mutex_);
  if (pins_.erase(pin) != 0) unused = drop_unneeded();
}

bool KeptBlocks::is_pinned(Cp cp) const {
  MutexLock lock(mutex_);
  return std::any_of(pins_.begin(), pins_.end(),
                     [cp](const auto& pin) { return !pin.second.lost && Cp{pin.second.root.cp} == cp; });
}

void KeptBlocks::begin_line(Cp cp) {
  MutexLock lock(mutex_);
  line_starts_.push_back(cp);
}

bool KeptBlocks::is_one_line(Cp before, Cp root) const {
  MutexLock lock(mutex_);
  return std::none_of(line_starts_.begin(), line_starts_.end(),
                      [&](Cp start) { return before < start && start <= root; });
}

std::uint64_t KeptBlocks::held_bytes(PinId pin) const {
  MutexLock lock(mutex_);
  const auto found = pins_.find(pin);
  return found == pins_.end() || found->second.lost ? 0 : found->second.kept_blocks * kBlockSize;
}

std::uint64_t KeptBlocks::kept_bytes() const {
  MutexLock lock(mutex_);
  return used_places() * kBlockSize;
}

Status KeptBlocks::read(Address address, std::size_t number, std::span<std::byte, kBlockSize> out) {
  std::shared_ptr<BlockDevice> device;
  std::uint32_t link = 0;
  {
    MutexLock lock(mutex_);
    const std::uint32_t* const newest = newest_.find(address.value);
    link = newest == nullptr ? 0 : *newest;
    for (std::size_t i = 0; i < number && link != 0; ++i) link = copies_[link - 1].older;
    device = device_;
  }
  if (link == 0) return Error(ErrorCode::kNotFound);
  // A place that is used again meanwhile had a copy that no pin needs: its reader learns that from the checksum.
  return device->read(Address{link - 1}, out);
}

void KeptBlocks::keep(BlockDevice& image, MirrorTarget& target, Cp cp, std::vector<Address> addresses) {
  if (pinned_before(cp).empty()) return;
  std::sort(addresses.begin(), addresses.end());
  const std::span<const Address> all(addresses);
  for (std::size_t first = 0; first < all.size(); first += kBlocksPerStep) {
    const auto some = all.subspan(first, std::min(kBlocksPerStep, all.size() - first));
    if (const Status kept = keep_some(image, target, cp, some); !kept.ok()) {
      lose_all(kept.error());
      return;
    }
  }
}

Status KeptBlocks::keep_some(BlockDevice& image, MirrorTarget& target, Cp cp, std::span<const Address> addresses) {
  TARNFS_ASSIGN(std::vector<Wanted> wanted, find_wanted(target, cp, addresses));
  if (wanted.empty()) return {};
  TARNFS_TRY(make_device());
  const auto device = take_places(wanted, cp);
  if (device == nullptr) return {};
  std::vector<BlockWrite> copies;
  Status status;
  for (const Wanted& block : wanted) {
    PageRef page = PageRef::uninitialised();
    if (status.ok()) status = image.read(block.address, page.mutable_bytes());
    copies.push_back({Address{block.place}, 0, std::move(page)});
  }
  if (status.ok()) status = write_in_place(*device, copies);
  note_copies(wanted, cp, device, status.ok());
  return status;
}

// Those whose blocks may be among the ones that a block of `cp` is written over.
std::vector<KeptBlocks::Candidate> KeptBlocks::pinned_before(Cp cp) const {
  MutexLock lock(mutex_);
  std::vector<Candidate> roots;
  for (const auto& [id, pin] : pins_) {
    if (!pin.lost && Cp{pin.root.cp} < cp) roots.push_back({id, pin.root});
  }
  return roots;
}

Result<std::vector<KeptBlocks::Wanted>> KeptBlocks::find_wanted(MirrorTarget& target, Cp cp,
                                                                std::span<const Address> addresses) {
  const std::vector<Candidate> roots = pinned_before(cp);
  std::vector<Wanted> wanted;
  for (const Address address : addresses) {
    Wanted block;
    block.address = address;
    for (const Candidate& candidate : roots) {
      {
        MutexLock lock(mutex_);
        if (has_copy(address, Cp{candidate.root.cp})) continue;
      }
      TARNFS_ASSIGN(const bool used, target.in_use_by(candidate.root, address));
      if (used) block.pins.push_back(candidate.id);
    }
    if (!block.pins.empty()) wanted.push_back(std::move(block));
  }
  return wanted;
}

// Only keep() makes it, so that nobody else does meanwhile.
Status KeptBlocks::make_device() {
  std::uint64_t size_blocks = 0;
  {
    MutexLock lock(mutex_);
    if (device_ != nullptr || pins_.empty()) return {};
    const std::uint64_t volume_blocks = pins_.begin()->second.root.size_blocks;
    const std::uint64_t usual_bytes = std::min(volume_blocks / 4 * kBlockSize, kKeptDefaultMaxBytes);
    const std::uint64_t limit_blocks = options_.limit_bytes.value_or(usual_bytes) / kBlockSize;
    size_blocks = std::clamp<std::uint64_t>(limit_blocks, 1, std::min(volume_blocks, kPlacesMax));
  }
  TARNFS_ASSIGN(auto device, storage_.create_kept(size_blocks));
  MutexLock lock(mutex_);
  if (!pins_.empty()) device_ = std::move(device);
  return {};
}

// Gives each a place, or loses the oldest pins until that can be done. Without a device when nothing is left to be
// copied.
std::shared_ptr<BlockDevice> KeptBlocks::take_places(std::vector<Wanted>& wanted, Cp cp) {
  std::vector<LostPin> lost;
  std::shared_ptr<BlockDevice> unused;
  std::shared_ptr<BlockDevice> device;
  {
    MutexLock lock(mutex_);
    for (;;) {
      leave_out_unneeded(wanted);
      if (wanted.empty() || device_ == nullptr) break;
      if (used_places() + wanted.size() <= device_->size_blocks()) {
        device = device_;
        break;
      }
      const auto oldest = std::find_if(pins_.begin(), pins_.end(), [cp](const auto& pin) {
        return !pin.second.lost && Cp{pin.second.root.cp} < cp;
      });
      TARNFS_ASSERT(oldest != pins_.end());
      lose(oldest->first, PinLoss::kSize, lost);
      unused = drop_unneeded();
    }
    for (Wanted& block : wanted) {
      if (device == nullptr) break;
      if (free_.empty()) {
        block.place = static_cast<std::uint32_t>(copies_.size());
        copies_.emplace_back();
      } else {
        block.place = free_.back();
        free_.pop_back();
      }
    }
  }
  tell(lost);
  return device;
}

void KeptBlocks::leave_out_unneeded(std::vector<Wanted>& wanted) {
  const auto is_gone = [this](PinId id) TARNFS_REQUIRES(mutex_) {
    const auto pin = pins_.find(id);
    return pin == pins_.end() || pin->second.lost;
  };
  for (Wanted& block : wanted) std::erase_if(block.pins, is_gone);
  std::erase_if(wanted, [](const Wanted& block) { return block.pins.empty(); });
}

void KeptBlocks::note_copies(const std::vector<Wanted>& wanted, Cp cp, const std::shared_ptr<BlockDevice>& device,
                             bool written) {
  const std::uint64_t now_ns = options_.clock->monotonic_ns();
  MutexLock lock(mutex_);
  if (device_ != device) return;  // nothing was pinned any more, and with the device all places went
  for (const Wanted& block : wanted) {
    if (!written) {
      free_.push_back(block.place);
      continue;
    }
    std::uint32_t* const newest = newest_.put(block.address.value).first;
    copies_[block.place] = {block.address, cp, *newest};
    *newest = block.place + 1;
    for (const PinId id : block.pins) {
      const auto pin = pins_.find(id);
      if (pin == pins_.end()) continue;
      if (pin->second.kept_blocks++ == 0) pin->second.kept_since_ns = now_ns;
    }
  }
}

bool KeptBlocks::has_copy(Address address, Cp pinned) {
  const std::uint32_t* const newest = newest_.find(address.value);
  for (std::uint32_t link = newest == nullptr ? 0 : *newest; link != 0; link = copies_[link - 1].older) {
    if (copies_[link - 1].before > pinned) return true;
  }
  return false;
}

void KeptBlocks::lose(PinId id, PinLoss why, std::vector<LostPin>& lost) {
  Pin& pin = pins_.at(id);
  pin.lost = true;
  const std::uint64_t age_ns = pin.kept_blocks == 0 ? 0 : options_.clock->monotonic_ns() - pin.kept_since_ns;
  lost.push_back({id, Cp{pin.root.cp}, why, pin.kept_blocks * kBlockSize, age_ns});
}

void KeptBlocks::lose_all(const Error& reason) {
  std::vector<LostPin> lost;
  std::shared_ptr<BlockDevice> unused;
  {
    MutexLock lock(mutex_);
    for (const auto& [id, pin] : pins_) {
      if (!pin.lost) lose(id, PinLoss::kSpace, lost);
    }
    unused = drop_unneeded();
  }
  log_warning(storage_.name() + ": what is being sent on to other mirrors cannot be kept (" + reason.describe() +
              "); their copies may have to begin again");
  tell(lost);
}

void KeptBlocks::tell(const std::vector<LostPin>& lost) const {
  if (options_.feed == nullptr) return;
  for (const LostPin& pin : lost) options_.feed->on_pin_lost(pin);
}

// The caller lets the device go when the lock is free again: closing a large file takes time.
std::shared_ptr<BlockDevice> KeptBlocks::drop_unneeded() {
  std::optional<Cp> oldest;
  for (const auto& [id, pin] : pins_) {
    if (!pin.lost) oldest = std::min(oldest.value_or(Cp{pin.root.cp}), Cp{pin.root.cp});
  }
  if (!oldest) {
    copies_ = {};
    free_ = {};
    newest_.clear();
    return std::move(device_);
  }
  for (std::uint32_t place = 0; place < copies_.size(); ++place) {
    if (copies_[place].address.value != 0 && copies_[place].before <= *oldest) drop(place);
  }
  return nullptr;
}

void KeptBlocks::drop(std::uint32_t place) {
  Copy& copy = copies_[place];
  std::uint32_t* link = newest_.find(copy.address.value);
  TARNFS_ASSERT(link != nullptr);
  while (*link != place + 1) link = &copies_[*link - 1].older;
  *link = copy.older;
  if (*newest_.find(copy.address.value) == 0) newest_.erase(copy.address.value);
  copy = {};
  free_.push_back(place);
}

}  // namespace tarnfs
