#include "fs/journal/journal_batch.h"

#include <algorithm>
#include <cstring>

#include "common/checksum.h"

namespace tarnfs {

JournalBatch::JournalBatch() : bytes_(sizeof(JournalBatchHeader)) {}

void JournalBatch::add(const JournalRecord& record) {
  encode(record, bytes_);
  ++header_.record_count;
}

void JournalBatch::add_encoded(std::span<const std::byte> records, std::uint32_t count) {
  bytes_.insert(bytes_.end(), records.begin(), records.end());
  header_.record_count += count;
}

std::uint64_t JournalBatch::size_blocks() const {
  return (bytes_.size() + kBlockSize - 1) / kBlockSize + pages_.size();
}

void JournalBatch::seal(const JournalPosition& at, const VolumeId& volume, const Epoch& epoch) {
  header_.chain = at.chain;
  header_.sequence = at.sequence;
  header_.volume = volume.bytes;
  header_.epoch = epoch.bytes;
  header_.size_bytes = static_cast<std::uint32_t>(bytes_.size());
  header_.page_count = static_cast<std::uint32_t>(pages_.size());
  header_.checksum = 0;
  std::memcpy(bytes_.data(), &header_, sizeof header_);
  header_.checksum = checksum_of(bytes_);
  std::memcpy(bytes_.data(), &header_, sizeof header_);
}

std::vector<PageRef> JournalBatch::blocks() const {
  std::vector<PageRef> blocks;
  blocks.reserve(size_blocks());
  const std::span<const std::byte> bytes(bytes_);
  for (std::size_t done = 0; done < bytes.size(); done += kBlockSize) {
    blocks.push_back(PageRef::copy_of(bytes.subspan(done, std::min(kBlockSize, bytes.size() - done))));
  }
  blocks.insert(blocks.end(), pages_.begin(), pages_.end());
  return blocks;
}

}  // namespace tarnfs
