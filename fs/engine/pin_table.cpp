#include "fs/engine/pin_table.h"

#include <algorithm>

namespace tarnfs {

PinId PinTable::add(Cp cp, PinKind kind) {
  MutexLock lock(mutex_);
  pins_.emplace(++last_, Pin{cp, kind, false});
  return last_;
}

void PinTable::move(PinId pin, Cp cp) {
  MutexLock lock(mutex_);
  const auto found = pins_.find(pin);
  if (found == pins_.end()) return;
  found->second.cp = std::max(found->second.cp, cp);
  found->second.lost = false;
}

void PinTable::remove(PinId pin) {
  MutexLock lock(mutex_);
  pins_.erase(pin);
}

void PinTable::note_root(Cp cp, std::uint64_t freed_blocks, std::uint64_t now_ns) {
  MutexLock lock(mutex_);
  if (!pins_.empty()) history_.push_back({cp, freed_blocks_, now_ns});
  freed_blocks_ += freed_blocks;
}

std::vector<LostPin> PinTable::lose_beyond(const PinLimits& limits, std::uint64_t now_ns) {
  MutexLock lock(mutex_);
  std::vector<LostPin> lost;
  if (history_.empty()) return lost;
  const std::uint64_t newest_blocks = freed_blocks_ - history_.back().before_blocks;
  for (auto& [id, pin] : pins_) {
    if (pin.lost) continue;
    const std::uint64_t blocks = held_blocks(pin);
    if ((blocks - std::min(blocks, newest_blocks)) * kBlockSize > limits.held_bytes) {
      lost.push_back(lose(id, pin, PinLoss::kSize, now_ns));
    } else if (limits.age_ns != 0 && pin.kind == PinKind::kPublished && age_ns(pin, now_ns) >= limits.age_ns) {
      lost.push_back(lose(id, pin, PinLoss::kAge, now_ns));
    }
  }
  return lost;
}

std::vector<LostPin> PinTable::lose_all(std::uint64_t now_ns) {
  MutexLock lock(mutex_);
  std::vector<LostPin> lost;
  for (auto& [id, pin] : pins_) {
    if (!pin.lost) lost.push_back(lose(id, pin, PinLoss::kSpace, now_ns));
  }
  return lost;
}

LostPin PinTable::lose(PinId id, Pin& pin, PinLoss why, std::uint64_t now_ns) {
  const LostPin lost{id, pin.cp, why, held_blocks(pin) * kBlockSize, age_ns(pin, now_ns)};
  pin.lost = true;
  return lost;
}

Cp PinTable::oldest(Cp newest_durable) const {
  MutexLock lock(mutex_);
  return oldest_locked(newest_durable);
}

Cp PinTable::oldest_locked(Cp newest_durable) const {
  Cp oldest = newest_durable;
  for (const auto& [id, pin] : pins_) {
    if (!pin.lost) oldest = std::min(oldest, pin.cp);
  }
  return oldest;
}

Cp PinTable::release_point(Cp newest_durable) {
  MutexLock lock(mutex_);
  const Cp oldest = oldest_locked(newest_durable);
  while (!history_.empty() && history_.front().cp <= oldest) history_.pop_front();
  return oldest;
}

std::uint64_t PinTable::held_bytes(PinId pin) const {
  MutexLock lock(mutex_);
  const auto found = pins_.find(pin);
  return found == pins_.end() ? 0 : held_blocks(found->second) * kBlockSize;
}

const PinTable::Step* PinTable::first_after(Cp cp) const {
  const auto step =
      std::upper_bound(history_.begin(), history_.end(), cp, [](Cp c, const Step& s) { return c < s.cp; });
  return step == history_.end() ? nullptr : &*step;
}

// What was released before the pin was there is not in the history.
std::uint64_t PinTable::held_blocks(const Pin& pin) const {
  const Step* const first = first_after(pin.cp);
  return pin.lost || first == nullptr ? 0 : freed_blocks_ - first->before_blocks;
}

std::uint64_t PinTable::age_ns(const Pin& pin, std::uint64_t now_ns) const {
  const Step* const first = first_after(pin.cp);
  return first == nullptr ? 0 : now_ns - std::min(now_ns, first->published_ns);
}

}  // namespace tarnfs
