#include "fs/tree/directory.h"

#include "fs/tree/directory_tree.h"

namespace tarnfs {

namespace {

Status check_name(std::string_view name) {
  if (name.empty()) return Error(ErrorCode::kInvalid, "a name must not be empty");
  if (name.size() > kDirectoryNameMaxBytes) return Error(ErrorCode::kNameTooLong);
  return {};
}

}  // namespace

Result<std::optional<DirectoryRecord>> find_entry(DirectoryPages& pages, std::uint64_t seed, std::string_view name) {
  TARNFS_TRY(check_name(name));
  return DirectoryTree(pages).find(name_hash_of(name, seed), name);
}

Result<DirectoryRecord> insert_entry(DirectoryPages& pages, std::uint64_t seed, std::string_view name,
                                     InodeNumber inode, std::uint32_t type) {
  TARNFS_TRY(check_name(name));
  return DirectoryTree(pages).insert(name_hash_of(name, seed), name, inode, type);
}

Result<DirectoryRecord> remove_entry(DirectoryPages& pages, std::uint64_t seed, std::string_view name) {
  TARNFS_TRY(check_name(name));
  return DirectoryTree(pages).remove(name_hash_of(name, seed), name);
}

Result<DirectoryRecord> replace_entry(DirectoryPages& pages, std::uint64_t seed, std::string_view name,
                                      InodeNumber inode, std::uint32_t type) {
  TARNFS_TRY(check_name(name));
  return DirectoryTree(pages).replace(name_hash_of(name, seed), name, inode, type);
}

Status list_entries(DirectoryPages& pages, std::uint64_t after_cookie,
                    const std::function<bool(std::string_view name, const DirectoryRecord& record)>& visit) {
  return DirectoryTree(pages).list(after_cookie, visit);
}

}  // namespace tarnfs
