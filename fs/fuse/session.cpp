#include <fcntl.h>
#include <fuse_log.h>
#include <pthread.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <thread>

#include "common/log.h"
#include "common/mutex.h"
#include "fs/fuse/front_end.h"
#include "fs/fuse/mount.h"
#include "fs/fuse/read_ahead.h"
#include "fs/fuse/transport.h"
#include "fs/fuse/waiting_pool.h"

namespace tarnfs {
namespace {

// Writeback that waits for the disk leaves threads for the others.
constexpr unsigned kBackgroundMax = 12;

// For so long du may not see that a file has grown which somebody keeps open.
constexpr std::chrono::milliseconds kGrownNoticeInterval{1000};

// While it is set, what libfuse has to say on this thread goes there and not to the log.
thread_local std::string* captured_message = nullptr;

void take_message(enum fuse_log_level level, const char* format, va_list arguments) {
  std::array<char, 512> text{};
  std::vsnprintf(text.data(), text.size(), format, arguments);
  std::string_view message(text.data());
  while (message.ends_with('\n')) message.remove_suffix(1);
  if (message.starts_with("fuse: ")) message.remove_prefix(6);
  if (captured_message != nullptr) {
    captured_message->assign(message);
  } else if (level <= FUSE_LOG_ERR) {
    log_error(message);
  } else if (level <= FUSE_LOG_WARNING) {
    log_warning(message);
  }
}

// libfuse splits options at commas.
std::string escaped(std::string_view value) {
  std::string result;
  for (const char c : value) {
    if (c == ',' || c == '\\') result.push_back('\\');
    result.push_back(c);
  }
  return result;
}

std::string option_list(const FuseMountOptions& options) {
  std::string list = "default_permissions,subtype=tarnfs,max_read=" + std::to_string(kTransferMaxBytes);
  list += ",fsname=" + escaped(options.source);
  list += options.read_only ? ",ro" : ",rw";
  if (options.on_block_device) list += ",blkdev,blksize=" + std::to_string(kBlockSize);
  for (const std::string& option : options.kernel_options) list += "," + escaped(option);
  return list;
}

Status check_mountpoint(const std::string& path) {
  struct stat found {};
  if (::stat(path.c_str(), &found) != 0) {
    return Error(ErrorCode::kInvalid, "mount on " + path + ": " + std::strerror(errno));
  }
  if (!S_ISDIR(found.st_mode)) {
    return Error(ErrorCode::kInvalid, "mount on " + path + ": not a directory; give one that exists");
  }
  return {};
}

bool is_mount_root(const std::string& path) {
  struct statx found {};
  return ::statx(AT_FDCWD, path.c_str(), AT_NO_AUTOMOUNT, 0, &found) == 0 &&
         (found.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
bool ask_for(fuse_conn_info& connection, std::uint64_t capability, bool wanted) {
  if (wanted) return fuse_set_feature_flag(&connection, capability);
  fuse_unset_feature_flag(&connection, capability);
  return false;
}
#else
bool ask_for(fuse_conn_info& connection, unsigned capability, bool wanted) {
  wanted = wanted && (connection.capable & capability) != 0;
  if (wanted) {
    connection.want |= capability;
  } else {
    connection.want &= ~capability;
  }
  return wanted;
}
#endif

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18)
bool can_drop_all_names(const fuse_conn_info& connection) {
  constexpr unsigned kMinorWithEpochs = 44;
  return connection.proto_minor >= kMinorWithEpochs;
}
int drop_all_names(fuse_session* session) {
  return fuse_lowlevel_notify_increment_epoch(session);
}
#else
bool can_drop_all_names(const fuse_conn_info& /*connection*/) {
  return false;
}
int drop_all_names(fuse_session* /*session*/) {
  return -ENOSYS;
}
#endif

// Whether set-user-id bits are ours to drop.
bool take_privileges(const FrontEnd& front_end, [[maybe_unused]] fuse_conn_info& connection) {
#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2
  return ask_for(connection, FUSE_CAP_HANDLE_KILLPRIV_V2, kLibraryDecodesAll) ||
         front_end.connection.privileges_offered;
#else
  return front_end.connection.privileges_offered;
#endif
}

void negotiate(FrontEnd& front_end, fuse_conn_info& connection) {
  const bool ours_alone = front_end.kernel_cache == nullptr;
  for (const auto capability :
       {FUSE_CAP_ASYNC_READ, FUSE_CAP_PARALLEL_DIROPS, FUSE_CAP_IOCTL_DIR, FUSE_CAP_EXPORT_SUPPORT,
        FUSE_CAP_READDIRPLUS, FUSE_CAP_READDIRPLUS_AUTO, FUSE_CAP_POSIX_ACL, FUSE_CAP_DONT_MASK}) {
    ask_for(connection, capability, true);
  }
#ifdef FUSE_CAP_ALLOW_IDMAP
  ask_for(connection, FUSE_CAP_ALLOW_IDMAP, true);
#endif
  front_end.kernel_writes_back = ask_for(connection, FUSE_CAP_WRITEBACK_CACHE, ours_alone);
  if (front_end.kernel_writes_back) front_end.file_system.leave_times_to_kernel();
  ask_for(connection, FUSE_CAP_CACHE_SYMLINKS, true);
  // The kernel would drop all pages of a file for a new time or size. It is told which ones are not true any more.
  ask_for(connection, FUSE_CAP_AUTO_INVAL_DATA, false);
  ask_for(connection, FUSE_CAP_EXPLICIT_INVAL_DATA, !ours_alone);
  // After an asynchronous O_DIRECT write the kernel would leave old pages in its cache. An open must be able to go
  // without a request, so O_TRUNC comes as SETATTR. Data is checksummed, so it must be in memory: splice only costs.
  for (const auto capability : {FUSE_CAP_ASYNC_DIO, FUSE_CAP_ATOMIC_O_TRUNC, FUSE_CAP_SPLICE_READ,
                                FUSE_CAP_SPLICE_WRITE, FUSE_CAP_SPLICE_MOVE, FUSE_CAP_HANDLE_KILLPRIV}) {
    ask_for(connection, capability, false);
  }
  connection.max_write = kTransferMaxBytes;
  connection.max_read = kTransferMaxBytes;
  connection.max_background = kBackgroundMax;
  connection.congestion_threshold = kBackgroundMax * 3 / 4;
  connection.time_gran = 1;
  front_end.open_is_silent = !front_end.checks_opens && (connection.capable & FUSE_CAP_NO_OPEN_SUPPORT) != 0;
  front_end.drops_privileges = take_privileges(front_end, connection);
  // The kernel caches listings of directories that it opens by itself.
  front_end.open_directory_is_silent = ours_alone && (connection.capable & FUSE_CAP_NO_OPENDIR_SUPPORT) != 0;
  if (front_end.kernel_cache != nullptr) front_end.kernel_cache->set_drops_all_names(can_drop_all_names(connection));
}

// As many as libfuse's queues take: one for each processor, of 8 requests.
unsigned waiting_requests_max() {
  return 8 * static_cast<unsigned>(std::max(1, ::get_nprocs_conf()));
}

// Interrupts the semaphore that libfuse's loop waits on.
void install_wake_signal() {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  ::sigaction(SIGRTMIN + 1, &action, nullptr);
}

class FuseSession final : public FuseMount {
 public:
  FuseSession(FileSystem& file_system, const FuseMountOptions& options, FuseMountEvents events)
      : served_{FrontEnd(file_system), this}, options_(options), events_(std::move(events)) {
    served_.front_end.checks_opens = options.checks_opens;
  }
  ~FuseSession() override;
  FuseSession(const FuseSession&) = delete;
  FuseSession& operator=(const FuseSession&) = delete;

  Status start();
  Status unmount(bool lazily) override;
  void abort() override;
  void wait() override;
  bool ended() const override;
  std::string_view transport() const override;
  ViewListener* view_listener() override { return kernel_cache_.get(); }
  KernelCacheStatus kernel_cache_status() const override;

 private:
  enum class State {
    kStarting,  // the kernel has not spoken yet
    kServing,   // between INIT and the last request
    kClosing,   // no request is served any more; the session is being closed
    kEnded,
  };
  // What the requests see as user data: front_end_of() takes it for its first member.
  struct Served {
    FrontEnd front_end;
    FuseSession* session;
  };

  static void answer_init(void* user_data, fuse_conn_info* connection);
  static void answer_destroy(void* user_data);
  static ssize_t read_device(int descriptor, void* buffer, std::size_t size, void* user_data);
  static ssize_t write_device(int descriptor, iovec* parts, int count, void* user_data);
  Status create_session();
  void loop();
  void close_session();
  Status serve_device();
  void make_kernel_cache();
  void make_attribute_notices();
  void close_notices();
  void take_ready(bool over_io_uring);

  Served served_;
  const FuseMountOptions options_;
  const FuseMountEvents events_;
  bool ring_wanted_ = false;         // set by start()
  bool tells_ready_ = false;         // set by start()
  fuse_session* session_ = nullptr;  // set by start(), freed when the loop has ended
  // Set by start(). Outlives the session's rings.
  std::unique_ptr<WaitingPool> waiting_pool_;
  std::unique_ptr<KernelCache> kernel_cache_;            // set by start(), closed before the session goes
  std::unique_ptr<AttributeNotices> attribute_notices_;  // the same
  std::thread loop_thread_;

  mutable Mutex mutex_;
  Condition changed_;
  State state_ TARNFS_GUARDED_BY(mutex_) = State::kStarting;
  bool began_ TARNFS_GUARDED_BY(mutex_) = false;
  bool over_io_uring_ TARNFS_GUARDED_BY(mutex_) = false;
  bool detached_ TARNFS_GUARDED_BY(mutex_) = false;  // the mountpoint may be somebody else's by now
};

void FuseSession::answer_init(void* user_data, fuse_conn_info* connection) {
  auto& served = *static_cast<Served*>(user_data);
  negotiate(served.front_end, *connection);
  if (!served.session->tells_ready_) served.session->take_ready(false);
}

// The kernel sends it for block devices, and waits. libfuse calls it too when a session is closed without one.
void FuseSession::answer_destroy(void* user_data) {
  const FuseSession& session = *static_cast<Served*>(user_data)->session;
  {
    MutexLock lock(session.mutex_);
    if (session.state_ >= State::kClosing) return;
  }
  if (session.events_.on_unmount) session.events_.on_unmount();
}

ssize_t FuseSession::read_device(int descriptor, void* buffer, std::size_t size, void* user_data) {
  return read_request(static_cast<Served*>(user_data)->front_end.connection, descriptor, buffer, size);
}

ssize_t FuseSession::write_device(int descriptor, iovec* parts, int count, void* user_data) {
  return write_reply(static_cast<Served*>(user_data)->front_end.connection, descriptor, parts, count);
}

void FuseSession::take_ready(bool over_io_uring) {
  served_.front_end.forgets_come_alone.store(over_io_uring, std::memory_order_relaxed);
  MutexLock lock(mutex_);
  over_io_uring_ = over_io_uring;
  began_ = true;
  state_ = State::kServing;
  changed_.notify_all();
}

Status FuseSession::create_session() {
  fuse_lowlevel_ops operations{};
  operations.init = answer_init;
  operations.destroy = answer_destroy;
  add_name_operations(operations);
  add_inode_operations(operations);
  add_data_operations(operations);
  add_directory_operations(operations);
  add_volume_operations(operations);

  const std::string list = option_list(options_) + (ring_wanted_ ? ",io_uring" : "");
  std::array<const char*, 3> words = {"tarnfs", "-o", list.c_str()};
  fuse_args arguments = FUSE_ARGS_INIT(static_cast<int>(words.size()), const_cast<char**>(words.data()));
  session_ = fuse_session_new(&arguments, &operations, sizeof operations, &served_);
  fuse_opt_free_args(&arguments);
  if (session_ == nullptr) return Error(ErrorCode::kInvalid);
  tells_ready_ = on_session_ready(session_, [](void* user_data, bool over_io_uring) {
    static_cast<Served*>(user_data)->session->take_ready(over_io_uring);
  });
  if (fuse_session_mount(session_, options_.mountpoint.c_str()) != 0) {
    fuse_session_destroy(session_);
    session_ = nullptr;
    return Error(ErrorCode::kIo);
  }
  Status served = serve_device();
  if (served.ok()) return {};
  fuse_session_unmount(session_);
  fuse_session_destroy(session_);
  session_ = nullptr;
  return served;
}

Status FuseSession::serve_device() {
  if constexpr (!kLibraryDecodesAll) {
    fuse_custom_io device{};
    device.writev = write_device;
    device.read = read_device;
    if (fuse_session_custom_io(session_, &device, fuse_session_fd(session_)) != 0) return Error(ErrorCode::kIo);
  }
  return {};
}

Status FuseSession::start() {
  TARNFS_TRY(check_mountpoint(options_.mountpoint));
  TARNFS_ASSIGN(ring_wanted_, choose_io_uring(options_.io_uring));
  if (ring_wanted_) {
    // Made here, for the rings' threads are each bound to a processor.
    waiting_pool_ = std::make_unique<WaitingPool>(std::min(options_.threads_max, waiting_requests_max()));
    served_.front_end.waiting_pool = waiting_pool_.get();
  }
  served_.front_end.forget_attributes = [this](InodeNumber inode) {
    fuse_lowlevel_notify_inval_inode(session_, inode.value, -1, 0);
  };
  if (options_.changes_by_itself) {
    make_kernel_cache();
  } else {
    make_attribute_notices();
  }
  install_wake_signal();
  fuse_set_log_func(take_message);
  std::string message;
  captured_message = &message;
  const Status created = create_session();
  captured_message = nullptr;
  if (!created.ok()) {
    const std::string reason = message.empty() ? "libfuse refused without a reason" : message;
    return Error(created.error().code(), "mount on " + options_.mountpoint + ": " + reason);
  }
  loop_thread_ = std::thread([this] { loop(); });
  bool over_io_uring = false;
  {
    MutexLock lock(mutex_);
    while (state_ == State::kStarting) changed_.wait(mutex_);
    if (!began_) {
      return Error(ErrorCode::kIo, "mount on " + options_.mountpoint + ": the session ended before it began");
    }
    if (state_ != State::kServing) return {};  // somebody has unmounted it already
    over_io_uring = over_io_uring_;
  }
  set_read_ahead(options_.mountpoint, kTransferMaxBytes, options_.on_block_device, tells_ready_);
  if (over_io_uring || !ring_wanted_) return {};
  const std::string message_start = "mount on " + options_.mountpoint + ": io_uring could not be set up";
  if (options_.io_uring == IoUring::kOn) return Error(ErrorCode::kUnsupported, message_start);
  log_warning(message_start + "; requests come the classic way");
  return {};
}

void FuseSession::make_kernel_cache() {
  KernelCache::Calls calls;
  calls.drop_inode = [this](InodeNumber inode, std::int64_t offset_bytes, std::int64_t length_bytes) {
    return fuse_lowlevel_notify_inval_inode(session_, inode.value, offset_bytes, length_bytes);
  };
  calls.drop_name = [this](InodeNumber directory, const std::string& name) {
    return fuse_lowlevel_notify_inval_entry(session_, directory.value, name.c_str(), name.size());
  };
  calls.drop_all_names = [this] { return drop_all_names(session_); };
  kernel_cache_ =
      std::make_unique<KernelCache>(std::move(calls), options_.kernel_wait_max.value_or(KernelCache::kWaitMax));
  served_.front_end.kernel_cache = kernel_cache_.get();
}

void FuseSession::make_attribute_notices() {
  AttributeNotices::Calls calls;
  calls.forget = served_.front_end.forget_attributes;
  calls.has_name = [this](InodeNumber inode) {
    const auto attributes = served_.front_end.file_system.attributes(inode);
    return attributes.ok() && attributes->link_count > 0;
  };
  attribute_notices_ = std::make_unique<AttributeNotices>(std::move(calls), kGrownNoticeInterval);
  served_.front_end.attribute_notices = attribute_notices_.get();
}

// While requests are served: what tells the kernel may wait for one of them.
void FuseSession::close_notices() {
  if (kernel_cache_) kernel_cache_->close();
  if (attribute_notices_) attribute_notices_->close();
}

KernelCacheStatus FuseSession::kernel_cache_status() const {
  if (kernel_cache_ == nullptr) return {};
  return {kernel_cache_->asked_count(), kernel_cache_->late_count()};
}

void FuseSession::loop() {
  fuse_loop_config* config = fuse_loop_cfg_create();
  fuse_loop_cfg_set_clone_fd(config, 1);
  fuse_loop_cfg_set_max_threads(config, options_.threads_max);
  const int result = fuse_session_loop_mt(session_, config);
  fuse_loop_cfg_destroy(config);
  if (result != 0) log_error("serve " + options_.mountpoint + ": " + std::strerror(result < 0 ? -result : result));
  close_session();
  if (events_.on_end) events_.on_end();
  MutexLock lock(mutex_);
  state_ = State::kEnded;
  changed_.notify_all();
}

// Closing the session's descriptor is what makes the kernel answer whoever still waits on the mount.
void FuseSession::close_session() {
  bool detached = false;
  {
    MutexLock lock(mutex_);
    state_ = State::kClosing;
    changed_.notify_all();
    detached = detached_;
  }
  close_notices();
  if (waiting_pool_) waiting_pool_->close();
  // A ring keeps the connection open: the kernel would wait in vain for what it sends while it unmounts.
  stop_rings(session_);
  // Takes the mount away if it is still there; it must not take away another one that came to the same place.
  if (!detached || !is_mount_root(options_.mountpoint)) fuse_session_unmount(session_);
  fuse_session_destroy(session_);
}

Status FuseSession::unmount(bool lazily) {
  if (ended()) return {};
  const int flags = UMOUNT_NOFOLLOW | (lazily ? MNT_DETACH : 0);
  if (lazily) {
    MutexLock lock(mutex_);
    detached_ = true;
  }
  if (::umount2(options_.mountpoint.c_str(), flags) == 0) return {};
  const int number = errno;
  if (number == EINVAL || number == ENOENT) return {};  // somebody else was faster
  const ErrorCode code = number == EBUSY ? ErrorCode::kBusy : ErrorCode::kNotPermitted;
  return Error(code, "unmount " + options_.mountpoint + ": " + std::strerror(number));
}

// libfuse's loop looks at the exit flag and then waits on a semaphore that only a signal interrupts. A signal that
// comes between the two is lost, so it is sent until the loop is seen to have ended.
void FuseSession::abort() {
  close_notices();
  MutexLock lock(mutex_);
  if (state_ < State::kClosing) fuse_session_exit(session_);
  while (state_ < State::kClosing) {
    ::pthread_kill(loop_thread_.native_handle(), SIGRTMIN + 1);
    changed_.wait_for(mutex_, std::chrono::milliseconds(10));
  }
  while (state_ != State::kEnded) changed_.wait(mutex_);
}

void FuseSession::wait() {
  MutexLock lock(mutex_);
  while (state_ != State::kEnded) changed_.wait(mutex_);
}

bool FuseSession::ended() const {
  MutexLock lock(mutex_);
  return state_ == State::kEnded;
}

std::string_view FuseSession::transport() const {
  MutexLock lock(mutex_);
  return over_io_uring_ ? "io_uring" : "classic";
}

FuseSession::~FuseSession() {
  if (!loop_thread_.joinable()) return;
  if (!ended()) {
    const Status unmounted = unmount(true);
    if (!unmounted.ok()) log_warning(unmounted.error().describe());
    abort();
  }
  loop_thread_.join();
}

}  // namespace

Status FuseMount::check(const FuseMountOptions& options) {
  TARNFS_TRY(check_mountpoint(options.mountpoint));
  const auto over_io_uring = choose_io_uring(options.io_uring);
  return over_io_uring.ok() ? Status() : Status(over_io_uring.error());
}

Result<std::unique_ptr<FuseMount>> FuseMount::mount(FileSystem& file_system, const FuseMountOptions& options,
                                                    FuseMountEvents events) {
  auto session = std::make_unique<FuseSession>(file_system, options, std::move(events));
  TARNFS_TRY(session->start());
  return std::unique_ptr<FuseMount>(std::move(session));
}

}  // namespace tarnfs
