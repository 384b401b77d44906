#include "fs/engine/xattr_set.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>

namespace tarnfs {

namespace {

static_assert(std::endian::native == std::endian::little);

Error damaged(const char* what) {
  return Error(ErrorCode::kCorrupt, fmt::format("extended attributes: {}", what));
}

Status check_name(std::string_view name) {
  if (name.empty() || name.find('\0') != std::string_view::npos) {
    return Error(ErrorCode::kInvalid, "the name of an attribute must have bytes and no NUL");
  }
  if (name.size() > kXattrNameMaxBytes) return Error(ErrorCode::kRange, "the name of an attribute is over 255 bytes");
  return {};
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

// Takes bytes from the front; `ok` turns false when they do not suffice.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : rest_(bytes) {}
  std::span<const std::byte> take(std::size_t size) {
    if (size > rest_.size()) {
      ok_ = false;
      return {};
    }
    const auto taken = rest_.first(size);
    rest_ = rest_.subspan(size);
    return taken;
  }
  template <class T>
  T take_struct() {
    T result{};
    const auto bytes = take(sizeof(T));
    if (ok_) std::memcpy(&result, bytes.data(), sizeof(T));
    return result;
  }
  bool ok() const { return ok_; }
  bool at_end() const { return rest_.empty(); }

 private:
  std::span<const std::byte> rest_;
  bool ok_ = true;
};

}  // namespace

Result<XattrSet> XattrSet::parse(std::span<const std::byte> bytes) {
  Reader reader(bytes);
  const auto header = reader.take_struct<XattrHeader>();
  if (!reader.ok() || header.magic != kXattrMagic || header.reserved != 0) return damaged("no header");
  if (header.size_bytes != bytes.size()) return damaged("the size in the header is not that of the inode");
  XattrSet result;
  for (std::uint32_t i = 0; i < header.count; ++i) {
    const auto entry = reader.take_struct<XattrEntryHeader>();
    const std::string_view name = text_of(reader.take(entry.name_bytes));
    const auto value = reader.take(entry.value_bytes);
    if (!reader.ok()) return damaged("they end within an entry");
    if (entry.reserved != XattrEntryHeader{}.reserved) return damaged("reserved bytes are not zero");
    if (!result.empty() && result.attributes_.rbegin()->first >= name) return damaged("names are out of order");
    if (const Status status = result.set(name, value, XattrMode::kCreate); !status.ok()) {
      return damaged(status.error().message().c_str());
    }
  }
  if (!reader.at_end()) return damaged("bytes behind the last entry");
  return result;
}

std::vector<std::byte> XattrSet::serialise() const {
  std::vector<std::byte> bytes(serialised_bytes());
  std::byte* at = bytes.data();
  const auto append = [&at](const void* source, std::size_t size) {
    std::memcpy(at, source, size);
    at += size;
  };
  const XattrHeader header{.count = static_cast<std::uint32_t>(count()),
                           .size_bytes = static_cast<std::uint32_t>(bytes.size())};
  append(&header, sizeof header);
  for (const auto& [name, value] : attributes_) {
    const XattrEntryHeader entry{.value_bytes = static_cast<std::uint32_t>(value.size()),
                                 .name_bytes = static_cast<std::uint8_t>(name.size())};
    append(&entry, sizeof entry);
    append(name.data(), name.size());
    append(value.data(), value.size());
  }
  return bytes;
}

Result<std::string_view> XattrSet::get(std::string_view name) const {
  const auto position = attributes_.find(name);
  if (position == attributes_.end()) return Error(ErrorCode::kNoAttribute);
  return std::string_view(position->second);
}

Status XattrSet::set(std::string_view name, std::span<const std::byte> value, XattrMode mode) {
  TARNFS_TRY(check_name(name));
  if (value.size() > kXattrValueMaxBytes) return Error(ErrorCode::kTooBig, "the value of an attribute is over 64 KiB");
  const auto position = attributes_.find(name);
  const bool exists = position != attributes_.end();
  if (exists && mode == XattrMode::kCreate) return Error(ErrorCode::kExists);
  if (!exists && mode == XattrMode::kReplace) return Error(ErrorCode::kNoAttribute);
  const std::size_t freed_bytes = exists ? position->second.size() : 0;
  const std::size_t added_bytes = value.size() + (exists ? 0 : name.size());
  const std::size_t list_bytes = list_bytes_ + (exists ? 0 : name.size() + 1);
  if (content_bytes_ - freed_bytes + added_bytes > kXattrSetMaxBytes) {
    return Error(ErrorCode::kNoSpace, "the attributes of the file would be over 1 MiB; remove some first");
  }
  if (list_bytes > kXattrListMaxBytes) {
    return Error(ErrorCode::kNoSpace, "the names of the file's attributes would be over 64 KiB; remove some first");
  }
  if (exists) {
    position->second = text_of(value);
  } else {
    attributes_.emplace(name, text_of(value));
  }
  content_bytes_ += added_bytes - freed_bytes;
  list_bytes_ = list_bytes;
  return {};
}

Status XattrSet::remove(std::string_view name) {
  const auto position = attributes_.find(name);
  if (position == attributes_.end()) return Error(ErrorCode::kNoAttribute);
  content_bytes_ -= position->first.size() + position->second.size();
  list_bytes_ -= position->first.size() + 1;
  attributes_.erase(position);
  return {};
}

std::vector<std::string> XattrSet::names() const {
  std::vector<std::string> result;
  result.reserve(attributes_.size());
  for (const auto& attribute : attributes_) result.push_back(attribute.first);
  return result;
}

}  // namespace tarnfs
