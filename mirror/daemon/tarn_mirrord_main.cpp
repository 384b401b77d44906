// tarn-mirrord: holds the mirror of a volume and shows its last published state.
//
// Exit codes: 0 ended by a signal, 1 failed, 2 wrong command line.
#include <csignal>
#include <filesystem>
#include <string>

#include "common/log.h"
#include "fs/control/background.h"
#include "fs/control/command_line.h"
#include "fs/control/text.h"
#include "fs/control/unix_socket.h"
#include "mirror/channel/zmq_channel.h"
#include "mirror/daemon/mirror_daemon.h"

namespace {

using namespace tarnfs;

constexpr const char* kProgram = "tarn-mirrord";
constexpr std::uint64_t kPinSizeMinBytes = std::uint64_t{1} << 20;

struct Arguments {
  MirrorDaemonOptions daemon;
  std::string ping_interval;
  std::string dead_after;
  std::string pin_size;
  bool foreground = false;
};

// The daemon's working directory is not the user's. A path that cannot be looked at stays as it was given.
std::string absolute(const std::string& path) {
  if (path.empty()) return path;
  std::error_code error;
  const auto whole = std::filesystem::absolute(path, error);
  if (error) return path;
  const auto canonical = std::filesystem::weakly_canonical(whole, error);
  return error ? whole.string() : canonical.string();
}

Status take_seconds(std::uint64_t& target_ms, const std::string& option, const std::string& text) {
  if (text.empty()) return {};
  const auto milliseconds = parse_seconds_ms(text);
  if (!milliseconds.ok()) return Error(ErrorCode::kUsage, option + ": " + milliseconds.error().message());
  target_ms = *milliseconds;
  return {};
}

Status take_heartbeat(Arguments& arguments) {
  TARNFS_TRY(take_seconds(arguments.daemon.ping_interval_ms, "--ping-interval", arguments.ping_interval));
  TARNFS_TRY(take_seconds(arguments.daemon.dead_after_ms, "--dead-after", arguments.dead_after));
  const Status timing = check_heartbeat(arguments.daemon.ping_interval_ms, arguments.daemon.dead_after_ms);
  if (timing.ok()) return {};
  return Error(ErrorCode::kUsage, "--ping-interval and --dead-after: " + timing.error().message());
}

Status take_pin_size(Arguments& arguments) {
  if (arguments.pin_size.empty()) return {};
  if (arguments.pin_size == "none") {
    arguments.daemon.pin_size_bytes = ~std::uint64_t{0};
    return {};
  }
  const auto size_bytes = parse_size(arguments.pin_size);
  if (!size_bytes.ok()) return Error(ErrorCode::kUsage, "--pin-size: " + size_bytes.error().message());
  if (*size_bytes < kPinSizeMinBytes) {
    return Error(ErrorCode::kUsage, "--pin-size: it is too small; give at least " + format_size(kPinSizeMinBytes));
  }
  arguments.daemon.pin_size_bytes = *size_bytes;
  return {};
}

Status check(const Arguments& arguments) {
  const std::string help = "; see tarn-mirrord --help";
  if (arguments.daemon.listen_url.empty()) return Error(ErrorCode::kUsage, "--listen is required" + help);
  if (arguments.daemon.image.empty()) return Error(ErrorCode::kUsage, "--image is required" + help);
  const Status url = check_listen_url(arguments.daemon.listen_url);
  if (!url.ok()) return Error(ErrorCode::kUsage, url.error().message() + help);
  for (const std::string& mirror : arguments.daemon.mirrors) {
    const Status connect_url = check_connect_url(mirror);
    if (!connect_url.ok()) return Error(ErrorCode::kUsage, connect_url.error().message() + help);
  }
  return {};
}

// SIGHUP is what a closed terminal sends: it ends only a daemon that was told to stay in the foreground.
int wait_for_end(const Descriptor& signals, bool foreground) {
  for (;;) {
    const Status ready = wait_for_events(signals, POLLIN, Deadline::max());
    const int signal = ready.ok() ? take_signal(signals) : 0;
    if (signal != 0 && (signal != SIGHUP || foreground)) return signal;
  }
}

int serve(Background& background, const Arguments& arguments) {
  const auto signals = prepare_daemon_process();
  if (!signals.ok()) return background.failed(signals.error());
  auto daemon = MirrorDaemon::start(arguments.daemon);
  if (!daemon.ok()) return background.failed(daemon.error());
  background.ready();
  const int signal = wait_for_end(*signals, arguments.foreground);
  log_info("ends with signal " + std::to_string(signal));
  (*daemon)->stop();
  return kExitDone;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CommandLine line(kProgram, "Holds the mirror of a tarnfs volume and shows its last published state.");
  line.flag("-f,--foreground", arguments.foreground, "stay in the foreground and log to standard error");
  line.option("--listen", arguments.daemon.listen_url, "tcp://ADDRESS:PORT", "where the primary connects to");
  line.option("--image", arguments.daemon.image, "IMAGE", "the mirror's image; made when it is missing");
  line.option("--mount", arguments.daemon.mountpoint, "DIRECTORY", "show the published state there, read-only");
  line.option("--keys", arguments.daemon.keys_directory, "DIR", "made by tarn keygen; needed but on loopback");
  line.list("--mirror", arguments.daemon.mirrors, "tcp://HOST:PORT",
            "a mirror of this one; may be given several times");
  line.option("--pin-size", arguments.pin_size, "SIZE", "most that is kept of a state while it is sent on");
  line.option("--ping-interval", arguments.ping_interval, "SECONDS", "how often it asks for a sign of life (1)");
  line.option("--dead-after", arguments.dead_after, "SECONDS", "without one the primary counts as gone (5)");
  line.option("--control", arguments.daemon.control_socket, "SOCKET", "where tarn talks to this daemon");
  if (const auto code = line.parse(argc, argv)) return *code;
  if (const Status checked = check(arguments); !checked.ok()) return tell_failure(kProgram, checked.error());
  if (const Status timing = take_heartbeat(arguments); !timing.ok()) return tell_failure(kProgram, timing.error());
  if (const Status size = take_pin_size(arguments); !size.ok()) return tell_failure(kProgram, size.error());
  arguments.daemon.image = absolute(arguments.daemon.image);
  arguments.daemon.mountpoint = absolute(arguments.daemon.mountpoint);
  arguments.daemon.control_socket = absolute(arguments.daemon.control_socket);
  arguments.daemon.keys_directory = absolute(arguments.daemon.keys_directory);
  auto background = Background::enter(arguments.foreground, kProgram);
  if (!background.ok()) return tell_failure(kProgram, background.error());
  return serve(*background, arguments);
}
