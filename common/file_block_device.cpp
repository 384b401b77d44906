#include "common/file_block_device.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>

namespace tarnfs {
namespace {

Error errno_error(const std::string& what, const std::string& path, int number) {
  ErrorCode code = ErrorCode::kIo;
  if (number == ENOSPC || number == EDQUOT || number == EFBIG) code = ErrorCode::kNoSpace;
  if (number == ENOENT) code = ErrorCode::kNotFound;
  if (number == EACCES || number == EPERM) code = ErrorCode::kNotPermitted;
  if (number == EISDIR) code = ErrorCode::kInvalid;
  if (number == EBUSY) {
    return Error(ErrorCode::kBusy,
                 what + " " + path + ": it is mounted, or part of another device; give it back first");
  }
  return Error(code, what + " " + path + ": " + std::strerror(number));
}

// Takes the lock that keeps other processes out. It belongs to the open file, so it goes with the descriptor.
Status lock_whole(int descriptor, const std::string& path, bool exclusive) {
  struct flock lock {};
  lock.l_type = exclusive ? F_WRLCK : F_RDLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(descriptor, F_OFD_SETLK, &lock) == 0) return {};
  if (errno == EAGAIN || errno == EACCES) {
    return Error(ErrorCode::kBusy, path + " is in use by another process; unmount it there first");
  }
  return errno_error("lock", path, errno);
}

Result<bool> is_block_device_of(int descriptor, const std::string& path) {
  struct stat st {};
  if (::fstat(descriptor, &st) != 0) return errno_error("stat", path, errno);
  return S_ISBLK(st.st_mode);
}

Result<std::uint64_t> size_blocks_of(int descriptor, const std::string& path) {
  struct stat st {};
  if (::fstat(descriptor, &st) != 0) return errno_error("stat", path, errno);
  if (S_ISBLK(st.st_mode)) {
    std::uint64_t size_bytes = 0;
    if (::ioctl(descriptor, BLKGETSIZE64, &size_bytes) != 0) return errno_error("size of", path, errno);
    return size_bytes / kBlockSize;
  }
  if (!S_ISREG(st.st_mode)) {
    return Error(ErrorCode::kInvalid, path + " is neither a regular file nor a block device");
  }
  return static_cast<std::uint64_t>(st.st_size) / kBlockSize;
}

// Opens with O_DIRECT, or without it where the file system below refuses it (some tmpfs do).
Descriptor open_direct(const std::string& path, int flags, mode_t mode) {
  Descriptor descriptor(::open(path.c_str(), flags | O_CLOEXEC | O_DIRECT, mode));
  if (descriptor || errno != EINVAL) return descriptor;
  return Descriptor(::open(path.c_str(), flags | O_CLOEXEC, mode));
}

std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

// Makes the name of a new file durable: flushing a file does not promise that of the directory that names it.
Status flush_name(int descriptor, const std::string& path) {
  const std::string directory = directory_of(path);
  const Descriptor opened(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // Who may not list a directory can have its whole file system flushed.
  if (!opened && errno != EACCES) return errno_error("open", directory, errno);
  const int rc = opened ? ::fsync(opened.number()) : ::syncfs(descriptor);
  return rc == 0 ? Status() : Status(errno_error("flush", directory, errno));
}

}  // namespace

Result<std::unique_ptr<FileBlockDevice>> FileBlockDevice::open(const std::string& path, DeviceMode mode) {
  Descriptor descriptor = open_direct(path, mode == DeviceMode::kReadOnly ? O_RDONLY : O_RDWR, 0);
  const bool may_write = descriptor && mode != DeviceMode::kReadOnly;
  if (!descriptor && mode == DeviceMode::kReadOnlyAtFirst) descriptor = open_direct(path, O_RDONLY, 0);
  if (!descriptor) return errno_error("open image", path, errno);
  std::unique_ptr<FileBlockDevice> device(new FileBlockDevice(path, std::move(descriptor), 0));
  const int number = device->descriptor_.number();
  TARNFS_ASSIGN(device->size_blocks_, size_blocks_of(number, path));
  TARNFS_ASSIGN(device->is_block_device_, is_block_device_of(number, path));
  if (may_write) TARNFS_TRY(device->claim());
  TARNFS_TRY(lock_whole(number, path, mode == DeviceMode::kReadWrite));
  device->may_write_ = may_write;
  return device;
}

// Whoever writes to a block device claims it, so that nobody makes a file system there, mounts it or gives it to a
// volume manager meanwhile.
Status FileBlockDevice::claim() {
  if (!is_block_device_ || claim_) return {};
  claim_ = Descriptor(::open(path_.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC));
  return claim_ ? Status() : Status(errno_error("open image", path_, errno));
}

void FileBlockDevice::leave_claim() {
  claim_ = Descriptor();
}

Status FileBlockDevice::give_back() {
  struct flock lock {};
  lock.l_type = F_UNLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(descriptor_.number(), F_OFD_SETLK, &lock) != 0) return errno_error("unlock", path_, errno);
  leave_claim();
  return {};
}

Status FileBlockDevice::make_writable() {
  if (!may_write_) return Error(ErrorCode::kReadOnly, path_ + " cannot be opened for writing");
  return lock_whole(descriptor_.number(), path_, true);
}

Result<std::unique_ptr<FileBlockDevice>> FileBlockDevice::create(const std::string& path, std::uint64_t size_blocks) {
  Descriptor descriptor = open_direct(path, O_RDWR | O_CREAT, 0600);
  if (!descriptor) return errno_error("create image", path, errno);
  std::unique_ptr<FileBlockDevice> device(new FileBlockDevice(path, std::move(descriptor), size_blocks));
  const int number = device->descriptor_.number();
  struct stat st {};
  if (::fstat(number, &st) != 0) return errno_error("stat", path, errno);
  device->is_block_device_ = S_ISBLK(st.st_mode);
  TARNFS_TRY(device->claim());
  TARNFS_TRY(lock_whole(number, path, true));
  if (S_ISREG(st.st_mode)) {
    if (::ftruncate(number, static_cast<off_t>(size_blocks * kBlockSize)) != 0) {
      return errno_error("set the size of", path, errno);
    }
    TARNFS_TRY(flush_name(number, path));
    return device;
  }
  TARNFS_ASSIGN(const std::uint64_t device_blocks, size_blocks_of(number, path));
  if (size_blocks > device_blocks) {
    return Error(ErrorCode::kNoSpace, path + " has " + std::to_string(device_blocks) + " blocks of 4096 bytes, but " +
                                          std::to_string(size_blocks) + " are asked for");
  }
  if (size_blocks == 0) device->size_blocks_ = device_blocks;
  return device;
}

Result<std::unique_ptr<FileBlockDevice>> FileBlockDevice::create_nameless(const std::string& path,
                                                                          std::uint64_t size_blocks) {
  Descriptor descriptor = open_direct(directory_of(path), O_RDWR | O_TMPFILE, 0600);
  if (!descriptor && (errno == EOPNOTSUPP || errno == EISDIR)) {
    // A file system that has no such files: the name goes at once.
    descriptor = open_direct(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (descriptor && ::unlink(path.c_str()) != 0) return errno_error("remove", path, errno);
  }
  if (!descriptor) return errno_error("create", path, errno);
  std::unique_ptr<FileBlockDevice> device(new FileBlockDevice(path, std::move(descriptor), size_blocks));
  if (::ftruncate(device->descriptor_.number(), static_cast<off_t>(size_blocks * kBlockSize)) != 0) {
    return errno_error("set the size of", path, errno);
  }
  return device;
}

Result<std::uint64_t> FileBlockDevice::size_blocks_now() {
  return size_blocks_of(descriptor_.number(), path_);
}

Status FileBlockDevice::grow(std::uint64_t size_blocks) {
  if (size_blocks <= size_blocks_) return {};
  TARNFS_ASSIGN(const std::uint64_t now_blocks, size_blocks_of(descriptor_.number(), path_));
  if (now_blocks < size_blocks) {
    if (is_block_device_) {
      return Error(ErrorCode::kNoSpace, path_ + " has " + std::to_string(now_blocks * kBlockSize) + " bytes, but " +
                                            std::to_string(size_blocks * kBlockSize) + " are needed; make it larger");
    }
    if (::ftruncate(descriptor_.number(), static_cast<off_t>(size_blocks * kBlockSize)) != 0) {
      return errno_error("set the size of", path_, errno);
    }
  }
  size_blocks_ = size_blocks;
  return {};
}

Status FileBlockDevice::read(Address first, std::span<std::byte> out) {
  TARNFS_ASSERT(out.size() % kBlockSize == 0);
  if (first.value > size_blocks_ || out.size() / kBlockSize > size_blocks_ - first.value) {
    return Error(ErrorCode::kIo, "read of " + path_ + " beyond its end at block " + std::to_string(first.value));
  }
  auto offset = static_cast<off_t>(first.value * kBlockSize);
  while (!out.empty()) {
    const ssize_t n = ::pread(descriptor_.number(), out.data(), out.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error("read block " + std::to_string(first.value) + " of", path_, errno);
    if (n == 0) return Error(ErrorCode::kIo, "read of " + path_ + ": the image is shorter than it was");
    out = out.subspan(static_cast<std::size_t>(n));
    offset += n;
  }
  return {};
}

Status FileBlockDevice::write(Address first, std::span<const PageRef> pages) {
  if (first.value > size_blocks_ || pages.size() > size_blocks_ - first.value) {
    return Error(ErrorCode::kIo, "write to " + path_ + " beyond its end at block " + std::to_string(first.value));
  }
  auto offset = static_cast<off_t>(first.value * kBlockSize);
  std::array<iovec, 256> vectors{};
  std::size_t skipped_bytes = 0;  // of pages.front(), after a short write
  while (!pages.empty()) {
    const std::size_t count = std::min(pages.size(), vectors.size());
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t skip = i == 0 ? skipped_bytes : 0;
      vectors[i].iov_base = const_cast<std::byte*>(pages[i].data()) + skip;
      vectors[i].iov_len = kBlockSize - skip;
    }
    const ssize_t n = ::pwritev(descriptor_.number(), vectors.data(), static_cast<int>(count), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      return errno_error("write block " + std::to_string(static_cast<std::uint64_t>(offset) / kBlockSize) + " of",
                         path_, errno);
    }
    offset += n;
    const std::size_t written = skipped_bytes + static_cast<std::size_t>(n);
    pages = pages.subspan(written / kBlockSize);
    skipped_bytes = written % kBlockSize;
  }
  return {};
}

Status FileBlockDevice::flush() {
  MutexLock lock(flush_mutex_);
  if (flush_failed_) return Error(ErrorCode::kIo, "flush " + path_ + ": an earlier flush has failed");
  if (::fdatasync(descriptor_.number()) == 0) return {};
  flush_failed_ = true;
  return errno_error("flush", path_, errno);
}

// A hole punched into a block device would be written as zeros where the device cannot discard.
Status FileBlockDevice::discard(Address first, std::uint64_t count_blocks) {
  if (first.value > size_blocks_ || count_blocks > size_blocks_ - first.value) {
    return Error(ErrorCode::kIo, "discard in " + path_ + " beyond its end at block " + std::to_string(first.value));
  }
  std::array<std::uint64_t, 2> range = {first.value * kBlockSize, count_blocks * kBlockSize};
  const int rc = is_block_device_ ? ::ioctl(descriptor_.number(), BLKDISCARD, range.data())
                                  : ::fallocate(descriptor_.number(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                                static_cast<off_t>(range[0]), static_cast<off_t>(range[1]));
  if (rc == 0) return {};
  if (errno == EOPNOTSUPP || errno == ENOTTY) {
    return Error(ErrorCode::kUnsupported,
                 path_ + " cannot give storage back: " +
                     (is_block_device_ ? "the device does not discard" : "the file system below punches no holes"));
  }
  return errno_error("discard in", path_, errno);
}

Result<bool> is_write_protected(const std::string& path) {
  const Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!descriptor) return errno_error("open image", path, errno);
  TARNFS_ASSIGN(const bool is_block_device, is_block_device_of(descriptor.number(), path));
  if (!is_block_device) return ::access(path.c_str(), W_OK) != 0 && errno == EROFS;
  int read_only = 0;
  if (::ioctl(descriptor.number(), BLKROGET, &read_only) != 0) return errno_error("ask", path, errno);
  return read_only != 0;
}

}  // namespace tarnfs
