// tarn: looks after running volumes and mirrors.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <string>
#include <thread>

#include "common/types.h"
#include "fs/control/client.h"
#include "fs/control/command_line.h"
#include "fs/control/text.h"
#include "fs/tools/progress.h"
#include "fs/tools/resize_image.h"
#include "mirror/channel/key_directory.h"

namespace {

using namespace tarnfs;

constexpr const char* kProgram = "tarn";
constexpr std::chrono::seconds kWatchInterval{1};
// A consistency point waits for a disk, one with --mirror for a network that may be away: both as long as it takes.
constexpr std::chrono::hours kWaitMax{24 * 365};
// What only changes how the daemon goes on.
constexpr std::chrono::seconds kAnswerMax{60};
constexpr std::chrono::milliseconds kPauseCheck{20};

struct Arguments {
  std::string command;
  std::string target;
  std::string rate;
  bool json = false;
  bool watch = false;
  bool mirror = false;
  std::string size;
};

Result<std::string> status_text(const Arguments& arguments) {
  if (!arguments.target.empty()) {
    TARNFS_ASSIGN(const FoundDaemon found, daemon_of(arguments.target, default_control_directory()));
    return arguments.json ? found.status_json + "\n" : to_text(found.status);
  }
  const auto all = all_daemons(default_control_directory());
  std::string text = arguments.json ? "{\"volumes\":[" : "";
  for (const FoundDaemon& found : all) {
    if (arguments.json && &found != &all.front()) text += ",";
    text += arguments.json ? found.status_json : to_text(found.status);
  }
  if (arguments.json) return text + "]}\n";
  return all.empty() ? std::string("no volume is mounted or mirrored on this machine\n") : text;
}

int show_status(const Arguments& arguments) {
  const bool terminal = ::isatty(STDOUT_FILENO) != 0;
  for (;;) {
    const auto text = status_text(arguments);
    if (!text.ok()) return tell_failure(kProgram, text.error().in("status"));
    if (arguments.watch && terminal) std::fputs("\x1b[H\x1b[J", stdout);
    std::fputs(text->c_str(), stdout);
    if (std::fflush(stdout) != 0 || !arguments.watch) return kExitDone;
    std::this_thread::sleep_for(kWatchInterval);
  }
}

// What the daemon of the target answers to the command itself.
Result<std::string> ask_target(const Arguments& arguments, const std::map<std::string, std::string>& options,
                               std::chrono::milliseconds patience) {
  const auto found = daemon_of(arguments.target, default_control_directory());
  if (!found.ok()) return found.error().in(arguments.command);
  auto answer = ask_daemon(found->socket_path, {.command = arguments.command, .arguments = options}, patience);
  if (!answer.ok()) return answer.error().in(arguments.command + " of " + arguments.target);
  return answer;
}

int take_cp(const Arguments& arguments) {
  std::map<std::string, std::string> options;
  if (arguments.mirror) options["mirror"] = "true";
  const auto answer = ask_target(arguments, options, kWaitMax);
  if (!answer.ok()) return tell_failure(kProgram, answer.error());
  std::printf("%s\n", answer->c_str());
  return kExitDone;
}

// In steps, so that others are served in between, and the user can stop it.
Result<std::uint64_t> trim_steps(const FoundDaemon& daemon) {
  constexpr std::uint64_t kStepsMin = 100;
  constexpr std::uint64_t kStepMinBytes = 1ULL << 30;
  const std::uint64_t size_bytes = daemon.status.size_bytes;
  const std::uint64_t step_bytes = std::max(kStepMinBytes, size_bytes / kStepsMin / kStepMinBytes * kStepMinBytes);
  Progress progress("trimming " + daemon.status.image, size_bytes);
  std::uint64_t trimmed_bytes = 0;
  for (std::uint64_t offset = 0; offset < size_bytes; offset += step_bytes) {
    const ControlRequest request{
        .command = "trim", .arguments = {{"offset", std::to_string(offset)}, {"length", std::to_string(step_bytes)}}};
    TARNFS_ASSIGN(const std::string answer, ask_daemon(daemon.socket_path, request, kWaitMax));
    TARNFS_ASSIGN(const std::uint64_t bytes, number_in(answer, "trimmed_bytes"));
    trimmed_bytes += bytes;
    progress.update(std::min(size_bytes, offset + step_bytes));
  }
  return trimmed_bytes;
}

int trim(const Arguments& arguments) {
  const auto found = daemon_of(arguments.target, default_control_directory());
  if (!found.ok()) return tell_failure(kProgram, found.error().in("trim"));
  const auto trimmed_bytes = trim_steps(*found);
  if (!trimmed_bytes.ok()) return tell_failure(kProgram, trimmed_bytes.error().in("trim of " + arguments.target));
  std::printf("{\"trimmed_bytes\":%llu}\n", static_cast<unsigned long long>(*trimmed_bytes));
  return kExitDone;
}

int command_daemon(const Arguments& arguments, const std::map<std::string, std::string>& options) {
  const auto answer = ask_target(arguments, options, kAnswerMax);
  return answer.ok() ? kExitDone : tell_failure(kProgram, answer.error());
}

// Returns when nothing is sent any more.
int pause(const Arguments& arguments) {
  if (const int code = command_daemon(arguments, {}); code != kExitDone) return code;
  const auto deadline = std::chrono::steady_clock::now() + kAnswerMax;
  for (;;) {
    const auto found = daemon_of(arguments.target, default_control_directory());
    if (!found.ok()) return tell_failure(kProgram, found.error().in("pause"));
    const auto& mirrors = found->status.mirrors;
    if (std::all_of(mirrors.begin(), mirrors.end(),
                    [](const PeerReport& peer) { return peer.role != "mirror" || peer.state == "paused"; })) {
      return kExitDone;
    }
    if (std::chrono::steady_clock::now() > deadline) break;
    std::this_thread::sleep_for(kPauseCheck);
  }
  return tell_failure(kProgram,
                      Error(ErrorCode::kTimeout,
                            "pause of " + arguments.target + ": what was begun is still being sent; see tarn status"));
}

int limit(const Arguments& arguments) {
  std::string rate = arguments.rate;
  if (rate == "none") rate = "0";
  const auto bytes = parse_size(rate);
  if (!bytes.ok()) {
    return tell_failure(
        kProgram, Error(ErrorCode::kUsage, "limit: RATE: " + bytes.error().message() + ", or none to lift the limit"));
  }
  return command_daemon(arguments, {{"rate", rate}});
}

int make_keys(const Arguments& arguments) {
  const auto made = make_key_directory(arguments.target);
  if (!made.ok()) return tell_failure(kProgram, made.error().in("keygen"));
  std::printf(
      "copy %s into the peers directory of the other machine's keys, there named as you like, and the other machine's "
      "public.key into %s/peers, here named after its HOST when there are several\n",
      made->c_str(), arguments.target.c_str());
  return kExitDone;
}

// Through the daemon of a volume that is mounted, else in the image itself.
Result<std::uint64_t> resized_bytes(const Arguments& arguments, std::uint64_t size_bytes) {
  const auto found = daemon_of(arguments.target, default_control_directory());
  if (!found.ok()) {
    struct stat target {};
    const bool is_image =
        ::stat(arguments.target.c_str(), &target) == 0 && (S_ISREG(target.st_mode) || S_ISBLK(target.st_mode));
    if (found.error().code() != ErrorCode::kNotFound || !is_image) return found.error();
    return resize_image(arguments.target, size_bytes);
  }
  if (found->status.role == "mirror") {
    return Error(ErrorCode::kUnsupported, arguments.target + " is a mirror, which grows with its primary: resize that");
  }
  ControlRequest request{.command = "resize", .arguments = {}};
  if (size_bytes != 0) request.arguments["size"] = std::to_string(size_bytes);
  TARNFS_ASSIGN(const std::string answer, ask_daemon(found->socket_path, request, kWaitMax));
  return number_in(answer, "size_bytes");
}

int resize(const Arguments& arguments) {
  std::uint64_t size_bytes = 0;
  if (!arguments.size.empty()) {
    const auto parsed = parse_size(arguments.size);
    if (!parsed.ok()) return tell_failure(kProgram, parsed.error());
    if (*parsed < kBlockSize) {
      return tell_failure(kProgram, Error(ErrorCode::kUsage, "a volume of " + arguments.size + " cannot be"));
    }
    size_bytes = *parsed;
  }
  const auto resized = resized_bytes(arguments, size_bytes);
  if (!resized.ok()) return tell_failure(kProgram, resized.error().in("resize of " + arguments.target));
  std::printf("{\"size_bytes\":%llu}\n", static_cast<unsigned long long>(*resized));
  return kExitDone;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CommandLine line(kProgram, "Looks after tarnfs volumes and mirrors that run on this machine.");
  CommandLine& status = line.command("status", "tell the state of a volume, or of all", arguments.command);
  status.flag("--json", arguments.json, "as one JSON object");
  status.flag("--watch", arguments.watch, "again every second");
  status.argument("TARGET", arguments.target, "a mountpoint, image or control socket; none: all volumes", false);
  CommandLine& cp = line.command("cp", "take a consistency point and wait until it is durable", arguments.command);
  cp.flag("--mirror", arguments.mirror, "wait until every mirror has published it, too");
  cp.argument("TARGET", arguments.target, "a mountpoint, image or control socket");
  CommandLine& trimming = line.command("trim", "give the storage of free blocks back", arguments.command);
  trimming.argument("TARGET", arguments.target, "a mountpoint, image or control socket");
  CommandLine& pausing = line.command("pause", "send nothing to the mirror any more", arguments.command);
  pausing.argument("TARGET", arguments.target, "a mountpoint, image or control socket");
  CommandLine& resuming = line.command("resume", "go on after a pause", arguments.command);
  resuming.argument("TARGET", arguments.target, "a mountpoint, image or control socket");
  CommandLine& limiting = line.command("limit", "limit what is sent to the mirror", arguments.command);
  limiting.argument("RATE", arguments.rate, "bytes per second, such as 10M; none: no limit");
  limiting.argument("TARGET", arguments.target, "a mountpoint, image or control socket");
  CommandLine& keygen = line.command("keygen", "make the keys of this machine", arguments.command);
  keygen.argument("DIR", arguments.target, "a directory; made when it is missing");
  CommandLine& resizing = line.command("resize", "make a volume larger, while it is mounted or not", arguments.command);
  resizing.option("--size", arguments.size, "SIZE", "the new size; without it all that the image has room for");
  resizing.argument("TARGET", arguments.target, "a mountpoint, image or control socket");
  if (const auto code = line.parse(argc, argv)) return *code;
  if (arguments.command == "cp") return take_cp(arguments);
  if (arguments.command == "trim") return trim(arguments);
  if (arguments.command == "pause") return pause(arguments);
  if (arguments.command == "resume") return command_daemon(arguments, {});
  if (arguments.command == "limit") return limit(arguments);
  if (arguments.command == "keygen") return make_keys(arguments);
  if (arguments.command == "resize") return resize(arguments);
  return show_status(arguments);
}
