// One page of a directory's tree: reading it, and building its next version.
//
// Purpose: all knowledge of the bytes of directory_format.h in one place; the tree works on slots and entries.
//
// Invariants:
//   1. A page is looked at only after valid_directory_page() accepted it; then all slots can be read. A record is
//      checked when its entry is read.
//   2. No function writes or reads outside the page, whatever its bytes are.
//
// Thread safety: plain functions and views on the caller's memory; a view is valid as long as the page.
// Errors: false or kDamaged for bytes that are not what they must be; the caller knows the page's index for a message.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "common/types.h"
#include "fs/tree/directory_format.h"

namespace tarnfs {

using DirectoryPageBytes = std::span<const std::byte, kBlockSize>;
using MutableDirectoryPageBytes = std::span<std::byte, kBlockSize>;

// True when the header fits the page: magic, type and level, count and heap.
bool valid_directory_page(DirectoryPageBytes page);

inline DirectoryPageHeader directory_header_of(DirectoryPageBytes page) {
  DirectoryPageHeader header;
  std::memcpy(&header, page.data(), sizeof header);
  return header;
}

struct LeafEntry {
  std::uint64_t key = 0;
  std::uint64_t inode = 0;
  std::uint8_t type = 0;  // mode >> 12
  std::string_view name;
};

class LeafView {
 public:
  explicit LeafView(DirectoryPageBytes page) : page_(page), header_(directory_header_of(page)) {}
  unsigned count() const { return header_.count; }
  std::uint64_t key(unsigned slot) const {
    std::uint64_t key;
    std::memcpy(&key, page_.data() + slot_offset(slot), sizeof key);
    return key;
  }
  // False when the record is damaged.
  bool entry(unsigned slot, LeafEntry& out) const;
  // The first slot whose key is at least `key`, or count().
  unsigned lower_bound(std::uint64_t key) const;
  // Bytes of the body that slots and live records use.
  std::size_t used_bytes() const { return header_.count * sizeof(LeafSlot) + header_.heap_live_bytes; }

  static std::size_t slot_offset(unsigned slot) { return sizeof(DirectoryPageHeader) + slot * sizeof(LeafSlot); }

 private:
  DirectoryPageBytes page_;
  DirectoryPageHeader header_;
};

class IndexView {
 public:
  explicit IndexView(DirectoryPageBytes page) : page_(page), header_(directory_header_of(page)) {}
  unsigned count() const { return header_.count; }
  IndexSlot slot(unsigned position) const {
    IndexSlot slot;
    std::memcpy(&slot, page_.data() + slot_offset(position), sizeof slot);
    return slot;
  }
  // The slot of the child whose range holds `key`.
  unsigned child_for(std::uint64_t key) const;

  static std::size_t slot_offset(unsigned slot) { return sizeof(DirectoryPageHeader) + slot * sizeof(IndexSlot); }

 private:
  DirectoryPageBytes page_;
  DirectoryPageHeader header_;
};

// What a leaf needs for one more entry.
constexpr std::size_t leaf_entry_bytes(std::size_t name_bytes) {
  return sizeof(LeafSlot) + sizeof(LeafRecord) + name_bytes;
}

enum class NodeOutcome { kDone, kFull, kDamaged };

// The change of one entry of a leaf, before it is made: how it ends is known without touching the page.
struct LeafEdit {
  enum class Kind { kInsert, kRemove, kReplace };
  Kind kind = Kind::kInsert;
  unsigned slot = 0;  // kInsert: where the entry comes
  LeafEntry entry;    // kInsert: all of it; kReplace: the inode and type. The name is the caller's memory
};

// How the edit of a valid leaf ends. kFull: an insert finds no room, even in a page without waste.
NodeOutcome outcome_of(DirectoryPageBytes page, const LeafEdit& edit);
// Makes an edit for which outcome_of() said kDone.
void apply_edit(MutableDirectoryPageBytes page, const LeafEdit& edit);

// The functions that build pages. `page` of initialise_* is all zero; that of the others is a valid page. On kFull and
// kDamaged what they write to is undefined, except that insert_into_index leaves a full `page` as it was.
void initialise_leaf(MutableDirectoryPageBytes page);
void initialise_index(MutableDirectoryPageBytes page, std::uint8_t level);

// Divides the entries of `page` and `added`, which comes at `slot`, by size between `left` and `right` (all zero).
NodeOutcome split_leaf(DirectoryPageBytes page, unsigned slot, const LeafEntry& added, MutableDirectoryPageBytes left,
                       MutableDirectoryPageBytes right);
// Puts all entries of both into `merged` (all zero).
NodeOutcome merge_leaves(DirectoryPageBytes left, DirectoryPageBytes right, MutableDirectoryPageBytes merged);

NodeOutcome insert_into_index(MutableDirectoryPageBytes page, unsigned position, const IndexSlot& slot);
// Removes a child; its range goes to the child before it, or to the one behind it when it is the first.
void remove_from_index(MutableDirectoryPageBytes page, unsigned position);
// Divides the slots of `page`, which is full, and `added`, which comes at `position` (not 0), between `left` and
// `right` (all zero). `separator` becomes the low bound of the right one.
void split_index(DirectoryPageBytes page, unsigned position, const IndexSlot& added, MutableDirectoryPageBytes left,
                 MutableDirectoryPageBytes right, std::uint64_t& separator);
// Puts all slots of both into `merged` (all zero); `separator` is the low bound of `right`.
NodeOutcome merge_indexes(DirectoryPageBytes left, DirectoryPageBytes right, std::uint64_t separator,
                          MutableDirectoryPageBytes merged);

}  // namespace tarnfs
