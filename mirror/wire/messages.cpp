#include "mirror/wire/messages.h"

#include <cereal/archives/portable_binary.hpp>
#include <cstring>
#include <istream>
#include <sstream>
#include <streambuf>

#include "common/checksum.h"

namespace tarnfs::wire {
namespace {

struct Envelope {
  std::uint32_t magic = kEnvelopeMagic;
  std::uint16_t version = kProtocolVersion;
  std::uint16_t type = 0;
  std::uint32_t body_bytes = 0;
};
static_assert(sizeof(Envelope) == kEnvelopeBytes);

constexpr std::uint16_t kTypeRefuse = 3;

// Reads from bytes in place; the end of the bytes is the end of the stream.
class SpanBuffer final : public std::streambuf {
 public:
  explicit SpanBuffer(std::span<const std::byte> bytes) {
    auto* begin = const_cast<char*>(reinterpret_cast<const char*>(bytes.data()));
    setg(begin, begin, begin + bytes.size());
  }
  bool at_end() const { return gptr() == egptr(); }
};

using Writer = cereal::PortableBinaryOutputArchive;
using Reader = cereal::PortableBinaryInputArchive;

template <class Archive, class Bytes>
void transfer_bytes(Archive& archive, Bytes& bytes) {
  archive(cereal::binary_data(bytes.data(), bytes.size() * sizeof(bytes[0])));
}

// A length, then so many elements. cereal itself does not bound lengths.
template <class Text>
void transfer_text(Writer& archive, Text& text) {
  const std::string kept = text.substr(0, kTextMaxBytes);
  archive(static_cast<std::uint32_t>(kept.size()));
  transfer_bytes(archive, kept);
}

std::uint32_t read_length(Reader& archive, std::size_t limit) {
  std::uint32_t length = 0;
  archive(length);
  if (length > limit) throw cereal::Exception("a length is over its limit");
  return length;
}

// Texts from a peer end up in logs and on terminals: control characters are not let through.
void transfer_text(Reader& archive, std::string& text) {
  text.resize(read_length(archive, kTextMaxBytes));
  transfer_bytes(archive, text);
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = '?';
  }
}

void transfer_flag(Writer& archive, bool flag) {
  archive(static_cast<std::uint8_t>(flag));
}

void transfer_flag(Reader& archive, bool& flag) {
  std::uint8_t byte = 0;
  archive(byte);
  if (byte > 1) throw cereal::Exception("a flag is neither 0 nor 1");
  flag = byte == 1;
}

void transfer_list(Writer& archive, std::vector<HistoryEntry>& list) {
  archive(static_cast<std::uint32_t>(list.size()));
  for (HistoryEntry& entry : list) {
    transfer_bytes(archive, entry.epoch);
    archive(entry.last_cp);
  }
}

void transfer_list(Reader& archive, std::vector<HistoryEntry>& list) {
  list.resize(read_length(archive, kHistoryMax));
  for (HistoryEntry& entry : list) {
    transfer_bytes(archive, entry.epoch);
    archive(entry.last_cp);
  }
}

void transfer_list(Writer& archive, std::vector<BlockEntry>& list) {
  archive(static_cast<std::uint32_t>(list.size()));
  for (BlockEntry& entry : list) archive(entry.address.value, entry.checksum);
}

void transfer_list(Reader& archive, std::vector<BlockEntry>& list) {
  list.resize(read_length(archive, kBatchBlocksMax));
  for (BlockEntry& entry : list) archive(entry.address.value, entry.checksum);
}

void transfer_bits(Writer& archive, std::vector<std::uint8_t>& bits) {
  archive(static_cast<std::uint32_t>(bits.size()));
  transfer_bytes(archive, bits);
}

void transfer_bits(Reader& archive, std::vector<std::uint8_t>& bits) {
  bits.resize(read_length(archive, kOfferBlocksMax / 8));
  transfer_bytes(archive, bits);
}

template <class Archive>
void transfer(Archive& archive, Hello& hello) {
  transfer_bytes(archive, hello.volume.bytes);
  transfer_text(archive, hello.label);
  transfer_bytes(archive, hello.superblock);
  transfer_bytes(archive, hello.epoch.bytes);
  archive(hello.newest.value, hello.root_checksum);
  transfer_list(archive, hello.history);
  transfer_bytes(archive, hello.sender.bytes);
}

template <class Archive>
void transfer(Archive& archive, Welcome& welcome) {
  transfer_flag(archive, welcome.has_state);
  transfer_bytes(archive, welcome.epoch.bytes);
  archive(welcome.cp.value, welcome.root_checksum, welcome.window_bytes);
  archive(welcome.time.seconds, welcome.time.nanoseconds);
  transfer_flag(archive, welcome.has_parts);
}

template <class Archive>
void transfer(Archive& archive, Refuse& refuse) {
  archive(refuse.code);
  transfer_text(archive, refuse.text);
}

template <class Archive>
void transfer(Archive& archive, Blocks& blocks) {
  archive(blocks.cp.value, blocks.sequence);
  transfer_list(archive, blocks.entries);
  transfer_flag(archive, blocks.compressed);
  archive(blocks.raw_bytes);
}

template <class Archive>
void transfer(Archive& archive, Root& root) {
  transfer_bytes(archive, root.root);
  archive(root.base.value, root.block_count, root.running_checksum);
}

template <class Archive>
void transfer(Archive& archive, Published& published) {
  archive(published.cp.value, published.root_checksum);
}

template <class Archive>
void transfer(Archive& archive, Credit& credit) {
  archive(credit.sequence, credit.applied_bytes);
}

template <class Archive>
void transfer(Archive& archive, Ping& ping) {
  archive(ping.stamp);
}

template <class Archive>
void transfer(Archive& archive, Pong& pong) {
  archive(pong.stamp);
}

template <class Archive>
void transfer(Archive&, Bye&) {}

template <class Archive>
void transfer(Archive& archive, Offer& offer) {
  archive(offer.cp.value, offer.count);
}

template <class Archive>
void transfer(Archive& archive, Want& want) {
  archive(want.count);
  transfer_bits(archive, want.bits);
}

// Makes an empty message of the type with this index.
template <std::size_t kIndex = 0>
std::optional<AnyMessage> message_of(std::size_t index) {
  if constexpr (kIndex < std::variant_size_v<AnyMessage>) {
    if (index == kIndex) return AnyMessage(std::in_place_index<kIndex>);
    return message_of<kIndex + 1>(index);
  } else {
    return std::nullopt;
  }
}

Error garbage(const std::string& what) {
  return Error(ErrorCode::kCorrupt, "the peer sent what is no message: " + what);
}

}  // namespace

std::vector<std::byte> encode(const AnyMessage& message) {
  std::ostringstream body;
  {
    Writer archive(body);
    AnyMessage copy = message;
    std::visit([&archive](auto& typed) { transfer(archive, typed); }, copy);
  }
  const std::string bytes = std::move(body).str();
  TARNFS_ASSERT(kEnvelopeBytes + bytes.size() <= kHeaderMaxBytes);
  Envelope envelope;
  envelope.type = static_cast<std::uint16_t>(message.index() + 1);
  envelope.body_bytes = static_cast<std::uint32_t>(bytes.size());
  std::vector<std::byte> header(kEnvelopeBytes + bytes.size());
  std::memcpy(header.data(), &envelope, kEnvelopeBytes);
  std::memcpy(header.data() + kEnvelopeBytes, bytes.data(), bytes.size());
  return header;
}

Result<AnyMessage> decode(std::span<const std::byte> header) {
  if (header.size() < kEnvelopeBytes || header.size() > kHeaderMaxBytes) {
    return garbage(std::to_string(header.size()) + " bytes");
  }
  Envelope envelope;
  std::memcpy(&envelope, header.data(), kEnvelopeBytes);
  if (envelope.magic != kEnvelopeMagic) return garbage("wrong magic");
  if (envelope.version != kProtocolVersion && envelope.type != kTypeRefuse) {
    return Error(ErrorCode::kIncompatible, "the peer speaks version " + std::to_string(envelope.version) +
                                               " of the protocol, this program " + std::to_string(kProtocolVersion) +
                                               "; use the same release of tarnfs on both sides");
  }
  if (envelope.body_bytes != header.size() - kEnvelopeBytes) return garbage("wrong length");
  auto message = message_of(envelope.type - std::size_t{1});
  if (!message) return garbage("unknown type " + std::to_string(envelope.type));
  SpanBuffer buffer(header.subspan(kEnvelopeBytes));
  std::istream stream(&buffer);
  try {
    Reader archive(stream);
    std::visit([&archive](auto& typed) { transfer(archive, typed); }, *message);
  } catch (const cereal::Exception&) {
    return garbage("a damaged body of type " + std::to_string(envelope.type));
  }
  if (!buffer.at_end()) return garbage("bytes after the end");
  return *std::move(message);
}

std::string_view name_of(const AnyMessage& message) {
  static constexpr std::array<std::string_view, std::variant_size_v<AnyMessage>> kNames = {
      "Hello", "Welcome", "Refuse", "Blocks", "Root", "Published", "Credit", "Ping", "Pong", "Bye", "Offer", "Want"};
  return kNames[message.index()];
}

void RunningChecksum::add(const BlockEntry& entry) {
  const std::array<std::uint64_t, 3> link{value_, entry.address.value, entry.checksum};
  value_ = checksum_of(std::as_bytes(std::span(link)));
  ++count_;
}

}  // namespace tarnfs::wire
