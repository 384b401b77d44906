// POSIX access control lists in the form that the kernel hands them over.
//
// Purpose: what system.posix_acl_access and system.posix_acl_default hold, and how they and the mode bits follow each
// other at setxattr, chmod and create. The rules are those of Linux (fs/posix_acl.c), so that a file system with
// default_permissions behaves like a kernel one.
//
// The bytes: a version (u32, 2), then entries of tag (u16), permissions (u16), id (u32), all little-endian.
//
// Invariants:
//   1. A PosixAcl is valid: user::, named users, group::, named groups, mask (needed when there are named ones),
//   other::,
//      in this order, with permissions of three bits.
//
// Thread safety: values and pure functions.
// Errors: kInvalid for an ACL that is none, kUnsupported for another version.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace tarnfs {

inline constexpr std::string_view kAccessAclName = "system.posix_acl_access";
inline constexpr std::string_view kDefaultAclName = "system.posix_acl_default";

struct AclEntry {
  std::uint16_t tag = 0;          // ACL_USER_OBJ and so on, as in linux/posix_acl.h
  std::uint16_t permissions = 0;  // 4 read, 2 write, 1 execute
  std::uint32_t id = 0;           // uid or gid of named entries; 0xffffffff for the others
  bool operator==(const AclEntry&) const = default;
};

class PosixAcl {
 public:
  // Nothing when the value has no entries, which means: no ACL.
  static Result<std::optional<PosixAcl>> parse(std::span<const std::byte> value);
  // The value that parse() reads.
  std::string encode() const;

  const std::vector<AclEntry>& entries() const { return entries_; }
  // True when user::, group:: and other:: are all there is: the mode bits say the same.
  bool is_equivalent_to_mode() const;
  // `mode` with the permission bits that this access ACL gives; the group's are the mask's where there is one.
  std::uint32_t mode_after_set(std::uint32_t mode) const;
  // This access ACL after a chmod to `mode`: the group's bits go to the mask where there is one.
  PosixAcl after_chmod(std::uint32_t mode) const;

  bool operator==(const PosixAcl&) const = default;

 private:
  friend struct InheritedAcls;
  explicit PosixAcl(std::vector<AclEntry> entries) : entries_(std::move(entries)) {}
  AclEntry* find(std::uint16_t tag);
  // The entry that stands for the group bits of a mode: the mask, or group:: where there is none.
  AclEntry& group_class();

  std::vector<AclEntry> entries_;
};

// What a new inode gets in a directory with a default ACL. The umask is not applied there.
struct InheritedAcls {
  std::uint32_t mode = 0;
  std::optional<PosixAcl> access;       // none when the mode bits say the same
  std::optional<PosixAcl> default_acl;  // directories only

  // `mode` has the new inode's type and the permissions that were asked for. Symlinks inherit nothing.
  static InheritedAcls of(const PosixAcl& parent_default, std::uint32_t mode);
};

}  // namespace tarnfs
