#include "fs/tree/directory_node.h"

#include <array>

#include "common/result.h"

namespace tarnfs {

namespace {

constexpr std::size_t kHeaderBytes = sizeof(DirectoryPageHeader);

// Bit t is set when t is a file type: fifo, character device, directory, block device, regular, symlink, socket.
constexpr unsigned kFileTypes = 1U << 1 | 1U << 2 | 1U << 4 | 1U << 6 | 1U << 8 | 1U << 10 | 1U << 12;

constexpr std::size_t record_bytes(std::size_t name_bytes) {
  return sizeof(LeafRecord) + name_bytes;
}

void store_header(MutableDirectoryPageBytes page, const DirectoryPageHeader& header) {
  std::memcpy(page.data(), &header, sizeof header);
}

LeafSlot load_leaf_slot(DirectoryPageBytes page, unsigned slot) {
  LeafSlot result;
  std::memcpy(&result, page.data() + LeafView::slot_offset(slot), sizeof result);
  return result;
}

bool record_in_heap(const DirectoryPageHeader& header, const LeafSlot& slot) {
  const std::size_t offset = slot.record_offset;
  return slot.name_bytes != 0 && offset >= header.heap_start && offset + record_bytes(slot.name_bytes) <= kBlockSize;
}

std::size_t gap_bytes(const DirectoryPageHeader& header) {
  return header.heap_start - kHeaderBytes - header.count * sizeof(LeafSlot);
}

// Writes the record below the heap and the slot at `slot`; there is room in the gap.
void place_entry(MutableDirectoryPageBytes page, DirectoryPageHeader& header, unsigned slot, const LeafEntry& entry) {
  const std::size_t size = record_bytes(entry.name.size());
  header.heap_start = static_cast<std::uint16_t>(header.heap_start - size);
  header.heap_live_bytes = static_cast<std::uint16_t>(header.heap_live_bytes + size);
  const LeafRecord record{.inode = entry.inode};
  std::memcpy(page.data() + header.heap_start, &record, sizeof record);
  std::memcpy(page.data() + header.heap_start + sizeof record, entry.name.data(), entry.name.size());
  std::byte* const at = page.data() + LeafView::slot_offset(slot);
  std::memmove(at + sizeof(LeafSlot), at, (header.count - slot) * sizeof(LeafSlot));
  const LeafSlot leaf_slot{.key = entry.key,
                           .record_offset = header.heap_start,
                           .name_bytes = static_cast<std::uint8_t>(entry.name.size()),
                           .type = entry.type};
  std::memcpy(at, &leaf_slot, sizeof leaf_slot);
  ++header.count;
}

// Puts entries one behind the other into an initialised leaf.
class LeafAppender {
 public:
  explicit LeafAppender(MutableDirectoryPageBytes page) : page_(page) {
    initialise_leaf(page_);
    header_ = directory_header_of(page_);
  }
  bool append(const LeafEntry& entry) {
    if (gap_bytes(header_) < leaf_entry_bytes(entry.name.size())) return false;
    place_entry(page_, header_, header_.count, entry);
    return true;
  }
  bool append_all(DirectoryPageBytes source) {
    const LeafView view(source);
    LeafEntry entry;
    for (unsigned slot = 0; slot < view.count(); ++slot) {
      if (!view.entry(slot, entry) || !append(entry)) return false;
    }
    return true;
  }
  void finish() { store_header(page_, header_); }

 private:
  MutableDirectoryPageBytes page_;
  DirectoryPageHeader header_;
};

// Writes to `fresh`, which is all zero, what is in the page, without the waste in its heap. False when an entry is
// damaged.
bool compact(DirectoryPageBytes page, MutableDirectoryPageBytes fresh) {
  LeafAppender appender(fresh);
  if (!appender.append_all(page)) return false;
  appender.finish();
  return true;
}

// The heap of a leaf when the record of `slot` is taken out of it.
DirectoryPageHeader header_without(DirectoryPageHeader header, const LeafSlot& slot) {
  const std::size_t size = record_bytes(slot.name_bytes);
  if (slot.record_offset == header.heap_start) {
    header.heap_start = static_cast<std::uint16_t>(header.heap_start + size);
  }
  header.heap_live_bytes = static_cast<std::uint16_t>(header.heap_live_bytes - size);
  --header.count;
  return header;
}

// Damage can leave a live size that does not fit the shrunken heap; such a page must not get any further.
NodeOutcome outcome_of_removal(const DirectoryPageHeader& header, const LeafSlot& slot) {
  if (header.heap_live_bytes < record_bytes(slot.name_bytes)) return NodeOutcome::kDamaged;
  const DirectoryPageHeader left = header_without(header, slot);
  return left.heap_live_bytes > kBlockSize - left.heap_start ? NodeOutcome::kDamaged : NodeOutcome::kDone;
}

NodeOutcome outcome_of_insert(DirectoryPageBytes page, const DirectoryPageHeader& header, std::size_t name_bytes) {
  const std::size_t needed = leaf_entry_bytes(name_bytes);
  if (header.count * sizeof(LeafSlot) + header.heap_live_bytes + needed > kDirectoryBodyBytes) {
    return NodeOutcome::kFull;
  }
  if (gap_bytes(header) >= needed) return NodeOutcome::kDone;
  std::array<std::byte, kBlockSize> fresh{};
  if (!compact(page, fresh)) return NodeOutcome::kDamaged;
  return gap_bytes(directory_header_of(fresh)) >= needed ? NodeOutcome::kDone : NodeOutcome::kDamaged;
}

void insert_into_leaf(MutableDirectoryPageBytes page, unsigned slot, const LeafEntry& entry) {
  if (gap_bytes(directory_header_of(page)) < leaf_entry_bytes(entry.name.size())) {
    std::array<std::byte, kBlockSize> fresh{};
    TARNFS_ASSERT(compact(page, fresh));
    std::memcpy(page.data(), fresh.data(), kBlockSize);
  }
  DirectoryPageHeader header = directory_header_of(page);
  TARNFS_ASSERT(slot <= header.count && gap_bytes(header) >= leaf_entry_bytes(entry.name.size()));
  place_entry(page, header, slot, entry);
  store_header(page, header);
}

void remove_from_leaf(MutableDirectoryPageBytes page, unsigned slot) {
  const LeafSlot leaf_slot = load_leaf_slot(page, slot);
  const DirectoryPageHeader header = header_without(directory_header_of(page), leaf_slot);
  std::memset(page.data() + leaf_slot.record_offset, 0, record_bytes(leaf_slot.name_bytes));
  std::byte* const at = page.data() + LeafView::slot_offset(slot);
  std::memmove(at, at + sizeof(LeafSlot), (header.count - slot) * sizeof(LeafSlot));
  std::memset(page.data() + LeafView::slot_offset(header.count), 0, sizeof(LeafSlot));
  store_header(page, header);
}

void replace_in_leaf(MutableDirectoryPageBytes page, unsigned slot, std::uint64_t inode, std::uint8_t type) {
  LeafSlot leaf_slot = load_leaf_slot(page, slot);
  leaf_slot.type = type;
  std::memcpy(page.data() + LeafView::slot_offset(slot), &leaf_slot, sizeof leaf_slot);
  const LeafRecord record{.inode = inode};
  std::memcpy(page.data() + leaf_slot.record_offset, &record, sizeof record);
}

}  // namespace

bool valid_directory_page(DirectoryPageBytes page) {
  const DirectoryPageHeader header = directory_header_of(page);
  if (header.magic != kDirectoryMagic || header.count == 0) return false;
  if (header.type == kDirectoryLeaf) {
    const std::size_t count = header.count;
    return header.level == 0 && header.heap_start <= kBlockSize &&
           kHeaderBytes + count * sizeof(LeafSlot) <= header.heap_start &&
           header.heap_live_bytes <= kBlockSize - header.heap_start &&
           header.heap_live_bytes >= count * record_bytes(1);
  }
  return header.type == kDirectoryIndex && header.level >= 1 && header.level < kDirectoryHeightMax &&
         header.count <= kIndexSlotsMax;
}

bool LeafView::entry(unsigned slot, LeafEntry& out) const {
  const LeafSlot leaf_slot = load_leaf_slot(page_, slot);
  if (!record_in_heap(header_, leaf_slot) || leaf_slot.type > 12 || (kFileTypes >> leaf_slot.type & 1) == 0) {
    return false;
  }
  const std::byte* const at = page_.data() + leaf_slot.record_offset;
  LeafRecord record;
  std::memcpy(&record, at, sizeof record);
  out.key = leaf_slot.key;
  out.inode = record.inode;
  out.type = leaf_slot.type;
  out.name = std::string_view(reinterpret_cast<const char*>(at + sizeof record), leaf_slot.name_bytes);
  return record.inode != 0;
}

unsigned LeafView::lower_bound(std::uint64_t key_wanted) const {
  unsigned first = 0;
  unsigned length = count();
  while (length > 0) {
    const unsigned half = length / 2;
    const bool below = key(first + half) < key_wanted;
    first = below ? first + half + 1 : first;
    length = below ? length - half - 1 : half;
  }
  return first;
}

unsigned IndexView::child_for(std::uint64_t key_wanted) const {
  // The last slot with a key of at most key_wanted; slot 0 counts as one.
  unsigned first = 0;
  unsigned length = count();
  while (length > 1) {
    const unsigned half = length / 2;
    const bool right = slot(first + half).key <= key_wanted;
    first = right ? first + half : first;
    length = right ? length - half : half;
  }
  return first;
}

void initialise_leaf(MutableDirectoryPageBytes page) {
  store_header(page, DirectoryPageHeader{.type = kDirectoryLeaf, .heap_start = kBlockSize});
}

void initialise_index(MutableDirectoryPageBytes page, std::uint8_t level) {
  store_header(page, DirectoryPageHeader{.type = kDirectoryIndex, .level = level});
}

NodeOutcome outcome_of(DirectoryPageBytes page, const LeafEdit& edit) {
  const DirectoryPageHeader header = directory_header_of(page);
  if (edit.kind == LeafEdit::Kind::kInsert) return outcome_of_insert(page, header, edit.entry.name.size());
  const LeafSlot leaf_slot = load_leaf_slot(page, edit.slot);
  if (!record_in_heap(header, leaf_slot)) return NodeOutcome::kDamaged;
  if (edit.kind == LeafEdit::Kind::kReplace) return NodeOutcome::kDone;
  return outcome_of_removal(header, leaf_slot);
}

void apply_edit(MutableDirectoryPageBytes page, const LeafEdit& edit) {
  switch (edit.kind) {
    case LeafEdit::Kind::kInsert:
      return insert_into_leaf(page, edit.slot, edit.entry);
    case LeafEdit::Kind::kRemove:
      return remove_from_leaf(page, edit.slot);
    case LeafEdit::Kind::kReplace:
      return replace_in_leaf(page, edit.slot, edit.entry.inode, edit.entry.type);
  }
}

NodeOutcome split_leaf(DirectoryPageBytes page, unsigned slot, const LeafEntry& added, MutableDirectoryPageBytes left,
                       MutableDirectoryPageBytes right) {
  const LeafView view(page);
  const std::size_t half_bytes = (view.used_bytes() + leaf_entry_bytes(added.name.size())) / 2;
  LeafAppender left_appender(left);
  LeafAppender right_appender(right);
  std::size_t before_bytes = 0;
  const unsigned total = view.count() + 1;
  for (unsigned position = 0; position < total; ++position) {
    LeafEntry entry = added;
    if (position != slot && !view.entry(position - (position > slot ? 1 : 0), entry)) return NodeOutcome::kDamaged;
    const std::size_t size = leaf_entry_bytes(entry.name.size());
    // To the left when the middle of the entry is in the left half; each side gets one at least.
    const bool to_left = position == 0 || (position + 1 < total && before_bytes + size / 2 < half_bytes);
    if (!(to_left ? left_appender : right_appender).append(entry)) return NodeOutcome::kDamaged;
    before_bytes += size;
  }
  left_appender.finish();
  right_appender.finish();
  return NodeOutcome::kDone;
}

NodeOutcome merge_leaves(DirectoryPageBytes left, DirectoryPageBytes right, MutableDirectoryPageBytes merged) {
  LeafAppender appender(merged);
  if (!appender.append_all(left) || !appender.append_all(right)) return NodeOutcome::kDamaged;
  appender.finish();
  return NodeOutcome::kDone;
}

NodeOutcome insert_into_index(MutableDirectoryPageBytes page, unsigned position, const IndexSlot& slot) {
  DirectoryPageHeader header = directory_header_of(page);
  TARNFS_ASSERT(position <= header.count);
  if (header.count >= kIndexSlotsMax) return NodeOutcome::kFull;
  std::byte* const at = page.data() + IndexView::slot_offset(position);
  std::memmove(at + sizeof slot, at, (header.count - position) * sizeof slot);
  std::memcpy(at, &slot, sizeof slot);
  ++header.count;
  store_header(page, header);
  return NodeOutcome::kDone;
}

void remove_from_index(MutableDirectoryPageBytes page, unsigned position) {
  DirectoryPageHeader header = directory_header_of(page);
  TARNFS_ASSERT(position < header.count);
  --header.count;
  std::byte* const at = page.data() + IndexView::slot_offset(position);
  std::memmove(at, at + sizeof(IndexSlot), (header.count - position) * sizeof(IndexSlot));
  std::memset(page.data() + IndexView::slot_offset(header.count), 0, sizeof(IndexSlot));
  if (position == 0 && header.count > 0) {
    const std::uint64_t unused_key = 0;
    std::memcpy(page.data() + IndexView::slot_offset(0) + offsetof(IndexSlot, key), &unused_key, sizeof unused_key);
  }
  store_header(page, header);
}

void split_index(DirectoryPageBytes page, unsigned position, const IndexSlot& added, MutableDirectoryPageBytes left,
                 MutableDirectoryPageBytes right, std::uint64_t& separator) {
  const DirectoryPageHeader header = directory_header_of(page);
  TARNFS_ASSERT(header.count == kIndexSlotsMax && position > 0 && position <= header.count);
  std::array<IndexSlot, kIndexSlotsMax + 1> slots;
  const IndexView view(page);
  for (unsigned i = 0; i < slots.size(); ++i) slots[i] = i == position ? added : view.slot(i - (i > position ? 1 : 0));
  constexpr unsigned kLeftSlots = (kIndexSlotsMax + 1) / 2;
  constexpr unsigned kRightSlots = kIndexSlotsMax + 1 - kLeftSlots;
  separator = slots[kLeftSlots].key;
  slots[kLeftSlots].key = 0;
  store_header(left, DirectoryPageHeader{.type = kDirectoryIndex, .level = header.level, .count = kLeftSlots});
  store_header(right, DirectoryPageHeader{.type = kDirectoryIndex, .level = header.level, .count = kRightSlots});
  std::memcpy(left.data() + IndexView::slot_offset(0), slots.data(), kLeftSlots * sizeof(IndexSlot));
  std::memcpy(right.data() + IndexView::slot_offset(0), slots.data() + kLeftSlots, kRightSlots * sizeof(IndexSlot));
}

NodeOutcome merge_indexes(DirectoryPageBytes left, DirectoryPageBytes right, std::uint64_t separator,
                          MutableDirectoryPageBytes merged) {
  DirectoryPageHeader header = directory_header_of(left);
  const unsigned left_slots = header.count;
  const unsigned right_slots = directory_header_of(right).count;
  if (left_slots + right_slots > kIndexSlotsMax) return NodeOutcome::kFull;
  header.count = static_cast<std::uint16_t>(left_slots + right_slots);
  store_header(merged, header);
  std::byte* const middle = merged.data() + IndexView::slot_offset(left_slots);
  std::memcpy(merged.data() + IndexView::slot_offset(0), left.data() + IndexView::slot_offset(0),
              left_slots * sizeof(IndexSlot));
  std::memcpy(middle, right.data() + IndexView::slot_offset(0), right_slots * sizeof(IndexSlot));
  std::memcpy(middle + offsetof(IndexSlot, key), &separator, sizeof separator);
  return NodeOutcome::kDone;
}

}  // namespace tarnfs
