#include "fs/engine/posix_acl.h"

#include <fmt/format.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <sys/stat.h>

#include <bit>
#include <cstring>

namespace tarnfs {

namespace {

static_assert(std::endian::native == std::endian::little);
static_assert(sizeof(AclEntry) == sizeof(posix_acl_xattr_entry));
static_assert(offsetof(AclEntry, permissions) == offsetof(posix_acl_xattr_entry, e_perm));
static_assert(offsetof(AclEntry, id) == offsetof(posix_acl_xattr_entry, e_id));

constexpr std::uint16_t kPermissionBits = ACL_READ | ACL_WRITE | ACL_EXECUTE;
constexpr std::uint32_t kModeBits = S_IRWXU | S_IRWXG | S_IRWXO;
constexpr std::uint32_t kNoId = 0xffffffff;

bool is_named(const AclEntry& entry) {
  return entry.tag == ACL_USER || entry.tag == ACL_GROUP;
}

Error invalid(std::size_t position, const char* what) {
  return Error(ErrorCode::kInvalid, fmt::format("entry {} of the ACL: {}", position, what));
}

// The place of a tag in the order of entries; 0 for one that does not exist.
unsigned rank_of(std::uint16_t tag) {
  switch (tag) {
    case ACL_USER_OBJ:
      return 1;
    case ACL_USER:
      return 2;
    case ACL_GROUP_OBJ:
      return 3;
    case ACL_GROUP:
      return 4;
    case ACL_MASK:
      return 5;
    case ACL_OTHER:
      return 6;
    default:
      return 0;
  }
}

Status check(const std::vector<AclEntry>& entries) {
  unsigned last_rank = 0;
  unsigned tags_seen = 0;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const AclEntry& entry = entries[i];
    const unsigned rank = rank_of(entry.tag);
    if (rank == 0) return invalid(i, "unknown tag");
    if ((entry.permissions & ~kPermissionBits) != 0) return invalid(i, "unknown permissions");
    if (is_named(entry) && entry.id == kNoId) return invalid(i, "a named entry without an id");
    if (rank < last_rank) return invalid(i, "out of order");
    if (rank == last_rank && !is_named(entry)) return invalid(i, "it is there twice");
    last_rank = rank;
    tags_seen |= entry.tag;
  }
  constexpr unsigned kBaseTags = ACL_USER_OBJ | ACL_GROUP_OBJ | ACL_OTHER;
  if ((tags_seen & kBaseTags) != kBaseTags) {
    return Error(ErrorCode::kInvalid, "an ACL must have entries for owner, group and others");
  }
  if ((tags_seen & (ACL_USER | ACL_GROUP)) != 0 && (tags_seen & ACL_MASK) == 0) {
    return Error(ErrorCode::kInvalid, "an ACL with named users or groups must have a mask");
  }
  return {};
}

// Takes from both the entry and the mode (shifted) what the other one does not have.
void intersect(AclEntry& entry, std::uint32_t& mode, unsigned shift) {
  entry.permissions = static_cast<std::uint16_t>(entry.permissions & (mode >> shift) & kPermissionBits);
  mode = (mode & ~(std::uint32_t{kPermissionBits} << shift)) | (std::uint32_t{entry.permissions} << shift);
}

}  // namespace

Result<std::optional<PosixAcl>> PosixAcl::parse(std::span<const std::byte> value) {
  posix_acl_xattr_header header{};
  if (value.size() < sizeof header) return Error(ErrorCode::kInvalid, "an ACL shorter than its header");
  std::memcpy(&header, value.data(), sizeof header);
  if (header.a_version != POSIX_ACL_XATTR_VERSION) {
    return Error(ErrorCode::kUnsupported,
                 fmt::format("an ACL of version {}, not {}", std::uint32_t{header.a_version}, POSIX_ACL_XATTR_VERSION));
  }
  const std::size_t entry_bytes = value.size() - sizeof header;
  if (entry_bytes % sizeof(AclEntry) != 0) return Error(ErrorCode::kInvalid, "an ACL that ends within an entry");
  if (entry_bytes == 0) return std::optional<PosixAcl>();
  std::vector<AclEntry> entries(entry_bytes / sizeof(AclEntry));
  std::memcpy(entries.data(), value.data() + sizeof header, entry_bytes);
  for (AclEntry& entry : entries) {
    if (!is_named(entry)) entry.id = kNoId;
  }
  TARNFS_TRY(check(entries));
  return std::optional<PosixAcl>(PosixAcl(std::move(entries)));
}

std::string PosixAcl::encode() const {
  const posix_acl_xattr_header header{.a_version = POSIX_ACL_XATTR_VERSION};
  std::string value(sizeof header + entries_.size() * sizeof(AclEntry), '\0');
  std::memcpy(value.data(), &header, sizeof header);
  std::memcpy(value.data() + sizeof header, entries_.data(), entries_.size() * sizeof(AclEntry));
  return value;
}

AclEntry* PosixAcl::find(std::uint16_t tag) {
  for (AclEntry& entry : entries_) {
    if (entry.tag == tag) return &entry;
  }
  return nullptr;
}

AclEntry& PosixAcl::group_class() {
  AclEntry* const mask = find(ACL_MASK);
  return mask != nullptr ? *mask : *find(ACL_GROUP_OBJ);
}

bool PosixAcl::is_equivalent_to_mode() const {
  for (const AclEntry& entry : entries_) {
    if (is_named(entry) || entry.tag == ACL_MASK) return false;
  }
  return true;
}

std::uint32_t PosixAcl::mode_after_set(std::uint32_t mode) const {
  std::uint32_t group_bits = 0;
  std::uint32_t rest_bits = 0;
  for (const AclEntry& entry : entries_) {
    if (entry.tag == ACL_USER_OBJ) rest_bits |= std::uint32_t{entry.permissions} << 6;
    if (entry.tag == ACL_OTHER) rest_bits |= entry.permissions;
    // The mask comes behind group:: and replaces it.
    if (entry.tag == ACL_GROUP_OBJ || entry.tag == ACL_MASK) group_bits = std::uint32_t{entry.permissions} << 3;
  }
  return (mode & ~kModeBits) | rest_bits | group_bits;
}

PosixAcl PosixAcl::after_chmod(std::uint32_t mode) const {
  PosixAcl changed = *this;
  changed.find(ACL_USER_OBJ)->permissions = static_cast<std::uint16_t>(mode >> 6 & kPermissionBits);
  changed.group_class().permissions = static_cast<std::uint16_t>(mode >> 3 & kPermissionBits);
  changed.find(ACL_OTHER)->permissions = static_cast<std::uint16_t>(mode & kPermissionBits);
  return changed;
}

InheritedAcls InheritedAcls::of(const PosixAcl& parent_default, std::uint32_t mode) {
  InheritedAcls inherited{.mode = mode};
  if (S_ISLNK(mode)) return inherited;
  PosixAcl access = parent_default;
  intersect(*access.find(ACL_USER_OBJ), inherited.mode, 6);
  intersect(access.group_class(), inherited.mode, 3);
  intersect(*access.find(ACL_OTHER), inherited.mode, 0);
  if (!access.is_equivalent_to_mode()) inherited.access = std::move(access);
  if (S_ISDIR(mode)) inherited.default_acl = parent_default;
  return inherited;
}

}  // namespace tarnfs
