#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "common/mutex.h"
#include "fs/control/client.h"
#include "fs/control/daemon_process.h"
#include "fs/control/server.h"

using namespace tarnfs;
using namespace std::chrono_literals;

namespace {

namespace fs = std::filesystem;

struct Directory {
  Directory() {
    std::string pattern = (fs::temp_directory_path() / "tarnfs-control-XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path = pattern;
  }
  ~Directory() { fs::remove_all(path); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  std::string at(const std::string& name) const { return path + "/" + name; }
  std::string path;
};

// What a command that waits stands at until the test lets it go.
class Gate {
 public:
  void pass() {
    MutexLock lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    while (!open_) changed_.wait(mutex_);
  }
  void wait_for_visitor() {
    MutexLock lock(mutex_);
    while (waiting_ == 0) changed_.wait(mutex_);
  }
  void open() {
    MutexLock lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  Mutex mutex_;
  Condition changed_;
  int waiting_ TARNFS_GUARDED_BY(mutex_) = 0;
  bool open_ TARNFS_GUARDED_BY(mutex_) = false;
};

ControlCommand status_command(const std::string& image, const std::string& mountpoint) {
  StatusReport report;
  report.role = "primary";
  report.image = image;
  report.mountpoint = mountpoint;
  return {.run = [json = to_json(report)](const ControlRequest&) -> Result<std::string> { return json; }};
}

std::unique_ptr<ControlServer> start(const std::string& path, std::map<std::string, ControlCommand> commands) {
  auto server = ControlServer::start(path, std::move(commands));
  REQUIRE_MESSAGE(server.ok(), (server.ok() ? "" : server.error().describe()));
  return std::move(*server);
}

std::map<std::string, ControlCommand> echo_command() {
  ControlCommand echo;
  echo.run = [](const ControlRequest& request) -> Result<std::string> {
    if (request.has_flag("fail")) return Error(ErrorCode::kBusy, "told to");
    return "{\"text\":\"" + request.arguments.at("text") + "\"}";
  };
  return {{"echo", echo}};
}

std::string raw_exchange(const std::string& path, const std::string& bytes) {
  const auto socket = connect_to(path);
  REQUIRE(socket.ok());
  const Deadline deadline = std::chrono::steady_clock::now() + 10s;
  std::size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t count = ::send(socket->number(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (count > 0) {
      sent += static_cast<std::size_t>(count);
      continue;
    }
    if (count < 0 && errno == EAGAIN) {
      REQUIRE(wait_for_events(*socket, POLLOUT, deadline).ok());
      continue;
    }
    break;  // cut off
  }
  std::string received;
  for (;;) {
    if (!wait_for_events(*socket, POLLIN, deadline).ok()) return received + "(timeout)";
    char buffer[4096];
    const ssize_t count = ::recv(socket->number(), buffer, sizeof buffer, 0);
    if (count <= 0) return received;
    received.append(buffer, static_cast<std::size_t>(count));
    if (received.ends_with('\n')) return received;
  }
}

}  // namespace

TEST_CASE("commands and their errors come back") {
  Directory directory;
  const auto server = start(directory.at("made/a.sock"), echo_command());
  struct stat found {};
  REQUIRE(::stat(directory.at("made").c_str(), &found) == 0);
  CHECK((found.st_mode & 07777) == 0700);
  REQUIRE(::stat(server->path().c_str(), &found) == 0);
  CHECK((found.st_mode & 0777) == 0600);

  CHECK(*ask_daemon(server->path(), {.command = "echo", .arguments = {{"text", "hello"}}}, 10s) ==
        "{\"text\":\"hello\"}");
  const auto failed = ask_daemon(server->path(), {.command = "echo", .arguments = {{"fail", "true"}}}, 10s);
  REQUIRE(!failed.ok());
  CHECK(failed.error().code() == ErrorCode::kBusy);
  CHECK(failed.error().message() == "told to");
  const auto unknown = ask_daemon(server->path(), {.command = "fly", .arguments = {}}, 10s);
  REQUIRE(!unknown.ok());
  CHECK(unknown.error().code() == ErrorCode::kUnsupported);
}

TEST_CASE("garbage and requests without end are cut off, others go on") {
  Directory directory;
  const auto server = start(directory.at("a.sock"), echo_command());
  CHECK(raw_exchange(server->path(), "garbage\n").find("\"ok\":false") != std::string::npos);
  CHECK(raw_exchange(server->path(), std::string("\0\n", 2)).find("\"ok\":false") != std::string::npos);
  CHECK(raw_exchange(server->path(), "{\"command\":[1,2,3]}\n").find("\"ok\":false") != std::string::npos);
  const std::string endless(4 * kControlRequestMaxBytes, 'x');
  CHECK(raw_exchange(server->path(), endless).find("(timeout)") == std::string::npos);
  const std::string deep = "{\"command\":" + std::string(30000, '[') + "\n";
  CHECK(raw_exchange(server->path(), deep).find("\"ok\":false") != std::string::npos);
  CHECK(ask_daemon(server->path(), {.command = "echo", .arguments = {{"text", "still here"}}}, 10s).ok());
}

TEST_CASE("several requests on one connection, in one packet too") {
  Directory directory;
  const auto server = start(directory.at("a.sock"), echo_command());
  const std::string line = encode_request({.command = "echo", .arguments = {{"text", "t"}}}) + "\n";
  const std::string answers = raw_exchange(server->path(), line + line + line);
  CHECK(std::count(answers.begin(), answers.end(), '\n') == 3);
}

TEST_CASE("a command that waits does not keep others waiting") {
  Directory directory;
  Gate gate;
  auto commands = echo_command();
  commands["wait"] = {.run = [&gate](const ControlRequest&) -> Result<std::string> {
                        gate.pass();
                        return std::string("{\"waited\":true}");
                      },
                      .waits = true};
  const auto server = start(directory.at("a.sock"), std::move(commands));
  std::string answer;
  std::thread waiter([&] { answer = *ask_daemon(server->path(), {.command = "wait", .arguments = {}}, 30s); });
  gate.wait_for_visitor();
  CHECK(ask_daemon(server->path(), {.command = "echo", .arguments = {{"text", "x"}}}, 10s).ok());
  const auto impatient = ask_daemon(server->path(), {.command = "wait", .arguments = {}}, 50ms);
  REQUIRE(!impatient.ok());
  CHECK(impatient.error().code() == ErrorCode::kTimeout);
  gate.open();
  waiter.join();
  CHECK(answer == "{\"waited\":true}");
}

TEST_CASE("a command that waits does not wait for another one") {
  Directory directory;
  Gate gate;
  auto commands = echo_command();
  commands["wait"] = {.run = [&gate](const ControlRequest&) -> Result<std::string> {
                        gate.pass();
                        return std::string("{}");
                      },
                      .waits = true};
  commands["work"] = {.run = [](const ControlRequest&) -> Result<std::string> { return std::string("{}"); },
                      .waits = true};
  const auto server = start(directory.at("a.sock"), std::move(commands));
  std::thread waiter([&] { CHECK(ask_daemon(server->path(), {.command = "wait", .arguments = {}}, 30s).ok()); });
  gate.wait_for_visitor();
  for (int i = 0; i < 20; ++i) CHECK(ask_daemon(server->path(), {.command = "work", .arguments = {}}, 10s).ok());
  gate.open();
  waiter.join();
}

TEST_CASE("a command that waits learns that nobody waits for it any more") {
  Directory directory;
  Gate gate;
  std::map<std::string, ControlCommand> commands;
  commands["wait"] = {.run = [&gate](const ControlRequest& request) -> Result<std::string> {
                        while (!request.is_abandoned()) std::this_thread::yield();
                        gate.pass();
                        return std::string("{}");
                      },
                      .waits = true};
  const auto server = start(directory.at("a.sock"), std::move(commands));
  CHECK_FALSE(ask_daemon(server->path(), {.command = "wait", .arguments = {}}, 50ms).ok());
  gate.wait_for_visitor();
  gate.open();
}

TEST_CASE("many clients that wait are all answered") {
  Directory directory;
  Gate gate;
  std::map<std::string, ControlCommand> commands;
  commands["wait"] = {.run = [&gate](const ControlRequest&) -> Result<std::string> {
                        gate.pass();
                        return std::string("{}");
                      },
                      .waits = true};
  const auto server = start(directory.at("a.sock"), std::move(commands));
  std::atomic<int> answered{0};
  std::vector<std::thread> waiters;
  waiters.reserve(20);
  for (int i = 0; i < 20; ++i) {
    waiters.emplace_back([&] {
      if (ask_daemon(server->path(), {.command = "wait", .arguments = {}}, 30s).ok()) ++answered;
    });
  }
  gate.wait_for_visitor();
  gate.open();
  for (std::thread& waiter : waiters) waiter.join();
  CHECK(answered == 20);
}

TEST_CASE("many clients at once") {
  Directory directory;
  const auto server = start(directory.at("a.sock"), echo_command());
  std::vector<Descriptor> idle;
  idle.reserve(40);
  for (int i = 0; i < 40; ++i) idle.push_back(std::move(*connect_to(server->path())));
  std::atomic<int> answered{0};
  std::vector<std::thread> threads;
  threads.reserve(8);
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        const std::string text = std::to_string(i);
        const auto answer = ask_daemon(server->path(), {.command = "echo", .arguments = {{"text", text}}}, 20s);
        if (answer.ok() && answer->find("\"" + text + "\"") != std::string::npos) ++answered;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(answered == 400);
}

TEST_CASE("a stale socket gives way, a live one and a file do not") {
  Directory directory;
  const std::string path = directory.at("a.sock");
  {
    // A process that died leaves its socket behind: one whose descriptor is closed without unlink.
    const auto dead = listen_at(path);
    REQUIRE(dead.ok());
  }
  REQUIRE(fs::exists(path));
  const auto refused = connect_to(path);
  REQUIRE(!refused.ok());
  CHECK(refused.error().code() == ErrorCode::kDisconnected);
  {
    const auto server = start(path, echo_command());
    const auto second = ControlServer::start(path, echo_command());
    REQUIRE(!second.ok());
    CHECK(second.error().code() == ErrorCode::kBusy);
    CHECK(ask_daemon(path, {.command = "echo", .arguments = {{"text", "x"}}}, 10s).ok());
  }
  CHECK(!fs::exists(path));
  std::ofstream(path) << "precious";
  const auto file = ControlServer::start(path, echo_command());
  REQUIRE(!file.ok());
  CHECK(fs::exists(path));
  CHECK(!ControlServer::start(directory.at(std::string(200, 'p')), {}).ok());
}

TEST_CASE("a daemon is found by mountpoint, image and socket, and stale sockets are skipped") {
  Directory directory;
  const std::string sockets = directory.at("sockets");
  fs::create_directories(directory.at("mnt"));
  std::ofstream(directory.at("image")) << "x";
  fs::create_symlink(directory.at("image"), directory.at("link"));
  const std::string path = control_path_of(sockets, "uuid", "primary");
  CHECK(path == sockets + "/uuid-primary.sock");
  const auto server = start(
      path, {{"status", status_command(fs::canonical(directory.at("image")), fs::canonical(directory.at("mnt")))}});
  const auto other = start(sockets + "/other.sock", {{"status", status_command("/elsewhere", "/nowhere")}});
  { const auto dead = listen_at(sockets + "/a-dead.sock"); }
  const auto no_daemon = start(sockets + "/z.sock", echo_command());

  CHECK(all_daemons(sockets).size() == 2);
  for (const char* target : {"mnt", "mnt/", "mnt/../mnt/.", "image", "link", "sockets/uuid-primary.sock"}) {
    CAPTURE(target);
    const auto found = daemon_of(directory.at(target), sockets);
    REQUIRE(found.ok());
    CHECK(found->socket_path == path);
    CHECK(found->pid == ::getpid());
    CHECK(found->process);
  }
  const auto none = daemon_of(directory.path, sockets);
  REQUIRE(!none.ok());
  CHECK(none.error().code() == ErrorCode::kNotFound);
  CHECK(!daemon_of(directory.at("missing"), sockets).ok());
  CHECK(!daemon_of(sockets + "/a-dead.sock", sockets).ok());
  CHECK(all_daemons(directory.at("missing")).empty());
}

TEST_CASE("processes of daemons are found without an answer") {
  Directory directory;
  { const auto dead = listen_at(directory.at("a-dead.sock")); }
  const auto mute = listen_at(directory.at("mute.sock"));
  std::ofstream(directory.at("no-socket")) << "x";
  const auto found = daemon_processes(directory.path);
  REQUIRE(found.size() == 1);
  CHECK(found[0].socket_path == directory.at("mute.sock"));
  CHECK(found[0].pid == ::getpid());
  CHECK(found[0].process);
}

TEST_CASE("what a process has open and which program it is") {
  Directory directory;
  const std::string image = fs::canonical(directory.path) / "image";
  std::ofstream opened(image);
  std::string name;
  std::getline(std::ifstream("/proc/self/comm"), name);
  CHECK(has_open(::getpid(), image));
  CHECK(!has_open(::getpid(), image + "2"));
  CHECK(!has_open(0, image));
  CHECK(is_program(::getpid(), name));
  CHECK(!is_program(::getpid(), name.substr(1)));
  CHECK(process_with_open_file(name, image));
  CHECK(!process_with_open_file("another", image));
  opened.close();
  CHECK(!process_with_open_file(name, image));
}
