// Runs operations on a volume and tells the model.
#include <sys/stat.h>

#include <algorithm>

#include "tests/support/crash_workload.h"

namespace tarnfs::testing {
namespace {

Metadata metadata_of(std::uint32_t mode) {
  Metadata metadata;
  metadata.mode = mode;
  return metadata;
}

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

}  // namespace

std::optional<WorkloadRunner::Place> WorkloadRunner::place_of(const std::string& path) const {
  if (path.empty() || path[0] == '#') return std::nullopt;
  const std::size_t slash = path.rfind('/');
  const auto directory = slash == std::string::npos ? kRootDirectory.value : model_.find(path.substr(0, slash));
  if (!directory || !model_.is_directory(*directory)) return std::nullopt;
  return Place{*directory, slash == std::string::npos ? path : path.substr(slash + 1)};
}

std::optional<std::uint64_t> WorkloadRunner::inode_of(const std::string& path) const {
  if (path.empty() || path[0] != '#') return model_.find(path);
  const auto found = held_.find(path);
  return found == held_.end() ? std::nullopt : std::optional(found->second);
}

bool WorkloadRunner::is_file(const std::string& path) const {
  const auto inode = inode_of(path);
  return inode && S_ISREG(model_.metadata(*inode).mode);
}

bool WorkloadRunner::can_rename(const Operation& operation) const {
  const auto source = model_.find(operation.path);
  const auto target = model_.find(operation.other);
  const auto from = place_of(operation.path);
  const auto to = place_of(operation.other);
  if (!from || !source || !to || source == target) return false;
  if (model_.is_at_or_above(*source, to->directory)) return false;
  if (target && model_.is_at_or_above(*target, from->directory)) return false;
  if (operation.kind == OperationKind::kExchange) return target.has_value();
  if (!target) return true;
  return model_.is_directory(*source) == model_.is_directory(*target) && !model_.has_entries(*target);
}

bool WorkloadRunner::makes_sense(const Operation& operation) const {
  const auto inode = inode_of(operation.path);
  switch (operation.kind) {
    case OperationKind::kCreate:
    case OperationKind::kMakeDirectory:
    case OperationKind::kSymlink:
      return !inode && place_of(operation.path).has_value();
    case OperationKind::kMakeUnnamed:
      return !inode;
    case OperationKind::kOpen:
      return is_file(operation.path) && !inode_of(operation.other);
    case OperationKind::kRelease:
      return inode.has_value();
    case OperationKind::kWrite:
    case OperationKind::kAppend:
    case OperationKind::kTruncate:
    case OperationKind::kPunchHole:
    case OperationKind::kExtend:
    case OperationKind::kPreallocate:
    case OperationKind::kZeroRange:
      return is_file(operation.path);
    case OperationKind::kCopyRange:
      return is_file(operation.path) && is_file(operation.other) && inode != inode_of(operation.other);
    case OperationKind::kRename:
    case OperationKind::kRenameLeaving:
    case OperationKind::kExchange:
      return can_rename(operation);
    case OperationKind::kLink: {
      // Only a file made without a name may get one when it has none.
      const bool linkable = is_file(operation.path) && (operation.path[0] != '#' || operation.path[1] == 't');
      return linkable && !model_.find(operation.other) && place_of(operation.other);
    }
    case OperationKind::kUnlink:
      return inode && place_of(operation.path) && !model_.is_directory(*inode);
    case OperationKind::kRemoveDirectory:
      return inode && place_of(operation.path) && model_.is_directory(*inode) && !model_.has_entries(*inode);
    case OperationKind::kSetXattr:
      return inode && !S_ISLNK(model_.metadata(*inode).mode);
    case OperationKind::kRemoveXattr:
      return inode && model_.metadata(*inode).xattrs.contains(operation.other);
    case OperationKind::kChangeMode:
      return inode && !S_ISLNK(model_.metadata(*inode).mode);
    case OperationKind::kChangeOwner:
    case OperationKind::kFsync:
      return inode.has_value();
    case OperationKind::kFdatasync:
      return is_file(operation.path);
    case OperationKind::kTrim:
    case OperationKind::kGrow:
    case OperationKind::kConsistencyPoint:
      return true;
  }
  return false;
}

WorkloadRunner::Outcome WorkloadRunner::run(const Operation& operation) {
  if (!makes_sense(operation)) return Outcome::kNoSense;
  ++operation_count_;
  if (operation.kind >= OperationKind::kFsync) return persist(operation);
  model_.begin_step(tarnfs::testing::describe(operation), device_.mark());
  const Status status = apply(operation);
  model_.end_step(device_.mark());
  if (status.ok()) return Outcome::kDone;
  error_ = status.error();
  return Outcome::kFailed;
}

WorkloadRunner::Outcome WorkloadRunner::persist(const Operation& operation) {
  Persistence kind = Persistence::kConsistencyPoint;
  std::uint64_t inode = 0;
  Status status;
  // A step without effects, so that it is seen in the text of the run.
  const std::size_t begin_event = device_.mark();
  if (operation.kind == OperationKind::kConsistencyPoint) {
    const auto point = volume_.consistency_point();
    if (!point.ok()) status = point.error();
  } else {
    const bool data_only = operation.kind == OperationKind::kFdatasync;
    kind = data_only ? Persistence::kFdatasync : Persistence::kFsync;
    inode = *inode_of(operation.path);
    status = volume_.fsync(InodeNumber{inode}, data_only);
  }
  const std::size_t end_event = device_.mark();
  if (status.ok()) model_.persisted(kind, inode, begin_event, end_event);
  model_.begin_step(tarnfs::testing::describe(operation) + (status.ok() ? " (done)" : " (failed)"), begin_event);
  model_.end_step(end_event);
  if (status.ok()) return Outcome::kDone;
  error_ = status.error();
  return Outcome::kFailed;
}

Status WorkloadRunner::apply(const Operation& operation) {
  switch (operation.kind) {
    case OperationKind::kCreate:
    case OperationKind::kMakeDirectory:
    case OperationKind::kSymlink:
    case OperationKind::kMakeUnnamed:
    case OperationKind::kLink:
    case OperationKind::kUnlink:
    case OperationKind::kRemoveDirectory:
    case OperationKind::kRename:
    case OperationKind::kRenameLeaving:
    case OperationKind::kExchange:
      return apply_to_names(operation);
    case OperationKind::kTrim: {
      const auto bytes = volume_.trim({operation.offset * kBlockSize, operation.length * kBlockSize, 0});
      return bytes.ok() ? Status() : Status(bytes.error());
    }
    case OperationKind::kGrow:
      return grow(operation.length);
    default:
      return apply_to_inode(operation);
  }
}

Status WorkloadRunner::grow(std::uint64_t blocks) {
  const std::uint64_t data_blocks = volume_.usage().size_blocks;
  const std::uint64_t size_blocks = data_blocks + kFirstDataBlock + kRootSlotsPerEnd + 1;
  if (size_blocks + blocks > device_.size_blocks()) return {};
  const auto resized = volume_.resize((size_blocks + blocks) * kBlockSize);
  if (!resized.ok()) return resized.error();
  return volume_.usage().size_blocks == data_blocks + blocks
             ? Status()
             : Status(Error(ErrorCode::kInvalid, "it has another size"));
}

Status WorkloadRunner::apply_to_names(const Operation& operation) {
  switch (operation.kind) {
    case OperationKind::kCreate:
      return make(operation, S_IFREG | 0644);
    case OperationKind::kMakeDirectory:
      return make(operation, S_IFDIR | 0755);
    case OperationKind::kSymlink:
      return make(operation, S_IFLNK | 0777);
    case OperationKind::kMakeUnnamed:
      return make_unnamed(operation);
    case OperationKind::kLink:
      return link(operation);
    case OperationKind::kUnlink:
    case OperationKind::kRemoveDirectory:
      return remove(operation);
    default:
      return rename(operation);
  }
}

Status WorkloadRunner::apply_to_inode(const Operation& operation) {
  const std::uint64_t inode = *inode_of(operation.path);
  switch (operation.kind) {
    case OperationKind::kOpen:
      return open(operation);
    case OperationKind::kRelease:
      volume_.forget(InodeNumber{inode}, 1);
      held_.erase(operation.path);
      return {};
    case OperationKind::kWrite:
      return write(inode, operation.offset, operation.length);
    case OperationKind::kAppend:
      return write(inode, model_.content(inode).size(), operation.length);
    case OperationKind::kTruncate:
      return resize(inode, operation.length);
    case OperationKind::kPunchHole:
    case OperationKind::kExtend:
    case OperationKind::kPreallocate:
    case OperationKind::kZeroRange:
      return fallocate(operation, inode);
    case OperationKind::kCopyRange:
      return copy_range(operation, inode, *inode_of(operation.other));
    default:
      return change_metadata(operation, inode);
  }
}

Status WorkloadRunner::make(const Operation& operation, std::uint32_t mode) {
  const Place place = *place_of(operation.path);
  NewNode node;
  node.mode = mode;
  if (S_ISLNK(mode)) node.symlink_target = operation.other;
  TARNFS_ASSIGN(const Attributes made, volume_.make_node(InodeNumber{place.directory}, place.name, node));
  volume_.forget(made.inode, 1);
  model_.add_inode(made.inode.value, metadata_of(mode), S_ISLNK(mode) ? operation.other : "");
  model_.set_name(place.directory, place.name, made.inode.value);
  return {};
}

Status WorkloadRunner::make_unnamed(const Operation& operation) {
  NewNode node;
  node.mode = S_IFREG | 0600;
  TARNFS_ASSIGN(const Attributes made, volume_.make_unnamed(kRootDirectory, node));
  model_.add_inode(made.inode.value, metadata_of(node.mode), "");
  held_[operation.path] = made.inode.value;
  return {};
}

Status WorkloadRunner::open(const Operation& operation) {
  const Place place = *place_of(operation.path);
  TARNFS_ASSIGN(const Attributes found, volume_.lookup(InodeNumber{place.directory}, place.name));
  held_[operation.other] = found.inode.value;
  return {};
}

Status WorkloadRunner::link(const Operation& operation) {
  const Place place = *place_of(operation.other);
  const std::uint64_t inode = *inode_of(operation.path);
  TARNFS_ASSIGN(const Attributes linked, volume_.link(InodeNumber{inode}, InodeNumber{place.directory}, place.name));
  volume_.forget(linked.inode, 1);
  model_.set_name(place.directory, place.name, inode);
  return {};
}

Status WorkloadRunner::remove(const Operation& operation) {
  const Place place = *place_of(operation.path);
  TARNFS_TRY(operation.kind == OperationKind::kUnlink
                 ? volume_.unlink(InodeNumber{place.directory}, place.name)
                 : volume_.remove_directory(InodeNumber{place.directory}, place.name));
  model_.remove_name(place.directory, place.name);
  return {};
}

Status WorkloadRunner::rename(const Operation& operation) {
  const Place from = *place_of(operation.path);
  const Place to = *place_of(operation.other);
  const std::uint64_t source = *model_.find(operation.path);
  const auto target = model_.find(operation.other);
  const bool exchange = operation.kind == OperationKind::kExchange;
  if (operation.kind == OperationKind::kRenameLeaving) {
    TARNFS_TRY(volume_.rename_leaving(InodeNumber{from.directory}, from.name, InodeNumber{to.directory}, to.name,
                                      RenameMode::kReplace, NewNode{.mode = S_IFCHR}));
  } else {
    TARNFS_TRY(volume_.rename(InodeNumber{from.directory}, from.name, InodeNumber{to.directory}, to.name,
                              exchange ? RenameMode::kExchange : RenameMode::kReplace));
  }
  if (target && !exchange && S_ISREG(model_.metadata(source).mode)) model_.note_replacing(source);
  if (exchange) {
    model_.set_name(from.directory, from.name, *target);
  } else if (operation.kind == OperationKind::kRenameLeaving) {
    TARNFS_ASSIGN(const Attributes left, volume_.lookup(InodeNumber{from.directory}, from.name));
    volume_.forget(left.inode, 1);
    model_.add_inode(left.inode.value, metadata_of(S_IFCHR), "");
    model_.set_name(from.directory, from.name, left.inode.value);
  } else {
    model_.remove_name(from.directory, from.name);
  }
  model_.set_name(to.directory, to.name, source);
  return {};
}

std::string WorkloadRunner::text_to_write(std::uint64_t length) const {
  constexpr std::uint64_t kLineBytes = 16;
  std::string text;
  text.reserve(length + kLineBytes);
  const std::string prefix = stamp_ + std::to_string(operation_count_) + ":";
  for (std::uint64_t line = 0; text.size() < length; ++line) {
    text += prefix;
    text += std::to_string(line);
    text.resize(text.size() / kLineBytes * kLineBytes + kLineBytes, ' ');
  }
  text.resize(length);
  return text;
}

Status WorkloadRunner::write(std::uint64_t inode, std::uint64_t offset, std::uint64_t length) {
  const std::string text = text_to_write(length);
  TARNFS_TRY(volume_.write(InodeNumber{inode}, offset, bytes_of(text), WriteOptions{}));
  std::string content = model_.content(inode);
  content.resize(std::max<std::size_t>(content.size(), offset + length));
  content.replace(offset, length, text);
  auto pages = model_.pages(inode);
  if (pages) pages->write(offset, length);
  model_.set_content(inode, std::move(content), std::move(pages));
  return {};
}

Status WorkloadRunner::resize(std::uint64_t inode, std::uint64_t size) {
  AttributeChanges changes;
  changes.size_bytes = size;
  const auto changed = volume_.change_attributes(InodeNumber{inode}, changes);
  if (!changed.ok()) return changed.error();
  std::string content = model_.content(inode);
  auto pages = model_.pages(inode);
  if (size == 0) pages = FilePages();
  if (pages && size <= content.size()) pages->cut(size, ~std::uint64_t{0});
  content.resize(size);
  model_.set_content(inode, std::move(content), std::move(pages));
  return {};
}

Status WorkloadRunner::fallocate(const Operation& operation, std::uint64_t inode) {
  FallocateOptions options;
  options.punch_hole = operation.kind == OperationKind::kPunchHole;
  options.zero_range = operation.kind == OperationKind::kZeroRange;
  options.keep_size = options.punch_hole || operation.kind == OperationKind::kPreallocate;
  TARNFS_TRY(volume_.fallocate(InodeNumber{inode}, operation.offset, operation.length, options));
  std::string content = model_.content(inode);
  auto pages = model_.pages(inode);
  const std::size_t end = operation.offset + operation.length;
  if (options.punch_hole || options.zero_range) {
    const std::size_t first = std::min<std::size_t>(operation.offset, content.size());
    std::fill(content.begin() + static_cast<std::ptrdiff_t>(first),
              content.begin() + static_cast<std::ptrdiff_t>(std::min(end, content.size())), '\0');
    if (pages) pages->cut(operation.offset, end);
  }
  if (pages && !options.punch_hole) pages->reserve(operation.offset, operation.length);
  if (!options.keep_size) content.resize(std::max(content.size(), end));
  model_.set_content(inode, std::move(content), std::move(pages));
  return {};
}

Status WorkloadRunner::copy_range(const Operation& operation, std::uint64_t from, std::uint64_t to) {
  const std::string& source = model_.content(from);
  const std::size_t offset = operation.offset;
  const std::string part = source.substr(std::min(source.size(), offset), operation.length);
  TARNFS_ASSIGN(const std::uint64_t copied,
                volume_.copy_range(InodeNumber{from}, offset, InodeNumber{to}, offset, operation.length));
  if (copied != part.size()) return Error(ErrorCode::kCorrupt, "another number of bytes was copied");
  if (part.empty()) return {};
  std::string content = model_.content(to);
  auto pages = model_.pages(to);
  const auto& source_pages = model_.pages(from);
  const bool ends_files = offset + part.size() == source.size() && offset + part.size() >= content.size();
  if (pages && source_pages) pages->copy(*source_pages, offset, part.size(), ends_files);
  if (!source_pages) pages.reset();
  content.resize(std::max(content.size(), offset + part.size()));
  content.replace(offset, part.size(), part);
  model_.set_content(to, std::move(content), std::move(pages));
  return {};
}

Status WorkloadRunner::change_metadata(const Operation& operation, std::uint64_t inode) {
  Metadata metadata = model_.metadata(inode);
  AttributeChanges changes;
  switch (operation.kind) {
    case OperationKind::kChangeMode:
      changes.mode = static_cast<std::uint32_t>(operation.length);
      metadata.mode = (metadata.mode & S_IFMT) | *changes.mode;
      break;
    case OperationKind::kChangeOwner:
      changes.uid = static_cast<std::uint32_t>(operation.length);
      metadata.uid = *changes.uid;
      break;
    case OperationKind::kSetXattr: {
      const std::string value = text_to_write(operation.length);
      TARNFS_TRY(volume_.set_xattr(InodeNumber{inode}, operation.other, bytes_of(value), XattrMode::kCreateOrReplace));
      metadata.xattrs[operation.other] = value;
      break;
    }
    default:
      TARNFS_TRY(volume_.remove_xattr(InodeNumber{inode}, operation.other));
      metadata.xattrs.erase(operation.other);
  }
  if (changes.mode || changes.uid) {
    const auto changed = volume_.change_attributes(InodeNumber{inode}, changes);
    if (!changed.ok()) return changed.error();
  }
  model_.set_metadata(inode, std::move(metadata));
  return {};
}

}  // namespace tarnfs::testing
