// One batch of the journal while it is put together: records, and the pages that they name.
//
// Invariants:
//   1. The pages stand in the order in which the records name them.
//
// Thread safety: belongs to one thread.
// Ownership: shares the pages; they do not change meanwhile (PageRef).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/page.h"
#include "fs/journal/journal_format.h"
#include "fs/journal/journal_record.h"

namespace tarnfs {

class JournalBatch {
 public:
  JournalBatch();

  void add(const JournalRecord& record);
  // Records that were encoded before.
  void add_encoded(std::span<const std::byte> records, std::uint32_t count);
  void add_page(PageRef page) { pages_.push_back(std::move(page)); }

  bool empty() const { return header_.record_count == 0; }
  std::uint64_t size_blocks() const;
  // Fills the header in; nothing is added from then on.
  void seal(const JournalPosition& at, const VolumeId& volume, const Epoch& epoch);
  std::uint64_t checksum() const { return header_.checksum; }
  // The sealed batch as the blocks that go to the ring.
  std::vector<PageRef> blocks() const;

 private:
  JournalBatchHeader header_;
  std::vector<std::byte> bytes_;  // the header's place, then the records
  std::vector<PageRef> pages_;
};

}  // namespace tarnfs
