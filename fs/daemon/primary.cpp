#include "fs/daemon/primary.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "common/log.h"
#include "fs/control/background.h"
#include "fs/control/client.h"
#include "fs/control/mount_table.h"
#include "fs/control/status_report.h"
#include "fs/daemon/image_lock.h"
#include "fs/daemon/umount_registration.h"

namespace tarnfs {
namespace {

// An old daemon that takes its last consistency point.
constexpr std::chrono::seconds kImagePatience{10};
// How long users of a mount that was detached because of a signal may go on.
constexpr std::chrono::seconds kDetachedMax{20};
// The request itself has no end: it waits for a mirror.
constexpr std::chrono::hours kMirrorWaitMax{24 * 365};
// What is trimmed before it is asked whether the daemon is to end.
constexpr std::uint64_t kTrimStepBytes = 1ULL << 30;

double seconds_since(std::chrono::steady_clock::time_point began) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

bool may_publish(const Sender& sender) {
  const SenderState state = sender.status().state;
  return state == SenderState::kHandshaking || is_connected(state);
}

}  // namespace

Primary::Primary(std::string image, std::string mountpoint, MountOptions options)
    : image_(std::move(image)),
      mountpoint_(std::move(mountpoint)),
      options_(std::move(options)),
      read_only_(options_.read_only),
      mount_ended_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Primary::~Primary() {
  const Status closed = close();
  if (!closed.ok()) log_error(closed.error().describe());
}

Status Primary::start() {
  if (!mount_ended_) return Error(ErrorCode::kIo, std::string("make an eventfd: ") + std::strerror(errno));
  const DeviceMode mode = options_.read_only ? DeviceMode::kReadOnlyAtFirst : DeviceMode::kReadWrite;
  TARNFS_ASSIGN(device_, open_image(image_, mode, kImagePatience));
  TARNFS_TRY(check_place());
  TARNFS_TRY(make_mirrors());
  TARNFS_TRY(open_volume());
  TARNFS_TRY(start_control());
  return start_mount();
}

// Readers share an image: that it is open keeps nobody from mounting it at the same place once more. One who may write
// has it alone, so that the mount is what a dead daemon has left.
Status Primary::check_place() const {
  if (!is_mounted_at(image_, mountpoint_)) return {};
  const char* const state = options_.read_only ? "" : ", but its daemon is gone";
  return Error(ErrorCode::kBusy, image_ + " is mounted on " + mountpoint_ + " already" + state +
                                     "; unmount it first: umount " + mountpoint_);
}

Status Primary::make_mirrors() {
  FedMirrorsOptions mirrors;
  mirrors.urls = options_.mirrors;
  mirrors.when_none = image_ + " has no mirror; mount it with mirror=tcp://HOST:PORT";
  mirrors.channel.keys_directory = options_.keys_directory;
  mirrors.channel.heartbeat_interval = std::chrono::milliseconds(options_.ping_interval_ms);
  mirrors.channel.heartbeat_timeout = std::chrono::milliseconds(options_.dead_after_ms);
  // What one consistency point may have changed fits.
  mirrors.sender.queue_limit_bytes = std::max(mirrors.sender.queue_limit_bytes, options_.dirty_limit_bytes);
  mirrors.sender.on_state_changed = [this] { apply_policy(); };
  return mirrors_.make(mirrors);
}

Status Primary::open_volume() {
  VolumeOptions volume_options;
  volume_options.mode = options_.read_only ? VolumeMode::kReadOnly : VolumeMode::kReadWrite;
  volume_options.cp_interval_ms = options_.cp_interval_ms;
  volume_options.dirty_limit_bytes = options_.dirty_limit_bytes;
  volume_options.cache_limit_bytes = options_.cache_limit_bytes;
  volume_options.access_times = options_.access_times;
  volume_options.replay_journal = options_.replay_journal;
  volume_options.pin_size_bytes = options_.pin_size_bytes;
  volume_options.pin_age_ms = options_.pin_age_ms;
  volume_options.feed = mirrors_.feed();
  TARNFS_ASSIGN(volume_, Volume::open(*device_, volume_options));
  if (options_.durable) durable_.emplace(*volume_, *options_.durable);
  mirrors_.start(*volume_);
  apply_policy();
  return {};
}

Status Primary::start_control() {
  std::map<std::string, ControlCommand> commands;
  commands["status"] = {.run = [this](const ControlRequest&) { return answer_status(); }};
  commands["cp"] = {.run = [this](const ControlRequest& request) { return answer_cp(request); }, .waits = true};
  commands["remount"] = {.run = [this](const ControlRequest& request) { return answer_remount(request); },
                         .waits = true};
  mirrors_.add_commands(commands);
  commands["trim"] = {.run = [this](const ControlRequest& request) { return answer_trim(request); }, .waits = true};
  commands["resize"] = {.run = [this](const ControlRequest& request) { return answer_resize(request); }, .waits = true};
  const std::string uuid = volume_of(volume_->superblock()).to_string();
  const std::string usual = control_path_of(default_control_directory(), uuid, "primary");
  const std::string path = options_.control_path.empty() ? usual : options_.control_path;
  auto started = ControlServer::start(path, commands);
  if (!started.ok() && started.error().code() == ErrorCode::kBusy && options_.control_path.empty()) {
    // A copy of the image with the same identity, or the same one mounted read-only several times.
    const std::string own = control_path_of(default_control_directory(), uuid, fmt::format("primary-{}", ::getpid()));
    started = ControlServer::start(own, commands);
  }
  if (!started.ok()) return started.error();
  control_ = std::move(*started);
  return {};
}

Status Primary::start_mount() {
  FuseMountOptions mount_options;
  mount_options.mountpoint = mountpoint_;
  mount_options.source = image_;
  mount_options.read_only = options_.read_only;
  mount_options.checks_opens = options_.checks_opens || volume_->newest_root().protected_inodes > 0;
  mount_options.kernel_options = options_.kernel_options;
  mount_options.io_uring = options_.io_uring;
  mount_options.on_block_device = device_->is_block_device() && ::geteuid() == 0;
  TARNFS_TRY(mount(mount_options));
  over_io_uring_ = mount_->transport() == "io_uring";
  if (::geteuid() == 0) {
    const std::string type(mount_options.on_block_device ? kBlockDeviceMountType : kFileMountType);
    const Status registered = register_for_umount(image_, mountpoint_, type);
    if (!registered.ok()) log_warning(registered.error().describe() + "; umount may return before the daemon is gone");
  }
  log_info(fmt::format("mounted {} on {}, transport {}", image_, mountpoint_, mount_->transport()));
  return {};
}

// Changes `mount_options` to what could be had.
Status Primary::mount(FuseMountOptions& mount_options) {
  FuseMountEvents events;
  events.on_unmount = [this] { finish(); };
  events.on_end = [this] {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(mount_ended_.number(), &one, sizeof one);
  };
  if (mount_options.on_block_device) {
    // The kernel claims it now.
    device_->leave_claim();
    auto mounted = FuseMount::mount(served(), mount_options, events);
    if (mounted.ok()) {
      mount_ = std::move(*mounted);
      return {};
    }
    TARNFS_TRY(device_->claim());
    log_warning(mounted.error().describe() + "; mounted like an image in a file, without sync(2)");
    mount_options.on_block_device = false;
  }
  TARNFS_ASSIGN(mount_, FuseMount::mount(served(), mount_options, std::move(events)));
  return {};
}

FileSystem& Primary::served() {
  if (durable_) return *durable_;
  return *volume_;
}

Status Primary::run(const Descriptor& signals) {
  wait_for_end(signals);
  return close();
}

void Primary::wait_for_end(const Descriptor& signals) {
  for (;;) {
    std::array<pollfd, 2> polled = {pollfd{mount_ended_.number(), POLLIN, 0}, pollfd{signals.number(), POLLIN, 0}};
    if (::poll(polled.data(), polled.size(), -1) < 0 && errno != EINTR) return;
    if ((polled[0].revents & POLLIN) != 0) return;
    if ((polled[1].revents & POLLIN) != 0 && take_signal(signals) != 0) {
      obey_signal(signals);
      return;
    }
  }
}

// Returns once the mount is gone.
void Primary::obey_signal(const Descriptor& signals) {
  give_up_policy();
  const bool with_entry = ::geteuid() == 0 && unmount_registered(mountpoint_);
  Status unmounted = with_entry ? Status() : mount_->unmount(false);
  if (unmounted.ok()) {
    mount_->wait();
    return;
  }
  log_warning(unmounted.error().describe() + "; detached, and its users have some seconds to end");
  unmounted = mount_->unmount(true);
  if (!unmounted.ok()) log_warning(unmounted.error().describe());
  const Deadline deadline = std::chrono::steady_clock::now() + kDetachedMax;
  std::array<pollfd, 2> polled = {pollfd{mount_ended_.number(), POLLIN, 0}, pollfd{signals.number(), POLLIN, 0}};
  while (::poll(polled.data(), polled.size(), milliseconds_until(deadline)) < 0 && errno == EINTR) {
  }
  if (!mount_->ended()) log_warning(mountpoint_ + " is still in use; its users lose it now");
  mount_->abort();
}

Status Primary::close() {
  if (!device_) return {};
  closing_ = true;
  give_up_policy();
  mount_.reset();
  finish();
  mirrors_.clear();
  durable_.reset();
  volume_.reset();
  device_.reset();
  MutexLock lock(finish_mutex_);
  return finished_status_;
}

// Whoever comes while it runs waits until it is done.
void Primary::finish() {
  MutexLock lock(finish_mutex_);
  if (finished_) return;
  finished_ = true;
  closing_ = true;
  if (volume_ && !read_only_ && !volume_->status().shut_down) finished_status_ = take_last_state();
  mirrors_.stop();
  control_.reset();
  if (volume_) {
    const Status closed = volume_->close();
    if (finished_status_.ok()) finished_status_ = closed;
  }
  const Status given_back = device_->give_back();
  if (finished_status_.ok()) finished_status_ = given_back;
}

Status Primary::take_last_state() {
  const auto cp = volume_->consistency_point();
  if (!cp.ok()) return cp.error().in("last consistency point of " + image_);
  const Deadline deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(options_.close_wait_ms);
  for (const auto& sender : mirrors_.senders()) {
    if (!may_publish(*sender)) continue;
    const std::chrono::milliseconds left(milliseconds_until(deadline));
    const Status published = sender->wait_published(*cp, left);
    if (published.ok()) continue;
    log_warning(
        fmt::format("mirror {} has not published the last state, cp {}: {}; it follows when {} is mounted again",
                    sender->status().url, cp->value, published.error().describe(), image_));
  }
  return {};
}

// Holds changes back or takes them, as on_disconnect= says, while a mirror is away. One that somebody paused is not
// away.
void Primary::apply_policy() {
  if (options_.on_disconnect == OnDisconnect::kDegrade) return;
  MutexLock lock(policy_mutex_);
  Changes changes = Changes::kTaken;
  if (mirrors_.any_away() && !policy_given_up_) {
    changes = options_.on_disconnect == OnDisconnect::kBlock ? Changes::kWait : Changes::kRefused;
  }
  if (changes == changes_) return;
  changes_ = changes;
  volume_->set_changes(changes);
  log_warning(mountpoint_ + (changes == Changes::kTaken  ? " takes changes again"
                             : changes == Changes::kWait ? ": changes wait, because a mirror is away"
                                                         : ": changes are refused, because a mirror is away"));
}

void Primary::give_up_policy() {
  {
    MutexLock lock(policy_mutex_);
    policy_given_up_ = true;
  }
  apply_policy();
}

Result<std::string> Primary::answer_status() {
  const VolumeStatus status = volume_->status();
  const StateName state = state_of(status.root);
  StatusReport report;
  report.uuid = state.volume.to_string();
  report.label = std::string(label_of(status.superblock));
  report.role = "primary";
  report.epoch = state.epoch.to_string();
  report.cp = state.cp.value;
  report.root = fmt::format("{:016x}", state.root_checksum);
  report.transport = over_io_uring_ ? "io_uring" : "classic";
  report.image = image_;
  report.mountpoint = mountpoint_;
  report.size_bytes = status.root.size_blocks * kBlockSize;
  report.used_bytes = status.root.used_blocks * kBlockSize;
  report.dirty_bytes = status.dirty_bytes;
  report.journal_used_bytes = status.journal_used_bytes;
  report.cp_wait = status.cp_wait;
  report.dirty_wait = status.dirty_wait;
  report.cp_swap_longest_ns = status.cp_swap_longest_ns;
  report.cp_lock_longest_ns = status.cp_lock_longest_ns;
  report.fsync_cp_count = status.fsync_cp_count;
  report.errors = status.error_count;
  report.read_only = read_only_ || status.stopped;
  report.closing = closing_;
  report.stop_reason = status.stop_reason;
  report.mirrors = mirrors_.report();
  return to_json(report);
}

Result<std::string> Primary::answer_cp(const ControlRequest& request) {
  if (read_only_) return Error(ErrorCode::kReadOnly, mountpoint_ + " is mounted read-only");
  const bool with_mirrors = request.has_flag("mirror");
  if (with_mirrors) TARNFS_TRY(mirrors_.check_any());
  const auto began = std::chrono::steady_clock::now();
  TARNFS_ASSIGN(const Cp cp, volume_->consistency_point());
  const double durable_seconds = seconds_since(began);
  if (with_mirrors) {
    TARNFS_TRY(mirrors_.wait_published(cp, kMirrorWaitMax, [&request] { return request.is_abandoned(); }));
  }
  return fmt::format("{{\"cp\":{},\"durable_seconds\":{:.6f},\"seconds\":{:.6f}}}", cp.value, durable_seconds,
                     seconds_since(began));
}

// Asked before the kernel lets changes through, and after it does not any more.
Result<std::string> Primary::answer_remount(const ControlRequest& request) {
  if (request.has_flag("writable")) TARNFS_TRY(make_writable());
  volume_->set_access_times(request.has_flag("access_times"));
  return std::string("{}");
}

Status Primary::make_writable() {
  MutexLock lock(remount_mutex_);
  const VolumeStatus status = volume_->status();
  if (status.stopped) return Error(ErrorCode::kReadOnly, image_ + " has stopped: " + status.stop_reason);
  if (!read_only_) return {};
  TARNFS_TRY(device_->make_writable());
  TARNFS_TRY(volume_->make_writable());
  read_only_ = false;
  log_info(image_ + " is read-write now");
  return {};
}

// A part of the volume, so that others are served between two requests of a client that trims all of it.
Result<std::string> Primary::answer_trim(const ControlRequest& request) {
  if (read_only_) return Error(ErrorCode::kReadOnly, mountpoint_ + " is mounted read-only");
  TARNFS_ASSIGN(const std::uint64_t offset_bytes, bytes_in(request, "offset", 0));
  TARNFS_ASSIGN(const std::uint64_t asked_bytes, bytes_in(request, "length", ~std::uint64_t{0}));
  const std::uint64_t size_bytes = volume_->newest_root().size_blocks * kBlockSize;
  const std::uint64_t length_bytes = std::min(asked_bytes, size_bytes - std::min(size_bytes, offset_bytes));
  std::uint64_t trimmed_bytes = 0;
  for (std::uint64_t done = 0; done < length_bytes; done += kTrimStepBytes) {
    if (closing_) return Error(ErrorCode::kCanceled, image_ + " is being unmounted");
    const std::uint64_t step_bytes = std::min(kTrimStepBytes, length_bytes - done);
    TARNFS_ASSIGN(const std::uint64_t bytes, volume_->trim({offset_bytes + done, step_bytes, 0}));
    trimmed_bytes += bytes;
  }
  return fmt::format("{{\"trimmed_bytes\":{}}}", trimmed_bytes);
}

// A connected mirror is told the size when it is connected the next time, which is at once.
Result<std::string> Primary::answer_resize(const ControlRequest& request) {
  if (read_only_) return Error(ErrorCode::kReadOnly, mountpoint_ + " is mounted read-only");
  TARNFS_ASSIGN(const std::uint64_t asked_bytes, bytes_in(request, "size", 0));
  const std::uint64_t old_bytes = volume_->newest_root().size_blocks * kBlockSize;
  TARNFS_ASSIGN(const std::uint64_t size_bytes, volume_->resize(asked_bytes));
  if (size_bytes != old_bytes) log_info(fmt::format("{}: grown from {} to {} bytes", image_, old_bytes, size_bytes));
  return fmt::format("{{\"size_bytes\":{}}}", size_bytes);
}

}  // namespace tarnfs
