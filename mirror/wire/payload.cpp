#include "mirror/wire/payload.h"

#include <lz4.h>

#include <array>
#include <cstring>

#include "common/checksum.h"

namespace tarnfs::wire {
namespace {

Error bad_payload(const Blocks& blocks, const std::string& what) {
  return Error(ErrorCode::kCorrupt,
               "the peer sent damaged blocks (sequence " + std::to_string(blocks.sequence) + "): " + what);
}

}  // namespace

Result<std::vector<PageRef>> unpack(const Blocks& blocks, std::span<const Frame> payload) {
  if (blocks.entries.empty() || blocks.raw_bytes != blocks.entries.size() * kBlockSize) {
    return bad_payload(blocks, "the length does not fit the number of blocks");
  }
  if (payload.size() != 1) return bad_payload(blocks, std::to_string(payload.size()) + " payload frames");
  std::span<const std::byte> raw = payload.front().bytes;
  std::vector<std::byte> unpacked;
  if (blocks.compressed) {
    if (raw.size() >= blocks.raw_bytes) return bad_payload(blocks, "compressed bytes are longer than the blocks");
    unpacked.resize(blocks.raw_bytes);
    const int size =
        LZ4_decompress_safe(reinterpret_cast<const char*>(raw.data()), reinterpret_cast<char*>(unpacked.data()),
                            static_cast<int>(raw.size()), static_cast<int>(unpacked.size()));
    if (size != static_cast<int>(blocks.raw_bytes)) return bad_payload(blocks, "they cannot be decompressed");
    raw = unpacked;
  }
  if (raw.size() != blocks.raw_bytes) return bad_payload(blocks, "wrong length");
  std::vector<PageRef> pages;
  pages.reserve(blocks.entries.size());
  for (const BlockEntry& entry : blocks.entries) {
    pages.push_back(PageRef::copy_of(raw.first(kBlockSize)));
    raw = raw.subspan(kBlockSize);
    if (checksum_of(pages.back().bytes()) != entry.checksum) {
      return bad_payload(blocks, "wrong checksum of block " + std::to_string(entry.address.value));
    }
  }
  return pages;
}

Message pack_offer(Cp cp, std::span<const BlockPointer> blocks) {
  TARNFS_ASSERT(!blocks.empty() && blocks.size() <= kOfferBlocksMax);
  std::vector<std::byte> bytes(blocks.size() * kOfferEntryBytes);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const std::array<std::uint64_t, 2> entry{blocks[i].address, blocks[i].checksum};
    std::memcpy(bytes.data() + i * kOfferEntryBytes, entry.data(), kOfferEntryBytes);
  }
  Message message;
  message.header = encode(Offer{cp, static_cast<std::uint32_t>(blocks.size())});
  message.payload.push_back(Frame::of(std::move(bytes)));
  return message;
}

Result<std::vector<BlockEntry>> unpack(const Offer& offer, std::span<const Frame> payload) {
  const std::size_t size_bytes = payload.size() == 1 ? payload.front().bytes.size() : 0;
  if (offer.count == 0 || offer.count > kOfferBlocksMax || size_bytes != offer.count * kOfferEntryBytes) {
    return Error(ErrorCode::kCorrupt, "the peer sent a damaged offer of blocks");
  }
  std::vector<BlockEntry> entries(offer.count);
  for (std::size_t i = 0; i < entries.size(); ++i) {
    std::array<std::uint64_t, 2> entry{};
    std::memcpy(entry.data(), payload.front().bytes.data() + i * kOfferEntryBytes, kOfferEntryBytes);
    entries[i] = {Address{entry[0]}, entry[1]};
  }
  return entries;
}

}  // namespace tarnfs::wire
