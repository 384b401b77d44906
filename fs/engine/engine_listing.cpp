// Directory listings.
#include <sys/stat.h>

#include <algorithm>

#include "fs/engine/engine.h"
#include "fs/engine/inode_directory_pages.h"
#include "fs/tree/directory.h"

namespace tarnfs {
namespace {

// Cookies of "." and ".."; those of names are above (directory.h).
constexpr std::uint64_t kCookieAfterDot = 1;
constexpr std::uint64_t kCookieAfterDotDot = 2;
constexpr std::size_t kEntriesAtOnceMax = 256;

struct ListedEntry {
  std::string name;
  DirectoryRecord record;
};

}  // namespace

Status Engine::list(InodeNumber directory, std::uint64_t cookie,
                    const std::function<bool(const DirectoryEntry&)>& visit) {
  InodeNumber above;
  bool accessed = false;
  TARNFS_TRY(run(Intent::kRead, 0, [&](Operation& op) -> Status {
    TARNFS_ASSIGN(const InodePtr inode, get_directory(op, directory));
    ReadLock lock(inode->mutex);
    above = InodeNumber{inode->record.parent};
    accessed = notes_access(inode->record, op.now());
    return {};
  }));
  if (accessed) touch_accessed(directory);
  if (cookie < kCookieAfterDot && !visit({".", directory, S_IFDIR, kCookieAfterDot})) return {};
  if (cookie < kCookieAfterDotDot && !visit({"..", above, S_IFDIR, kCookieAfterDotDot})) return {};
  cookie = std::max(cookie, kCookieAfterDotDot);
  // Entries are gathered under the lock and shown without it.
  std::vector<ListedEntry> entries;
  do {
    TARNFS_TRY(run(Intent::kRead, 0, [&](Operation& op) -> Status {
      entries.clear();
      TARNFS_ASSIGN(const InodePtr inode, get_directory(op, directory));
      ReadLock lock(inode->mutex);
      InodeDirectoryPages pages(*this, op, *inode);
      return list_entries(pages, cookie, [&](std::string_view name, const DirectoryRecord& record) {
        entries.push_back({std::string(name), record});
        return entries.size() < kEntriesAtOnceMax;
      });
    }));
    for (const ListedEntry& entry : entries) {
      cookie = entry.record.cookie;
      if (!visit({entry.name, entry.record.inode, entry.record.type, cookie})) return {};
    }
  } while (entries.size() == kEntriesAtOnceMax);
  return {};
}

}  // namespace tarnfs
