// Reading the journal: what was made durable after the newest root.
//
// Purpose: recovery and fsck go through the batches from where the root says, one after the other, until one is not
// there.
//
// Invariants:
//   1. A batch is returned only when header, records and every page of it were verified.
//
// Thread safety: one thread.
// Errors: those of the device; kCorrupt when the journal is damaged rather than ended: the batch after the end is
// there.
#pragma once

#include <optional>
#include <vector>

#include "common/aligned_buffer.h"
#include "common/block_device.h"
#include "fs/journal/journal_record.h"
#include "fs/journal/journal_writer.h"

namespace tarnfs {

struct JournalBatchContent {
  std::vector<std::byte> bytes;  // what the records' views refer to
  std::vector<JournalRecord> records;
  std::vector<PageRef> pages;  // in the order in which the records name them
};

class JournalReader {
 public:
  JournalReader(BlockDevice& device, const JournalGeometry& geometry, const JournalPosition& start)
      : device_(device), geometry_(geometry), position_(start), buffer_(kBlocksAtOnce) {}

  // The next batch; nothing at the end.
  Result<std::optional<JournalBatchContent>> next();
  // Where the batch after the last one that next() returned goes.
  const JournalPosition& position() const { return position_; }
  // At the end: the position of a later batch that is there. Then what lies between was durable once and is damaged.
  Result<std::optional<std::uint64_t>> block_behind_damage();

 private:
  struct Head {  // a batch without its pages
    JournalBatchHeader header;
    std::vector<std::byte> bytes;
    std::uint64_t metadata_blocks = 0;
  };

  static constexpr std::size_t kBlocksAtOnce = 256;

  Result<std::span<const std::byte>> read_some(std::uint64_t block, std::uint64_t count);
  Status read_ring(std::uint64_t block, std::span<std::byte> out);
  Result<std::optional<Head>> read_head(std::uint64_t block);
  Result<bool> read_pages(const Head& head, JournalBatchContent& content);

  BlockDevice& device_;
  const JournalGeometry geometry_;
  JournalPosition position_;
  AlignedBuffer buffer_;
};

}  // namespace tarnfs
