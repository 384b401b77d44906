// The messages between primary and mirror, and their bytes. PROTOCOL.md says who sends what, when.
//
// Purpose: encode a message to a header frame and decode it again. The pages of Blocks travel beside the header, see
// mirror/wire/payload.h.
//
// Invariants:
//   1. A header begins with an envelope of 12 bytes that is the same in all versions of the protocol: magic, version,
//      type, length of the body. Refuse has the same body in all versions, so that a peer of another version can be
//      told why.
//   2. decode() reads a length only after it was compared with its limit, and takes no header with bytes left over.
//
// Thread safety: plain functions on values.
// Errors: kCorrupt for what is no message, kIncompatible for a message of another version.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "common/format.h"
#include "common/page.h"
#include "common/result.h"
#include "common/types.h"

namespace tarnfs::wire {

inline constexpr std::uint16_t kProtocolVersion = 2;
inline constexpr std::uint32_t kEnvelopeMagic = 0x4e524154;  // "TARN" in bytes
inline constexpr std::size_t kEnvelopeBytes = 12;
inline constexpr std::size_t kHeaderMaxBytes = 16384;
inline constexpr std::size_t kBatchBlocksMax = 256;    // of one Blocks message: 1 MiB
inline constexpr std::size_t kOfferBlocksMax = 16384;  // of one Offer: 64 MiB
inline constexpr std::size_t kTextMaxBytes = 1024;
// Messages with a sequence number or a root that the mirror has not answered yet.
inline constexpr std::uint64_t kUnansweredMessagesMax = 64;

using BlockBytes = std::array<std::byte, kBlockSize>;

// The primary's first message: who it is and what it has.
struct Hello {
  VolumeId volume;
  std::string label;
  BlockBytes superblock{};
  Epoch epoch;
  Cp newest;
  std::uint64_t root_checksum = 0;
  std::vector<HistoryEntry> history;  // ended epochs, oldest first
  Id128 sender;                       // made by each process anew: who comes again is known by it
};

// The mirror's answer: what it has.
struct Welcome {
  bool has_state = false;
  Epoch epoch;
  Cp cp;
  std::uint64_t root_checksum = 0;
  std::uint64_t window_bytes = 0;  // the mirror takes no more un-applied bytes than this
  Timestamp time;                  // when the primary published that state
  bool has_parts = false;          // the image has blocks of a later state, from a copy that was cut off
};

enum class RefuseCode : std::uint8_t {
  kVersion = 1,   // the peer speaks another version
  kVolume = 2,    // the mirror holds another volume
  kBusy = 3,      // the mirror serves another primary
  kDiverged = 4,  // the two have histories of their own
  kProtocol = 5,  // the peer broke the protocol
  kFailed = 6,    // the mirror cannot write
};

struct Refuse {
  RefuseCode code = RefuseCode::kProtocol;
  std::string text;
};

struct BlockEntry {
  Address address;
  std::uint64_t checksum = 0;
  bool operator==(const BlockEntry&) const = default;
};

struct Blocks {
  Cp cp;
  std::uint64_t sequence = 0;  // 1 for the first of the connection
  std::vector<BlockEntry> entries;
  bool compressed = false;
  std::uint32_t raw_bytes = 0;
};

struct Root {
  BlockBytes root{};
  Cp base;                             // the root that the mirror has published, which the blocks were sent on top of
  std::uint64_t block_count = 0;       // blocks sent since `base`
  std::uint64_t running_checksum = 0;  // of their addresses and checksums, see RunningChecksum
};

struct Published {
  Cp cp;
  std::uint64_t root_checksum = 0;
};

// All Blocks up to `sequence` were applied; `applied_bytes` are their raw bytes since the connection began.
struct Credit {
  std::uint64_t sequence = 0;
  std::uint64_t applied_bytes = 0;
};

struct Ping {
  std::uint64_t stamp = 0;
};

struct Pong {
  std::uint64_t stamp = 0;
};

struct Bye {};

// Blocks of `cp` that the mirror may have from a copy that was cut off: their addresses and checksums are the payload,
// see payload.h.
struct Offer {
  Cp cp;
  std::uint32_t count = 0;  // 1 to kOfferBlocksMax
};

// The answer: a bit for each block of the offer, set when it has to be sent. The others count as applied.
struct Want {
  std::uint32_t count = 0;
  std::vector<std::uint8_t> bits;  // block i: bit i % 8 of byte i / 8; those beyond the count are 0
};

// The order is the type's number on the wire, from 1.
using AnyMessage = std::variant<Hello, Welcome, Refuse, Blocks, Root, Published, Credit, Ping, Pong, Bye, Offer, Want>;

std::vector<std::byte> encode(const AnyMessage& message);
Result<AnyMessage> decode(std::span<const std::byte> header);
// For logs and errors.
std::string_view name_of(const AnyMessage& message);

// What both sides compute over the blocks since the last root, so that a Root is accepted only on top of exactly
// these, in this order.
class RunningChecksum {
 public:
  void add(const BlockEntry& entry);
  std::uint64_t value() const { return value_; }
  std::uint64_t count() const { return count_; }
  void reset() { *this = {}; }

 private:
  std::uint64_t value_ = 0;
  std::uint64_t count_ = 0;
};

}  // namespace tarnfs::wire
