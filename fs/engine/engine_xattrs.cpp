// Extended attributes and the ACLs among them. An inode's attributes are the content of an inode of their own.
#include <linux/fs.h>
#include <sys/stat.h>

#include <algorithm>

#include "fs/engine/engine.h"
#include "fs/engine/posix_acl.h"

namespace tarnfs {

// The largest set rewritten whole, and the inodes of owner and attributes.
std::uint64_t Engine::blocks_for_xattrs() const {
  return blocks_for_pages(0, kXattrSetMaxBytes / kBlockSize + 2) + 2 * blocks_for_inode();
}

// Null when the inode has none. Who has the lock of a node must not be led to that node, or to another one, whose lock
// could then be taken in any order.
Result<InodePtr> Engine::get_attribute_inode(Operation& op, const Inode& owner) {
  const InodeNumber number{owner.record.xattr_inode};
  if (number == InodeNumber{}) return InodePtr();
  TARNFS_ASSIGN(InodePtr attributes, get_any_inode(op, number));
  if (attributes->attributes_of != owner.number) {
    return Error(ErrorCode::kCorrupt, device_.name() + ": inode " + std::to_string(number.value) +
                                          " should hold attributes of inode " + std::to_string(owner.number.value) +
                                          " and does not; run fsck.tarnfs");
  }
  return attributes;
}

Result<XattrSet> Engine::xattrs_of(Operation& op, const Inode& inode) {
  TARNFS_ASSIGN(const InodePtr attributes, get_attribute_inode(op, inode));
  if (attributes == nullptr) return XattrSet();
  std::string content;
  {
    ReadLock lock(attributes->mutex);
    TARNFS_ASSIGN(content, content_of(op, *attributes));
  }
  return XattrSet::parse(std::as_bytes(std::span(content)));
}

// Lets the inode hold `content` and nothing else.
void Engine::replace_content(Operation& op, Inode& inode, std::span<const std::byte> content) {
  begin_change(op, inode);
  cut_pages(op, inode, 0, kEndOfFile);
  for (std::size_t done = 0; done < content.size(); done += kBlockSize) {
    const auto part = content.subspan(done, std::min(kBlockSize, content.size() - done));
    put_page(op, inode, done / kBlockSize, PageRef::copy_of(part));
  }
  inode.record.size_bytes = content.size();
}

// `new_attribute_inode`: what a new attribute inode is called; 0: the next number.
Status Engine::store_xattrs(Operation& op, Inode& inode, const XattrSet& set, InodeNumber new_attribute_inode) {
  TARNFS_ASSIGN(InodePtr attributes, get_attribute_inode(op, inode));
  if (attributes == nullptr && set.empty()) return {};
  if (attributes == nullptr && new_attribute_inode == InodeNumber{}) {
    TARNFS_ASSIGN(new_attribute_inode, take_inode_number(op));
  }
  begin_change(op, inode);
  inode.unlogged.xattrs = true;
  if (attributes == nullptr) {
    InodeRecord record;
    record.number = new_attribute_inode.value;
    record.mode = S_IFREG | 0600;
    record.link_count = 1;
    record.flags = kInodeFlagAttributes;
    record.parent = inode.number.value;
    attributes = inodes_.insert_new(std::make_shared<Inode>(record));
    inode.record.xattr_inode = record.number;
  }
  WriteLock lock(attributes->mutex);
  if (set.empty()) {
    delete_content(op, *attributes);
    inode.record.xattr_inode = 0;
  } else {
    replace_content(op, *attributes, set.serialise());
  }
  return {};
}

Result<std::string> Engine::xattr(InodeNumber number, std::string_view name) {
  return run(Intent::kRead, 0, [&](Operation& op) -> Result<std::string> {
    TARNFS_ASSIGN(const InodePtr inode, get_inode(op, number));
    ReadLock lock(inode->mutex);
    if (inode->record.xattr_inode == 0) return Error(ErrorCode::kNoAttribute);
    TARNFS_ASSIGN(const XattrSet set, xattrs_of(op, *inode));
    TARNFS_ASSIGN(const std::string_view value, set.get(name));
    return std::string(value);
  });
}

Result<std::vector<std::string>> Engine::xattr_names(InodeNumber number) {
  return run(Intent::kRead, 0, [&](Operation& op) -> Result<std::vector<std::string>> {
    TARNFS_ASSIGN(const InodePtr inode, get_inode(op, number));
    ReadLock lock(inode->mutex);
    TARNFS_ASSIGN(const XattrSet set, xattrs_of(op, *inode));
    return set.names();
  });
}

// An ACL lives in the mode bits as far as they can say it; what is left is stored.
Status Engine::set_acl(XattrSet& set, InodeRecord& record, std::string_view name, std::span<const std::byte> value,
                       XattrMode mode) {
  const bool access = name == kAccessAclName;
  if (!access && !S_ISDIR(record.mode)) return Error(ErrorCode::kNotPermitted);
  TARNFS_ASSIGN(const std::optional<PosixAcl> acl, PosixAcl::parse(value));
  const bool store = acl && !(access && acl->is_equivalent_to_mode());
  if (store) {
    const std::string encoded = acl->encode();
    TARNFS_TRY(set.set(name, std::as_bytes(std::span(encoded)), mode));
  } else if (set.get(name).ok()) {
    TARNFS_TRY(set.remove(name));
  }
  if (access && acl) record.mode = acl->mode_after_set(record.mode);
  return {};
}

Status Engine::set_xattr(InodeNumber number, std::string_view name, std::span<const std::byte> value, XattrMode mode) {
  return run(Intent::kChange, blocks_for_xattrs(), [&](Operation& op) -> Status {
    TARNFS_ASSIGN(const InodePtr inode, get_inode(op, number));
    WriteLock lock(inode->mutex);
    if (inode->deleted) return Error(ErrorCode::kStale);
    if ((inode->record.flags & (FS_IMMUTABLE_FL | FS_APPEND_FL)) != 0) return Error(ErrorCode::kNotPermitted);
    TARNFS_ASSIGN(XattrSet set, xattrs_of(op, *inode));
    InodeRecord changed = inode->record;
    if (name == kAccessAclName || name == kDefaultAclName) {
      TARNFS_TRY(set_acl(set, changed, name, value, mode));
    } else {
      TARNFS_TRY(set.set(name, value, mode));
    }
    TARNFS_TRY(store_xattrs(op, *inode, set));
    begin_change(op, *inode);
    inode->record.mode = changed.mode;
    touch_changed(op, *inode, false);
    return {};
  });
}

Status Engine::remove_xattr(InodeNumber number, std::string_view name) {
  return run(Intent::kDeletion, blocks_for_xattrs(), [&](Operation& op) -> Status {
    TARNFS_ASSIGN(const InodePtr inode, get_inode(op, number));
    WriteLock lock(inode->mutex);
    if (inode->deleted) return Error(ErrorCode::kStale);
    if ((inode->record.flags & (FS_IMMUTABLE_FL | FS_APPEND_FL)) != 0) return Error(ErrorCode::kNotPermitted);
    if (inode->record.xattr_inode == 0) return Error(ErrorCode::kNoAttribute);
    TARNFS_ASSIGN(XattrSet set, xattrs_of(op, *inode));
    TARNFS_TRY(set.remove(name));
    TARNFS_TRY(store_xattrs(op, *inode, set));
    begin_change(op, *inode);
    touch_changed(op, *inode, false);
    return {};
  });
}

// chmod: the access ACL follows the mode. Nothing when there is none.
Result<std::optional<XattrSet>> Engine::xattrs_after_chmod(Operation& op, const Inode& inode, std::uint32_t mode) {
  if (inode.record.xattr_inode == 0) return std::optional<XattrSet>();
  TARNFS_ASSIGN(XattrSet set, xattrs_of(op, inode));
  const auto stored = set.get(kAccessAclName);
  if (!stored.ok()) return std::optional<XattrSet>();
  TARNFS_ASSIGN(const std::optional<PosixAcl> acl, PosixAcl::parse(std::as_bytes(std::span(*stored))));
  if (!acl) return std::optional<XattrSet>();
  const std::string encoded = acl->after_chmod(mode).encode();
  TARNFS_TRY(set.set(kAccessAclName, std::as_bytes(std::span(encoded)), XattrMode::kReplace));
  return std::optional(std::move(set));
}

// A node made in a directory with a default ACL takes its permissions from there, any other from the caller's umask.
Status Engine::inherit_acl(Operation& op, const Inode& parent, const NewNode& node, std::uint32_t& mode,
                           XattrSet& set) {
  mode = node.mode;
  if (S_ISLNK(node.mode)) return {};
  std::optional<PosixAcl> parent_default;
  if (parent.record.xattr_inode != 0) {
    TARNFS_ASSIGN(const XattrSet parent_set, xattrs_of(op, parent));
    if (const auto stored = parent_set.get(kDefaultAclName); stored.ok()) {
      TARNFS_ASSIGN(parent_default, PosixAcl::parse(std::as_bytes(std::span(*stored))));
    }
  }
  if (!parent_default) {
    mode = node.mode & ~(node.caller.umask & 0777);
    return {};
  }
  const InheritedAcls inherited = InheritedAcls::of(*parent_default, node.mode);
  mode = inherited.mode;
  const auto store = [&](std::string_view name, const std::optional<PosixAcl>& acl) -> Status {
    if (!acl) return {};
    const std::string encoded = acl->encode();
    return set.set(name, std::as_bytes(std::span(encoded)), XattrMode::kCreateOrReplace);
  };
  TARNFS_TRY(store(kAccessAclName, inherited.access));
  return store(kDefaultAclName, inherited.default_acl);
}

}  // namespace tarnfs
