#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "fs/fuse/front_end.h"
#include "fs/fuse/one_view.h"
#include "fs/fuse/put_off.h"
#include "fs/fuse/transport.h"

namespace tarnfs {
namespace {

void answer_opendir(fuse_req_t request, fuse_ino_t /*inode*/, fuse_file_info* file) {
  const FrontEnd& front_end = front_end_of(request);
  if (front_end.open_directory_is_silent) {
    fuse_reply_err(request, ENOSYS);
    return;
  }
  // Nothing tells the kernel that a listing is not true any more before it has put it into its cache.
  file->cache_readdir = front_end.kernel_cache == nullptr;
  fuse_reply_open(request, file);
}

void answer_releasedir(fuse_req_t request, fuse_ino_t /*inode*/, fuse_file_info* /*file*/) {
  fuse_reply_err(request, 0);
}

void answer_fsyncdir(fuse_req_t request, fuse_ino_t inode, int data_only, fuse_file_info* /*file*/) {
  may_wait(request, front_end_of(request).fsyncs,
           [=] { reply_status(request, file_system_of(request).fsync(inode_of(inode), data_only != 0)); });
}

struct stat stat_of_entry(const DirectoryEntry& entry) {
  struct stat result {};
  result.st_ino = entry.inode.value;
  result.st_mode = entry.type;
  return result;
}

// Collects entries in a reply of limited size.
class Listing {
 public:
  Listing(fuse_req_t request, std::size_t size) : request_(request), buffer_(reply_buffer(request, size)) {}

  char* free_space() { return reinterpret_cast<char*>(buffer_.data()) + used_bytes_; }
  std::size_t free_bytes() const { return buffer_.size() - used_bytes_; }
  void take(std::size_t bytes) { used_bytes_ += bytes; }
  void clear() { used_bytes_ = 0; }
  // Answers the request: an error only counts when there is no entry to hand out before it. True when the kernel took
  // the reply.
  bool reply(const Status& status) {
    if (!status.ok() && used_bytes_ == 0) {
      reply_error(request_, status.error());
      return false;
    }
    return fuse_reply_buf(request_, reinterpret_cast<char*>(buffer_.data()), used_bytes_) == 0;
  }

 private:
  fuse_req_t request_;
  std::span<std::byte> buffer_;
  std::size_t used_bytes_ = 0;
};

void answer_readdir(fuse_req_t request, fuse_ino_t inode, std::size_t size, off_t cookie, fuse_file_info* /*file*/) {
  Listing listing(request, size);
  const auto add = [&](const DirectoryEntry& entry) {
    const std::string name(entry.name);
    const struct stat attributes = stat_of_entry(entry);
    const std::size_t bytes = fuse_add_direntry(request, listing.free_space(), listing.free_bytes(), name.c_str(),
                                                &attributes, static_cast<off_t>(entry.next_cookie));
    if (bytes > listing.free_bytes()) return false;
    listing.take(bytes);
    return true;
  };
  FileSystem& file_system = file_system_of(request);
  listing.reply(in_one_view(file_system, [&] {
    listing.clear();
    return file_system.list(inode_of(inode), static_cast<std::uint64_t>(cookie), add);
  }));
}

// Fills in the entry of READDIRPLUS. Returns false when the name is gone since it was listed; fails only with
// kWouldWait.
Result<bool> fill_entry(FileSystem& file_system, const KernelCache::Answer& answer, const DirectoryEntry& listed,
                        fuse_entry_param& entry) {
  entry = fuse_entry_param{};
  entry.attr = stat_of_entry(listed);
  if (listed.name == "." || listed.name == "..") return true;  // number 0: the kernel takes no lookup
  const auto attributes = file_system.attributes_with_lookup(listed.inode);
  if (attributes.ok()) {
    entry = entry_of(answer, *attributes);
    return true;
  }
  const ErrorCode code = attributes.error().code();
  if (code == ErrorCode::kWouldWait) return attributes.error();
  // A damaged inode must not hide its name: it is listed with number 0, and the kernel asks when it needs more.
  return code != ErrorCode::kNotFound && code != ErrorCode::kStale;
}

class ListingPlus {
 public:
  ListingPlus(fuse_req_t request, std::size_t size)
      : request_(request),
        file_system_(file_system_of(request)),
        answer_(answer_to(request)),
        listing_(request, size) {}

  Status fill(InodeNumber directory, std::uint64_t cookie) {
    give_back();
    listing_.clear();
    answer_.note_listed(directory);
    Status cut_short;
    const Status status = file_system_.list(directory, cookie, [&](const DirectoryEntry& listed) {
      const auto added = add(listed);
      if (!added.ok()) cut_short = added.error();
      return added.ok() && *added;
    });
    return cut_short.ok() ? status : cut_short;
  }

  void reply(const Status& status) {
    if (!listing_.reply(status)) give_back();
  }

 private:
  // False when there is no room for it. Fails only with kWouldWait.
  Result<bool> add(const DirectoryEntry& listed) {
    const std::string name(listed.name);
    const std::size_t bytes = fuse_add_direntry_plus(request_, nullptr, 0, name.c_str(), nullptr, 0);
    if (bytes > listing_.free_bytes()) return false;
    fuse_entry_param entry{};
    TARNFS_ASSIGN(const bool filled, fill_entry(file_system_, answer_, listed, entry));
    if (!filled) return true;
    if (entry.ino != 0) looked_up_.push_back(inode_of(entry.ino));
    fuse_add_direntry_plus(request_, listing_.free_space(), listing_.free_bytes(), name.c_str(), &entry,
                           static_cast<off_t>(listed.next_cookie));
    listing_.take(bytes);
    return true;
  }

  // Lookups that the kernel has not been told of.
  void give_back() {
    for (const InodeNumber number : looked_up_) file_system_.forget(number, 1);
    looked_up_.clear();
  }

  fuse_req_t request_;
  FileSystem& file_system_;
  KernelCache::Answer answer_;
  Listing listing_;
  std::vector<InodeNumber> looked_up_;
};

void answer_readdirplus(fuse_req_t request, fuse_ino_t inode, std::size_t size, off_t cookie,
                        fuse_file_info* /*file*/) {
  ListingPlus listing(request, size);
  listing.reply(in_one_view(file_system_of(request),
                            [&] { return listing.fill(inode_of(inode), static_cast<std::uint64_t>(cookie)); }));
}

}  // namespace

void add_directory_operations(fuse_lowlevel_ops& operations) {
  operations.opendir = answer_opendir;
  operations.readdir = answered_here<answer_readdir>();
  operations.readdirplus = answered_here<answer_readdirplus>();
  operations.releasedir = answer_releasedir;
  operations.fsyncdir = answer_fsyncdir;
}

}  // namespace tarnfs
