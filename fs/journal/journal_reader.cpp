#include "fs/journal/journal_reader.h"

#include <algorithm>
#include <cstring>

#include "common/checksum.h"

namespace tarnfs {
namespace {

// The checksums of a batch's pages, in their order.
std::vector<std::uint64_t> page_checksums(const std::vector<JournalRecord>& records) {
  std::vector<std::uint64_t> checksums;
  for (const JournalRecord& record : records) {
    const auto* const state = std::get_if<JournalInodeState>(&record.body);
    if (state == nullptr) continue;
    for (const JournalPages& run : state->pages) {
      if (run.in_batch()) checksums.insert(checksums.end(), run.checksums.begin(), run.checksums.end());
    }
  }
  return checksums;
}

}  // namespace

// Up to `count` blocks of the ring from `block` (which may count on over its end) in one request, in our own buffer.
Result<std::span<const std::byte>> JournalReader::read_some(std::uint64_t block, std::uint64_t count) {
  const std::uint64_t start = block % geometry_.size_blocks;
  count = std::min({count, geometry_.size_blocks - start, std::uint64_t{kBlocksAtOnce}});
  const std::span<std::byte> bytes = buffer_.first(count);
  TARNFS_TRY(device_.read(Address{geometry_.first.value + start}, bytes));
  return std::span<const std::byte>(bytes);
}

Status JournalReader::read_ring(std::uint64_t block, std::span<std::byte> out) {
  while (!out.empty()) {
    TARNFS_ASSIGN(const auto bytes, read_some(block, out.size() / kBlockSize));
    std::memcpy(out.data(), bytes.data(), bytes.size());
    out = out.subspan(bytes.size());
    block += bytes.size() / kBlockSize;
  }
  return {};
}

// Header and records of the batch at `block`, if there is a valid one of this volume and epoch.
Result<std::optional<JournalReader::Head>> JournalReader::read_head(std::uint64_t block) {
  Head head;
  head.bytes.resize(kBlockSize);
  TARNFS_TRY(read_ring(block, head.bytes));
  JournalBatchHeader& header = head.header;
  std::memcpy(&header, head.bytes.data(), sizeof header);
  if (header.magic != kJournalMagic || header.volume != geometry_.volume.bytes ||
      header.epoch != geometry_.epoch.bytes || header.size_bytes < sizeof header) {
    return std::optional<Head>();
  }
  head.metadata_blocks = (std::uint64_t{header.size_bytes} + kBlockSize - 1) / kBlockSize;
  if (head.metadata_blocks + header.page_count > journal_batch_blocks_max(geometry_.size_blocks)) {
    return std::optional<Head>();
  }
  head.bytes.resize(head.metadata_blocks * kBlockSize);
  TARNFS_TRY(read_ring(block + 1, std::span(head.bytes).subspan(kBlockSize)));
  head.bytes.resize(header.size_bytes);
  JournalBatchHeader unsealed = header;
  unsealed.checksum = 0;
  std::memcpy(head.bytes.data(), &unsealed, sizeof unsealed);
  if (checksum_of(head.bytes) != header.checksum) return std::optional<Head>();
  return std::optional(std::move(head));
}

// False when a page is not what its record says: the batch was torn.
Result<bool> JournalReader::read_pages(const Head& head, JournalBatchContent& content) {
  const std::vector<std::uint64_t> checksums = page_checksums(content.records);
  if (checksums.size() != head.header.page_count)
    return Error(ErrorCode::kCorrupt, "a journal batch names other pages than it has");
  while (content.pages.size() < checksums.size()) {
    const std::size_t done = content.pages.size();
    TARNFS_ASSIGN(const auto bytes, read_some(position_.block + head.metadata_blocks + done, checksums.size() - done));
    for (std::size_t offset = 0; offset < bytes.size(); offset += kBlockSize) {
      const auto page = bytes.subspan(offset, kBlockSize);
      if (checksum_of(page) != checksums[content.pages.size()]) return false;
      content.pages.push_back(PageRef::copy_of(page));
    }
  }
  return true;
}

Result<std::optional<JournalBatchContent>> JournalReader::next() {
  if (geometry_.size_blocks == 0) return std::optional<JournalBatchContent>();
  TARNFS_ASSIGN(std::optional<Head> head, read_head(position_.block));
  if (!head || head->header.sequence != position_.sequence || head->header.chain != position_.chain) {
    return std::optional<JournalBatchContent>();
  }
  JournalBatchContent content;
  content.bytes = std::move(head->bytes);
  std::span<const std::byte> rest(content.bytes);
  rest = rest.subspan(sizeof(JournalBatchHeader));
  for (std::uint32_t i = 0; i < head->header.record_count; ++i) {
    TARNFS_ASSIGN(JournalRecord record, decode_record(rest));
    content.records.push_back(std::move(record));
  }
  TARNFS_ASSIGN(const bool whole, read_pages(*head, content));
  if (!whole) return std::optional<JournalBatchContent>();
  position_.sequence += 1;
  position_.block = (position_.block + head->metadata_blocks + head->header.page_count) % geometry_.size_blocks;
  position_.chain = head->header.checksum;
  return std::optional(std::move(content));
}

Result<std::optional<std::uint64_t>> JournalReader::block_behind_damage() {
  const std::uint64_t blocks = journal_batch_blocks_max(geometry_.size_blocks);
  std::vector<std::uint64_t> candidates;
  for (std::uint64_t ahead = 1; ahead <= blocks;) {
    TARNFS_ASSIGN(const auto bytes, read_some(position_.block + ahead, blocks + 1 - ahead));
    for (std::size_t offset = 0; offset < bytes.size(); offset += kBlockSize, ++ahead) {
      std::uint64_t magic = 0;
      std::memcpy(&magic, bytes.data() + offset, sizeof magic);
      if (magic == kJournalMagic) candidates.push_back((position_.block + ahead) % geometry_.size_blocks);
    }
  }
  for (const std::uint64_t block : candidates) {
    TARNFS_ASSIGN(const std::optional<Head> head, read_head(block));
    if (head && head->header.sequence > position_.sequence) return std::optional(block);
  }
  return std::optional<std::uint64_t>();
}

}  // namespace tarnfs
