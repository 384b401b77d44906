#include "mirror/daemon/mirror_daemon.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <iterator>

#include "common/checksum.h"
#include "common/log.h"
#include "fs/control/client.h"
#include "fs/control/server.h"
#include "fs/control/status_report.h"
#include "fs/engine/volume.h"
#include "fs/fuse/mount.h"
#include "mirror/channel/zmq_channel.h"
#include "mirror/fed/fed_mirrors.h"
#include "mirror/receiver/mirror_source.h"
#include "mirror/receiver/receiver.h"

namespace tarnfs {
namespace {

// ZeroMQ answers for a primary whose threads wait for its disk: these may take longer to say something themselves.
constexpr std::uint64_t kSilencePerDead = 3;

std::string default_control_path(const std::string& image) {
  // The volume's name is not known before the first primary came, so the image names the socket.
  const auto hash = checksum_of(std::as_bytes(std::span(image.data(), image.size())));
  return control_path_of(default_control_directory(), fmt::format("{:016x}", hash), "mirror");
}

class RunningMirror final : public MirrorDaemon {
 public:
  explicit RunningMirror(const MirrorDaemonOptions& options)
      : options_(options), storage_(file_mirror_storage(options.image)) {}
  ~RunningMirror() override { stop(); }

  Status start() {
    TARNFS_TRY(check_listen_url(options_.listen_url));
    TARNFS_TRY(check_keys(options_.listen_url, options_.keys_directory));
    TARNFS_TRY(make_mirrors());
    ReceiverOptions receiver_options;
    receiver_options.silence_max_ms = kSilencePerDead * options_.dead_after_ms;
    receiver_options.own_id = id_;
    receiver_options.kept.limit_bytes = options_.pin_size_bytes;
    receiver_options.kept.feed = mirrors_.feed();
    TARNFS_ASSIGN(receiver_, Receiver::open(*storage_, receiver_options));
    TARNFS_ASSIGN(std::unique_ptr<ServerChannel> channel, listen_zmq(options_.listen_url, channel_options()));
    address_ = channel->address();
    VolumeOptions volume_options;
    volume_options.mode = VolumeMode::kMirror;
    TARNFS_ASSIGN(volume_, Volume::open(receiver_->device(), volume_options));
    TARNFS_TRY(receiver_->show(*volume_));
    TARNFS_TRY(mount());
    source_.emplace(*volume_, receiver_->kept());
    mirrors_.start(*source_);
    TARNFS_TRY(receiver_->start(*volume_, std::move(channel)));
    TARNFS_TRY(start_control());
    log_info(options_.image + " listens on " + address_ + (options_.keys_directory.empty() ? "" : ", with keys"));
    return {};
  }

  void stop() override {
    control_.reset();
    if (receiver_) receiver_->stop();
    mirrors_.stop();
    if (volume_) volume_->set_view_listener(nullptr);
    if (mount_) unmount();
    mount_.reset();
    if (volume_) {
      if (const Status closed = volume_->close(); !closed.ok()) log_error(closed.error().describe());
    }
    volume_.reset();
    receiver_.reset();
  }

 private:
  ZmqOptions channel_options() const {
    ZmqOptions channel_options;
    channel_options.keys_directory = options_.keys_directory;
    channel_options.heartbeat_interval = std::chrono::milliseconds(options_.ping_interval_ms);
    channel_options.heartbeat_timeout = std::chrono::milliseconds(options_.dead_after_ms);
    return channel_options;
  }

  Status make_mirrors() {
    FedMirrorsOptions mirrors;
    mirrors.urls = options_.mirrors;
    mirrors.when_none = options_.image + " has no mirror of its own; start tarn-mirrord with --mirror tcp://HOST:PORT";
    mirrors.channel = channel_options();
    mirrors.sender.id = id_;
    mirrors.sender.source_is_mirror = true;
    mirrors.sender.pin_size_option = "--pin-size ";
    return mirrors_.make(mirrors);
  }

  Status mount() {
    if (options_.mountpoint.empty()) return {};
    FuseMountOptions mount_options;
    mount_options.mountpoint = options_.mountpoint;
    mount_options.source = options_.image;
    mount_options.read_only = true;
    mount_options.changes_by_itself = true;
    if (::geteuid() == 0) mount_options.kernel_options.emplace_back("allow_other");
    const auto on_end = [this] {
      log_info(options_.mountpoint + " is no longer mounted");
      mounted_.store(false);
    };
    TARNFS_ASSIGN(mount_, FuseMount::mount(*volume_, mount_options, {.on_unmount = {}, .on_end = on_end}));
    mounted_.store(true);
    volume_->set_view_listener(mount_->view_listener());  // the receiver has no thread yet
    return {};
  }

  // Users of a mount that vanishes are not waited for: they have a mirror's read-only view and lose nothing.
  void unmount() {
    if (const Status gone = mount_->unmount(false); gone.ok()) return;
    if (const Status detached = mount_->unmount(true); !detached.ok()) log_error(detached.error().describe());
    mount_->abort();
  }

  Status start_control() {
    const std::string path =
        options_.control_socket.empty() ? default_control_path(options_.image) : options_.control_socket;
    std::map<std::string, ControlCommand> commands;
    commands["status"].run = [this](const ControlRequest&) -> Result<std::string> { return to_json(report()); };
    mirrors_.add_commands(commands);
    TARNFS_ASSIGN(control_, ControlServer::start(path, std::move(commands)));
    return {};
  }

  StatusReport report() const {
    const ReceiverStatus status = receiver_->status();
    StatusReport report;
    if (!status.volume.is_zero()) report.uuid = status.volume.to_string();
    report.label = status.label;
    report.role = "mirror";
    if (status.published.cp.value != 0) {
      report.epoch = status.published.epoch.to_string();
      report.cp = status.published.cp.value;
      report.root = fmt::format("{:016x}", status.published.root_checksum);
    }
    report.image = options_.image;
    if (mounted_.load()) report.mountpoint = options_.mountpoint;
    if (mount_) {
      report.transport = mount_->transport();
      const KernelCacheStatus kept = mount_->kernel_cache_status();
      report.kernel_asked_count = kept.asked_count;
      report.kernel_late_count = kept.late_count;
    }
    report.size_bytes = status.size_blocks * kBlockSize;
    report.used_bytes = status.used_blocks * kBlockSize;
    report.dirty_bytes = status.staged_bytes;
    report.errors = volume_->status().error_count;
    report.read_only = true;
    if (status.state == ReceiverState::kStopped) report.stop_reason = status.last_error;
    PeerReport peer;
    peer.role = "primary";
    peer.url = address_;
    peer.state = status.connected ? "live" : "connecting";
    peer.mode = "async";
    peer.encrypted = !options_.keys_directory.empty();
    if (!status.connected) peer.error = status.last_error;
    peer.published_cp = report.cp;
    peer.sent_bytes = status.received_bytes;
    peer.wire_bytes = status.wire_bytes;
    if (peer.wire_bytes > 0) {
      peer.compression_ratio = static_cast<double>(peer.sent_bytes) / static_cast<double>(peer.wire_bytes);
    }
    report.mirrors.push_back(std::move(peer));
    std::vector<PeerReport> fed = mirrors_.report();
    std::move(fed.begin(), fed.end(), std::back_inserter(report.mirrors));
    return report;
  }

  const MirrorDaemonOptions options_;
  const std::unique_ptr<MirrorStorage> storage_;
  std::string address_;
  std::atomic<bool> mounted_{false};
  const Id128 id_ = system_clock().random_id();  // of all senders
  FedMirrors mirrors_;
  std::unique_ptr<Receiver> receiver_;
  std::unique_ptr<Volume> volume_;
  std::optional<MirrorSource> source_;
  std::unique_ptr<FuseMount> mount_;  // written before the receiver starts and after it and control stopped
  std::unique_ptr<ControlServer> control_;
};

}  // namespace

Result<std::unique_ptr<MirrorDaemon>> MirrorDaemon::start(const MirrorDaemonOptions& options) {
  auto daemon = std::make_unique<RunningMirror>(options);
  TARNFS_TRY(daemon->start());
  return std::unique_ptr<MirrorDaemon>(std::move(daemon));
}

}  // namespace tarnfs
