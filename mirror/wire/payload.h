// The payloads of messages: the pages of a Blocks message, which Packer puts together, and the list of an Offer.
//
// Invariants:
//   1. unpack() writes nothing beyond the size that the header claims, and that size is the number of entries times
//      4096.
//   2. Every page that unpack() returns has the checksum of its entry.
//
// Thread safety: plain functions on values.
// Errors: kCorrupt.
#pragma once

#include <span>
#include <vector>

#include "common/channel.h"
#include "common/replication.h"
#include "mirror/wire/messages.h"

namespace tarnfs::wire {

inline constexpr std::size_t kOfferEntryBytes = 16;

// The pages of a Blocks message.
Result<std::vector<PageRef>> unpack(const Blocks& blocks, std::span<const Frame> payload);

// An Offer of 1 to kOfferBlocksMax blocks. The payload is their addresses and checksums, 16 bytes each, little-endian.
Message pack_offer(Cp cp, std::span<const BlockPointer> blocks);
Result<std::vector<BlockEntry>> unpack(const Offer& offer, std::span<const Frame> payload);

}  // namespace tarnfs::wire
