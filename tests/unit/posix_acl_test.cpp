// Access control lists: which values are valid, and how ACLs and modes follow each other, as tables.
#include "fs/engine/posix_acl.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <linux/posix_acl.h>
#include <sys/stat.h>

#include <cstring>
#include <string>
#include <vector>

using namespace tarnfs;

namespace {

constexpr std::uint32_t kNoId = 0xffffffff;

std::string value_of(const std::vector<AclEntry>& entries, std::uint32_t version = 2) {
  std::string value(4 + entries.size() * 8, '\0');
  std::memcpy(value.data(), &version, 4);
  if (!entries.empty()) std::memcpy(value.data() + 4, entries.data(), entries.size() * 8);
  return value;
}

Result<std::optional<PosixAcl>> parsed(const std::string& value) {
  return PosixAcl::parse(std::as_bytes(std::span(value.data(), value.size())));
}

// "u6 U5:1000 g4 G7:100 m7 o0": tag, permissions, id.
PosixAcl acl(const std::string& text) {
  std::vector<AclEntry> entries;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(' ', at), text.size());
    AclEntry entry;
    switch (text[at]) {
      case 'u':
        entry.tag = ACL_USER_OBJ;
        break;
      case 'U':
        entry.tag = ACL_USER;
        break;
      case 'g':
        entry.tag = ACL_GROUP_OBJ;
        break;
      case 'G':
        entry.tag = ACL_GROUP;
        break;
      case 'm':
        entry.tag = ACL_MASK;
        break;
      default:
        entry.tag = ACL_OTHER;
    }
    entry.permissions = static_cast<std::uint16_t>(text[at + 1] - '0');
    const std::size_t colon = text.find(':', at);
    entry.id = colon < end ? static_cast<std::uint32_t>(std::stoul(text.substr(colon + 1))) : kNoId;
    entries.push_back(entry);
    at = end + 1;
  }
  auto result = parsed(value_of(entries));
  REQUIRE(result.ok());
  REQUIRE(result->has_value());
  return **result;
}

}  // namespace

TEST_CASE("a valid ACL is read and written back unchanged") {
  for (const char* text : {"u6 g4 o0", "u7 g5 m5 o5", "u6 U5:1000 g4 m7 o0", "u6 g4 G7:100 m7 o0",
                           "u6 U5:1000 U5:1001 g4 G7:100 G0:7 m7 o0", "u6 U5:1001 U5:1000 g4 m7 o0"}) {
    CAPTURE(text);
    const PosixAcl one = acl(text);
    CHECK(*parsed(one.encode()).value() == one);
  }
}

TEST_CASE("ids of entries that have none are not kept") {
  const PosixAcl one = *parsed(value_of({{ACL_USER_OBJ, 6, 5}, {ACL_GROUP_OBJ, 4, 0}, {ACL_OTHER, 0, 9}})).value();
  CHECK(one == acl("u6 g4 o0"));
}

TEST_CASE("an ACL without entries is none") {
  const auto result = parsed(value_of({}));
  REQUIRE(result.ok());
  CHECK_FALSE(result->has_value());
}

TEST_CASE("values that are no ACL are refused") {
  struct Case {
    const char* what;
    std::vector<AclEntry> entries;
  };
  const AclEntry user{ACL_USER_OBJ, 6, kNoId};
  const AclEntry named_user{ACL_USER, 6, 1000};
  const AclEntry group{ACL_GROUP_OBJ, 4, kNoId};
  const AclEntry named_group{ACL_GROUP, 4, 100};
  const AclEntry mask{ACL_MASK, 7, kNoId};
  const AclEntry other{ACL_OTHER, 0, kNoId};
  const std::vector<Case> cases{
      {"no owner", {group, other}},
      {"no group", {user, other}},
      {"no others", {user, group}},
      {"only a mask", {mask}},
      {"named user without mask", {user, named_user, group, other}},
      {"named group without mask", {user, group, named_group, other}},
      {"owner twice", {user, user, group, other}},
      {"group twice", {user, group, group, other}},
      {"mask twice", {user, group, mask, mask, other}},
      {"others twice", {user, group, other, other}},
      {"group before user", {group, user, other}},
      {"named user behind group", {user, group, named_user, mask, other}},
      {"named group before group", {user, named_group, group, mask, other}},
      {"mask behind others", {user, named_user, group, other, mask}},
      {"unknown tag", {user, group, {0x40, 4, kNoId}, other}},
      {"tag 0", {{0, 4, kNoId}, user, group, other}},
      {"two tags in one", {{ACL_USER_OBJ | ACL_USER, 4, kNoId}, group, other}},
      {"permissions beyond three bits", {user, group, {ACL_OTHER, 8, kNoId}}},
      {"named user without id", {user, {ACL_USER, 6, kNoId}, group, mask, other}},
      {"named group without id", {user, group, {ACL_GROUP, 6, kNoId}, mask, other}},
  };
  for (const Case& one : cases) {
    CAPTURE(one.what);
    const auto result = parsed(value_of(one.entries));
    REQUIRE_FALSE(result.ok());
    CHECK(result.error().code() == ErrorCode::kInvalid);
  }
  const std::string good = acl("u6 g4 o0").encode();
  for (const std::size_t size : {std::size_t{0}, std::size_t{3}, std::size_t{5}, good.size() - 1}) {
    CHECK(parsed(good.substr(0, size)).error().code() == ErrorCode::kInvalid);
  }
  CHECK(parsed(value_of({user, group, other}, 1)).error().code() == ErrorCode::kUnsupported);
}

TEST_CASE("an access ACL sets the mode, and is nothing more than the mode when it has the three base entries only") {
  struct Case {
    const char* acl;
    std::uint32_t before, after;
    bool equivalent;
  };
  for (const Case& one : std::initializer_list<Case>{
           {"u6 g4 o0", S_IFREG | 0777, S_IFREG | 0640, true},
           {"u7 g5 o5", S_IFDIR | S_ISGID | S_ISVTX, S_IFDIR | S_ISGID | S_ISVTX | 0755, true},
           {"u0 g0 o0", S_IFREG | 04777, S_IFREG | 04000, true},
           {"u6 g4 m6 o1", S_IFREG, S_IFREG | 0661, false},
           {"u6 U7:1 g7 m2 o1", S_IFREG, S_IFREG | 0621, false},
           {"u6 g7 G1:5 m0 o1", S_IFREG | 0777, S_IFREG | 0601, false},
       }) {
    CAPTURE(one.acl);
    CHECK(acl(one.acl).mode_after_set(one.before) == one.after);
    CHECK(acl(one.acl).is_equivalent_to_mode() == one.equivalent);
  }
}

TEST_CASE("chmod changes the mask where there is one, else the group") {
  struct Case {
    const char* before;
    std::uint32_t mode;
    const char* after;
  };
  for (const Case& one : std::initializer_list<Case>{
           {"u6 g4 o0", 0751, "u7 g5 o1"},
           {"u6 g4 m4 o0", 0751, "u7 g4 m5 o1"},
           {"u6 U7:1000 g4 G6:7 m7 o7", S_IFREG | 04600, "u6 U7:1000 g4 G6:7 m0 o0"},
           {"u0 U7:1000 g4 m0 o0", 0777, "u7 U7:1000 g4 m7 o7"},
       }) {
    CAPTURE(one.before);
    const PosixAcl changed = acl(one.before).after_chmod(one.mode);
    CHECK(changed == acl(one.after));
    CHECK((changed.mode_after_set(0) & 0777) == (one.mode & 0777));
  }
}

TEST_CASE("a new inode inherits the default ACL, limited by the mode that was asked for") {
  struct Case {
    const char* parent;
    std::uint32_t asked, mode;
    const char* access;  // null: the mode says it all
  };
  for (const Case& one : std::initializer_list<Case>{
           {"u7 g5 o0", S_IFREG | 0666, S_IFREG | 0640, nullptr},
           {"u7 g5 o0", S_IFDIR | 0777, S_IFDIR | 0750, nullptr},
           {"u7 g5 o5", S_IFDIR | S_ISGID | 0700, S_IFDIR | S_ISGID | 0700, nullptr},
           {"u7 U6:1000 g5 m7 o1", S_IFREG | 0666, S_IFREG | 0660, "u6 U6:1000 g5 m6 o0"},
           {"u7 U6:1000 g5 m7 o1", S_IFDIR | 0777, S_IFDIR | 0771, "u7 U6:1000 g5 m7 o1"},
           {"u7 g5 G7:9 m3 o5", S_IFREG | S_ISUID | 0444, S_IFREG | S_ISUID | 0404, "u4 g5 G7:9 m0 o4"},
           {"u7 g7 m5 o0", S_IFIFO | 0620, S_IFIFO | 0600, "u6 g7 m0 o0"},
           {"u7 U7:1 g7 m7 o7", S_IFSOCK, S_IFSOCK, "u0 U7:1 g7 m0 o0"},
       }) {
    CAPTURE(one.parent);
    CAPTURE(one.asked);
    const InheritedAcls inherited = InheritedAcls::of(acl(one.parent), one.asked);
    CHECK(inherited.mode == one.mode);
    REQUIRE(inherited.access.has_value() == (one.access != nullptr));
    if (one.access != nullptr) {
      CHECK(*inherited.access == acl(one.access));
      CHECK(inherited.access->mode_after_set(one.asked) == one.mode);
    }
    REQUIRE(inherited.default_acl.has_value() == S_ISDIR(one.asked));
    if (S_ISDIR(one.asked)) CHECK(*inherited.default_acl == acl(one.parent));
  }
}

TEST_CASE("a symlink inherits nothing") {
  const InheritedAcls inherited = InheritedAcls::of(acl("u7 U6:1000 g5 m7 o1"), S_IFLNK | 0777);
  CHECK(inherited.mode == (S_IFLNK | 0777));
  CHECK_FALSE(inherited.access.has_value());
  CHECK_FALSE(inherited.default_acl.has_value());
}
