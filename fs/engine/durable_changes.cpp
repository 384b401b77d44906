#include "fs/engine/durable_changes.h"

#include <optional>

#include "fs/engine/waiting.h"

namespace tarnfs {

// An fsync of a directory has all operations on names so far, those of a rename in the other directory too.
template <class Change>
auto DurableChanges::durably(InodeNumber inode, const Change& change) -> decltype(change()) {
  if (NoWaitScope::is_active()) return Error(ErrorCode::kWouldWait);
  auto done = change();
  if (done.ok()) TARNFS_TRY(below_.fsync(inode, false));
  return done;
}

template <class Change>
auto DurableChanges::durably_with_lookup(InodeNumber directory, const Change& change) -> decltype(change()) {
  std::optional<InodeNumber> looked_up;
  auto durable = durably(directory, [&] {
    auto done = change();
    if (done.ok()) looked_up = done->inode;
    return done;
  });
  if (!durable.ok() && looked_up) below_.forget(*looked_up, 1);
  return durable;
}

template <class Change>
auto DurableChanges::durably_if(bool is_in_scope, InodeNumber inode, const Change& change) -> decltype(change()) {
  return is_in_scope ? durably(inode, change) : change();
}

Result<Attributes> DurableChanges::make_node(InodeNumber parent, std::string_view name, const NewNode& node) {
  return durably_with_lookup(parent, [&] { return below_.make_node(parent, name, node); });
}

Result<Attributes> DurableChanges::link(InodeNumber inode, InodeNumber parent, std::string_view name) {
  return durably_with_lookup(parent, [&] { return below_.link(inode, parent, name); });
}

Status DurableChanges::unlink(InodeNumber parent, std::string_view name) {
  return durably(parent, [&] { return below_.unlink(parent, name); });
}

Status DurableChanges::remove_directory(InodeNumber parent, std::string_view name) {
  return durably(parent, [&] { return below_.remove_directory(parent, name); });
}

Status DurableChanges::rename(InodeNumber from, std::string_view from_name, InodeNumber to, std::string_view to_name,
                              RenameMode mode) {
  return durably(to, [&] { return below_.rename(from, from_name, to, to_name, mode); });
}

Status DurableChanges::rename_leaving(InodeNumber from, std::string_view from_name, InodeNumber to,
                                      std::string_view to_name, RenameMode mode, const NewNode& left) {
  return durably(to, [&] { return below_.rename_leaving(from, from_name, to, to_name, mode, left); });
}

Result<Attributes> DurableChanges::change_attributes(InodeNumber inode, const AttributeChanges& changes) {
  return durably_if(scope_ == DurableScope::kAll && !changes.writes_back, inode,
                    [&] { return below_.change_attributes(inode, changes); });
}

Status DurableChanges::set_xattr(InodeNumber inode, std::string_view name, std::span<const std::byte> value,
                                 XattrMode mode) {
  return durably_if(scope_ == DurableScope::kAll, inode, [&] { return below_.set_xattr(inode, name, value, mode); });
}

Status DurableChanges::remove_xattr(InodeNumber inode, std::string_view name) {
  return durably_if(scope_ == DurableScope::kAll, inode, [&] { return below_.remove_xattr(inode, name); });
}

Status DurableChanges::write(InodeNumber inode, std::uint64_t offset_bytes, std::span<const std::byte> data,
                             WriteOptions options) {
  return durably_if(scope_ == DurableScope::kAll && !options.from_page_cache, inode,
                    [&] { return below_.write(inode, offset_bytes, data, options); });
}

Status DurableChanges::fallocate(InodeNumber inode, std::uint64_t offset_bytes, std::uint64_t length_bytes,
                                 FallocateOptions options) {
  return durably_if(scope_ == DurableScope::kAll, inode,
                    [&] { return below_.fallocate(inode, offset_bytes, length_bytes, options); });
}

Result<std::uint64_t> DurableChanges::copy_range(InodeNumber from, std::uint64_t from_offset_bytes, InodeNumber to,
                                                 std::uint64_t to_offset_bytes, std::uint64_t length_bytes) {
  return durably_if(scope_ == DurableScope::kAll, to,
                    [&] { return below_.copy_range(from, from_offset_bytes, to, to_offset_bytes, length_bytes); });
}

// What follows changes nothing that a crash could lose.

Result<Attributes> DurableChanges::lookup(InodeNumber parent, std::string_view name) {
  return below_.lookup(parent, name);
}
Result<Attributes> DurableChanges::make_unnamed(InodeNumber parent, const NewNode& node) {
  return below_.make_unnamed(parent, node);
}
void DurableChanges::forget(InodeNumber inode, std::uint64_t count) {
  below_.forget(inode, count);
}
Result<Attributes> DurableChanges::attributes(InodeNumber inode) {
  return below_.attributes(inode);
}
Result<std::string> DurableChanges::symlink_target(InodeNumber inode) {
  return below_.symlink_target(inode);
}
Result<std::string> DurableChanges::xattr(InodeNumber inode, std::string_view name) {
  return below_.xattr(inode, name);
}
Result<std::vector<std::string>> DurableChanges::xattr_names(InodeNumber inode) {
  return below_.xattr_names(inode);
}
void DurableChanges::leave_times_to_kernel() {
  below_.leave_times_to_kernel();
}
Result<std::size_t> DurableChanges::read(InodeNumber inode, std::uint64_t offset_bytes, std::span<std::byte> out,
                                         ReadOptions options) {
  return below_.read(inode, offset_bytes, out, options);
}
Result<std::uint64_t> DurableChanges::seek(InodeNumber inode, std::uint64_t offset_bytes, SeekKind kind) {
  return below_.seek(inode, offset_bytes, kind);
}
Status DurableChanges::list(InodeNumber directory, std::uint64_t cookie,
                            const std::function<bool(const DirectoryEntry&)>& visit) {
  return below_.list(directory, cookie, visit);
}
Result<Attributes> DurableChanges::attributes_with_lookup(InodeNumber inode) {
  return below_.attributes_with_lookup(inode);
}
FileSystemUsage DurableChanges::usage() {
  return below_.usage();
}
Status DurableChanges::settle_usage() {
  return below_.settle_usage();
}
bool DurableChanges::takes_changes() const {
  return below_.takes_changes();
}
bool DurableChanges::read_only() const {
  return below_.read_only();
}
std::uint64_t DurableChanges::view() const {
  return below_.view();
}
Status DurableChanges::fsync(InodeNumber inode, bool data_only) {
  return below_.fsync(inode, data_only);
}
Result<Cp> DurableChanges::consistency_point() {
  return below_.consistency_point();
}
Result<std::uint64_t> DurableChanges::trim(const TrimRange& range) {
  return below_.trim(range);
}
Result<std::uint64_t> DurableChanges::resize(std::uint64_t size_bytes) {
  return below_.resize(size_bytes);
}
Status DurableChanges::shut_down() {
  return below_.shut_down();
}

}  // namespace tarnfs
