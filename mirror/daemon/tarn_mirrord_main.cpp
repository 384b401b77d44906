// tarn-mirrord: holds the mirror of a volume and shows its last published state.
//
// Exit codes: 0 ended by a signal, 1 failed, 2 wrong command line.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>

#include "common/log.h"
#include "mirror/channel/zmq_channel.h"
#include "mirror/daemon/background.h"
#include "mirror/daemon/mirror_daemon.h"

namespace tarnfs {
namespace {

constexpr const char* kProgram = "tarn-mirrord";
constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

struct Arguments {
  MirrorDaemonOptions daemon;
  bool foreground = false;
};

int usage_error(const std::string& what) {
  fmt::print(stderr, "{}: {}; see {} --help\n", kProgram, what, kProgram);
  return kExitUsage;
}

// The daemon's working directory is not the user's. A path that cannot be looked at stays as it was given.
std::string absolute(const std::string& path) {
  if (path.empty()) return path;
  std::error_code error;
  const auto whole = std::filesystem::absolute(path, error);
  if (error) return path;
  const auto canonical = std::filesystem::weakly_canonical(whole, error);
  return error ? whole.string() : canonical.string();
}

// SIGTERM and SIGINT end the daemon; all threads have them blocked, so that sigwait() gets them.
sigset_t block_signals() {
  sigset_t ending;
  ::sigemptyset(&ending);
  ::sigaddset(&ending, SIGTERM);
  ::sigaddset(&ending, SIGINT);
  ::sigaddset(&ending, SIGHUP);
  ::pthread_sigmask(SIG_BLOCK, &ending, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  return ending;
}

int fail(Background& background, const Error& error) {
  const std::string line = fmt::format("{}: {}", kProgram, error.describe());
  if (!background.report_failure(line, kExitFailed)) fmt::print(stderr, "{}\n", line);
  return kExitFailed;
}

int run(const Arguments& arguments) {
  Background background;
  if (!arguments.foreground) {
    if (const Status entered = background.enter(); !entered.ok()) return fail(background, entered.error());
  }
  open_log(arguments.foreground ? LogTarget::kStandardError : LogTarget::kSyslog, kProgram);
  const sigset_t ending = block_signals();
  auto daemon = MirrorDaemon::start(arguments.daemon);
  if (!daemon.ok()) return fail(background, daemon.error());
  background.report_ready();
  int signal = SIGHUP;
  // SIGHUP is what a closed terminal sends; a daemon that was told to stay in the foreground ends with it.
  do {
    ::sigwait(&ending, &signal);
  } while (signal == SIGHUP && !arguments.foreground);
  log_info("ends: signal " + std::to_string(signal));
  (*daemon)->stop();
  return 0;
}

int parse_and_run(int argc, char** argv) {
  CLI::App app{"Holds the mirror of a tarnfs volume and shows its last published state.", kProgram};
  Arguments arguments;
  app.set_version_flag("--version", std::string("tarn-mirrord ") + TARNFS_VERSION, "Print the version and exit");
  app.set_help_flag("-h,--help", "Print this help and exit");
  app.add_flag("-f", arguments.foreground, "Stay in the foreground and log to standard error");
  app.add_option("--listen", arguments.daemon.listen_url, "Where the primary connects to")
      ->required()
      ->type_name("tcp://ADDRESS:PORT");
  app.add_option("--image", arguments.daemon.image, "The mirror's image; made when it is missing")
      ->required()
      ->type_name("IMAGE");
  app.add_option("--mount", arguments.daemon.mountpoint, "Show the published state there, read-only")
      ->type_name("DIRECTORY");
  app.add_option("--control", arguments.daemon.control_socket, "Where tarn talks to this daemon")->type_name("SOCKET");
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    return usage_error(error.what());
  }
  if (const Status url = check_listen_url(arguments.daemon.listen_url); !url.ok()) {
    return usage_error(url.error().message());
  }
  if (arguments.daemon.image.empty()) return usage_error("the image has no name");
  arguments.daemon.image = absolute(arguments.daemon.image);
  arguments.daemon.mountpoint = absolute(arguments.daemon.mountpoint);
  arguments.daemon.control_socket = absolute(arguments.daemon.control_socket);
  return run(arguments);
}

}  // namespace
}  // namespace tarnfs

int main(int argc, char** argv) {
  try {
    return tarnfs::parse_and_run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "tarn-mirrord: {}\n", error.what());
    return 1;
  }
}
