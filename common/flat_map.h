// A hash map from numbers to small values, all in one array: a look takes one or two cache lines however many there
// are.
//
// Invariants:
//   1. A key stands at the slot that its hash says or behind it, with no free slot between.
//   2. Between an eighth and three quarters of the slots are taken, but for a smallest size. So memory follows what is
//      in it, both ways.
//
// Thread safety: none of its own; the owner's lock guards it.
// Ownership: values move when others come and go: a pointer to one is good until the next put() or erase().
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "common/result.h"

namespace tarnfs {

template <class Value>
class FlatMap {
 public:
  struct Slot {
    std::uint64_t key = 0;  // 0: free
    Value value{};
  };

  std::size_t size() const { return size_; }

  // Null when it is not there; 0 never is.
  Value* find(std::uint64_t key) {
    if (size_ == 0 || key == 0) return nullptr;
    Slot& slot = slots_[slot_for(key)];
    return slot.key == key ? &slot.value : nullptr;
  }

  // The value of the key, which is not 0, and whether it is new: then it is Value().
  std::pair<Value*, bool> put(std::uint64_t key) {
    TARNFS_ASSERT(key != 0);
    if ((size_ + 1) * 4 > slots_.size() * 3) resize(slots_.empty() ? kSlotsMin : slots_.size() * 2);
    Slot& slot = slots_[slot_for(key)];
    if (slot.key == key) return {&slot.value, false};
    slot.key = key;
    ++size_;
    return {&slot.value, true};
  }

  bool erase(std::uint64_t key) {
    if (size_ == 0 || key == 0) return false;
    const std::size_t found = slot_for(key);
    if (slots_[found].key != key) return false;
    free_slot(found);
    if (--size_ * 8 < slots_.size() && slots_.size() > kSlotsMin) resize(slots_.size() / 2);
    return true;
  }

  void clear() {
    slots_ = {};
    size_ = 0;
  }

  // For walks over everything, in no order.
  std::size_t slot_count() const { return slots_.size(); }
  Slot& slot_at(std::size_t number) { return slots_[number]; }

 private:
  static constexpr std::size_t kSlotsMin = 16;

  // Multiplying spreads keys that differ by powers of two too.
  std::size_t home_of(std::uint64_t key) const { return static_cast<std::size_t>(key * 0x9e3779b97f4a7c15U >> shift_); }
  std::size_t next(std::size_t slot) const { return (slot + 1) & (slots_.size() - 1); }

  // Where the key is, or the free slot where it would be put.
  std::size_t slot_for(std::uint64_t key) const {
    std::size_t slot = home_of(key);
    while (slots_[slot].key != 0 && slots_[slot].key != key) slot = next(slot);
    return slot;
  }

  // Moves those that stand behind it forward, as far as their hashes let them.
  void free_slot(std::size_t hole) {
    for (std::size_t slot = next(hole); slots_[slot].key != 0; slot = next(slot)) {
      const std::size_t distance = (slot - home_of(slots_[slot].key)) & (slots_.size() - 1);
      if (distance < ((slot - hole) & (slots_.size() - 1))) continue;
      slots_[hole] = std::move(slots_[slot]);
      hole = slot;
    }
    slots_[hole] = Slot();
  }

  void resize(std::size_t count) {
    std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(count));
    shift_ = 64U - static_cast<unsigned>(std::countr_zero(count));
    for (Slot& slot : old) {
      if (slot.key != 0) slots_[slot_for(slot.key)] = std::move(slot);
    }
  }

  std::vector<Slot> slots_;  // a power of two
  unsigned shift_ = 0;
  std::size_t size_ = 0;
};

}  // namespace tarnfs
