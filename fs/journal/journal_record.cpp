#include "fs/journal/journal_record.h"

#include "common/byte_codec.h"

namespace tarnfs {
namespace {

constexpr std::size_t kRecordAlignment = 8;

Error not_a_record(std::string_view what) {
  return Error(ErrorCode::kCorrupt, "a record of the journal has " + std::string(what));
}

void put_numbers(ByteEncoder& encoder, std::initializer_list<InodeNumber> numbers) {
  for (const InodeNumber number : numbers) encoder.put(number.value);
}

InodeNumber get_number(ByteDecoder& decoder) {
  return InodeNumber{decoder.get<std::uint64_t>()};
}

void encode_body(const JournalMake& make, JournalRecordHeader& header, ByteEncoder& encoder) {
  header.type = JournalRecordType::kMake;
  header.name_bytes = static_cast<std::uint8_t>(make.name.size());
  put_numbers(encoder, {make.parent, make.inode, make.attribute_inode});
  encoder.put(make.attributes);
  encoder.put(static_cast<std::uint32_t>(make.symlink_target.size()));
  encoder.put(static_cast<std::uint32_t>(make.xattrs.size()));
  encoder.put_text(make.name);
  encoder.put_text(make.symlink_target);
  encoder.put_bytes(make.xattrs);
}

JournalMake decode_make(const JournalRecordHeader& header, ByteDecoder& decoder) {
  JournalMake make;
  make.parent = get_number(decoder);
  make.inode = get_number(decoder);
  make.attribute_inode = get_number(decoder);
  make.attributes = decoder.get<JournalAttributes>();
  const auto target_bytes = decoder.get<std::uint32_t>();
  const auto xattr_bytes = decoder.get<std::uint32_t>();
  make.name = decoder.get_text(header.name_bytes);
  make.symlink_target = decoder.get_text(target_bytes);
  make.xattrs = decoder.get_bytes(xattr_bytes);
  return make;
}

// A name of an inode that came or went.
template <class NameChange>
void encode_name_change(const NameChange& change, JournalRecordType type, JournalRecordHeader& header,
                        ByteEncoder& encoder) {
  header.type = type;
  header.name_bytes = static_cast<std::uint8_t>(change.name.size());
  put_numbers(encoder, {change.parent, change.inode});
  encoder.put_text(change.name);
}

template <class NameChange>
NameChange decode_name_change(const JournalRecordHeader& header, ByteDecoder& decoder) {
  NameChange change;
  change.parent = get_number(decoder);
  change.inode = get_number(decoder);
  change.name = decoder.get_text(header.name_bytes);
  return change;
}

void encode_body(const JournalLink& link, JournalRecordHeader& header, ByteEncoder& encoder) {
  encode_name_change(link, JournalRecordType::kLink, header, encoder);
}

void encode_body(const JournalRemove& remove, JournalRecordHeader& header, ByteEncoder& encoder) {
  encode_name_change(remove, JournalRecordType::kRemove, header, encoder);
}

void encode_body(const JournalRename& rename, JournalRecordHeader& header, ByteEncoder& encoder) {
  header.type = JournalRecordType::kRename;
  header.flags = rename.exchange ? kJournalRenameExchange : 0;
  header.name_bytes = static_cast<std::uint8_t>(rename.from_name.size());
  header.other_name_bytes = static_cast<std::uint8_t>(rename.to_name.size());
  put_numbers(encoder, {rename.from, rename.to, rename.source, rename.target});
  encoder.put_text(rename.from_name);
  encoder.put_text(rename.to_name);
}

JournalRename decode_rename(const JournalRecordHeader& header, ByteDecoder& decoder) {
  JournalRename rename;
  rename.from = get_number(decoder);
  rename.to = get_number(decoder);
  rename.source = get_number(decoder);
  rename.target = get_number(decoder);
  rename.exchange = (header.flags & kJournalRenameExchange) != 0;
  rename.from_name = decoder.get_text(header.name_bytes);
  rename.to_name = decoder.get_text(header.other_name_bytes);
  return rename;
}

void encode_body(const JournalInodeState& state, JournalRecordHeader& header, ByteEncoder& encoder) {
  header.type = JournalRecordType::kInodeState;
  header.flags = state.xattrs ? kJournalHasXattrs : 0;
  put_numbers(encoder, {state.inode, state.attribute_inode});
  encoder.put(state.attributes);
  encoder.put(static_cast<std::uint32_t>(state.xattrs ? state.xattrs->size() : 0));
  encoder.put(static_cast<std::uint32_t>(state.cut.size()));
  encoder.put(static_cast<std::uint32_t>(state.pages.size()));
  encoder.put(static_cast<std::uint32_t>(state.reserved.size()));
  for (const JournalPageRange& range : state.cut) encoder.put(range);
  for (const JournalPageRange& range : state.reserved) encoder.put(range);
  for (const JournalPages& run : state.pages) {
    encoder.put(JournalPageRun{run.first_page, run.address.value, static_cast<std::uint32_t>(run.checksums.size()), 0});
    encoder.put_bytes(std::as_bytes(std::span(run.checksums)));
  }
  if (state.xattrs) encoder.put_bytes(*state.xattrs);
}

template <class T>
void get_elements(ByteDecoder& decoder, std::size_t count, std::vector<T>& out) {
  // The bytes are asked for before memory is, so that a damaged count cannot take much.
  ByteDecoder elements(decoder.get_bytes(count * sizeof(T)));
  if (!decoder.ok()) return;
  out.resize(count);
  for (T& element : out) element = elements.get<T>();
}

JournalInodeState decode_state(const JournalRecordHeader& header, ByteDecoder& decoder) {
  JournalInodeState state;
  state.inode = get_number(decoder);
  state.attribute_inode = get_number(decoder);
  state.attributes = decoder.get<JournalAttributes>();
  const auto xattr_bytes = decoder.get<std::uint32_t>();
  const auto cut_count = decoder.get<std::uint32_t>();
  const auto run_count = decoder.get<std::uint32_t>();
  const auto reserved_count = decoder.get<std::uint32_t>();
  get_elements(decoder, cut_count, state.cut);
  get_elements(decoder, reserved_count, state.reserved);
  for (std::uint32_t i = 0; i < run_count && decoder.ok(); ++i) {
    const auto run = decoder.get<JournalPageRun>();
    JournalPages pages;
    pages.first_page = run.first_page;
    pages.address = Address{run.address};
    get_elements(decoder, run.count, pages.checksums);
    state.pages.push_back(std::move(pages));
  }
  const auto xattrs = decoder.get_bytes(xattr_bytes);
  if ((header.flags & kJournalHasXattrs) != 0) state.xattrs.emplace(xattrs.begin(), xattrs.end());
  return state;
}

}  // namespace

void encode(const JournalRecord& record, std::vector<std::byte>& out) {
  ByteEncoder encoder(out);
  const std::size_t start = encoder.size_bytes();
  JournalRecordHeader header;
  encoder.put(header);
  std::visit([&](const auto& body) { encode_body(body, header, encoder); }, record.body);
  encoder.align(kRecordAlignment);
  header.size_bytes = static_cast<std::uint32_t>(encoder.size_bytes() - start);
  header.cp = record.cp.value;
  header.time_seconds = record.time.seconds;
  header.time_nanoseconds = record.time.nanoseconds;
  encoder.put_at(start, header);
}

Result<JournalRecord> decode_record(std::span<const std::byte>& bytes) {
  JournalRecordHeader header;
  if (bytes.size() < sizeof header) return not_a_record("no whole header");
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.size_bytes < sizeof header || header.size_bytes > bytes.size() ||
      header.size_bytes % kRecordAlignment != 0) {
    return not_a_record("an impossible size");
  }
  ByteDecoder decoder(bytes.subspan(sizeof header, header.size_bytes - sizeof header));
  JournalRecord record;
  record.cp = Cp{header.cp};
  record.time = {header.time_seconds, header.time_nanoseconds};
  switch (header.type) {
    case JournalRecordType::kMake:
      record.body = decode_make(header, decoder);
      break;
    case JournalRecordType::kLink:
      record.body = decode_name_change<JournalLink>(header, decoder);
      break;
    case JournalRecordType::kRemove:
      record.body = decode_name_change<JournalRemove>(header, decoder);
      break;
    case JournalRecordType::kRename:
      record.body = decode_rename(header, decoder);
      break;
    case JournalRecordType::kInodeState:
      record.body = decode_state(header, decoder);
      break;
    default:
      return not_a_record("an unknown type");
  }
  if (!decoder.ok() || decoder.left_bytes() >= kRecordAlignment) return not_a_record("a size that its content has not");
  bytes = bytes.subspan(header.size_bytes);
  return record;
}

}  // namespace tarnfs
