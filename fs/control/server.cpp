#include "fs/control/server.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <filesystem>
#include <memory>
#include <thread>
#include <vector>

#include "common/log.h"
#include "common/mutex.h"
#include "fs/control/unix_socket.h"

namespace tarnfs {
namespace {

constexpr std::size_t kClientsMax = 64;
constexpr std::chrono::seconds kIdleMax{30};

struct Client {
  Descriptor socket;
  std::uint64_t id = 0;
  std::string received;
  std::string to_send;
  bool waiting = false;  // for the answer of a command that waits
  std::shared_ptr<std::atomic<bool>> gone = std::make_shared<std::atomic<bool>>(false);
  bool closing = false;  // once `to_send` is sent
  Deadline deadline;     // for the next progress; none while `waiting`
};

struct WaitingRequest {
  std::uint64_t client = 0;
  ControlRequest request;
};

struct Answer {
  std::uint64_t client = 0;
  std::string line;
};

class Server final : public ControlServer {
 public:
  Server(std::string path, std::map<std::string, ControlCommand> commands, Descriptor listener, Descriptor wake)
      : path_(std::move(path)),
        commands_(std::move(commands)),
        listener_(std::move(listener)),
        wake_(std::move(wake)),
        io_thread_([this] { serve(); }) {}
  ~Server() override;
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  const std::string& path() const override { return path_; }

 private:
  void serve();
  void run_waiting();
  void wake();
  bool stopping();
  int poll_timeout_ms() const;
  void accept_clients();
  void receive(Client& client);
  void handle_lines(Client& client);
  void handle_line(Client& client, const std::string& line);
  void begin_waiting(Client& client, ControlRequest request);
  void send_to(Client& client);
  void take_answers();
  void drop_finished_clients();

  const std::string path_;
  const std::map<std::string, ControlCommand> commands_;
  const Descriptor listener_;
  const Descriptor wake_;  // an eventfd: there are answers, or it is time to stop

  // Of the I/O thread alone.
  std::vector<Client> clients_;
  std::vector<std::thread> waiting_threads_;  // of the destructor, once the I/O thread has ended
  std::uint64_t next_client_ = 1;

  Mutex mutex_;
  Condition work_;
  std::deque<WaitingRequest> waiting_requests_ TARNFS_GUARDED_BY(mutex_);
  std::size_t idle_threads_ TARNFS_GUARDED_BY(mutex_) = 0;  // of the waiting ones
  std::deque<Answer> answers_ TARNFS_GUARDED_BY(mutex_);
  bool stopping_ TARNFS_GUARDED_BY(mutex_) = false;

  std::thread io_thread_;  // last: it uses everything above
};

Server::~Server() {
  ::unlink(path_.c_str());
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    work_.notify_all();
  }
  wake();
  io_thread_.join();
  for (std::thread& thread : waiting_threads_) thread.join();
}

void Server::wake() {
  const std::uint64_t one = 1;
  // It can only fail when the counter is full, and then the thread is awake.
  [[maybe_unused]] const ssize_t written = ::write(wake_.number(), &one, sizeof one);
}

bool Server::stopping() {
  MutexLock lock(mutex_);
  return stopping_;
}

int Server::poll_timeout_ms() const {
  int timeout = -1;
  for (const Client& client : clients_) {
    if (client.waiting) continue;
    const int left = milliseconds_until(client.deadline);
    if (timeout < 0 || left < timeout) timeout = left;
  }
  return timeout;
}

void Server::serve() {
  std::vector<pollfd> polled;
  while (!stopping()) {
    polled.clear();
    polled.push_back({wake_.number(), POLLIN, 0});
    const short accepting = clients_.size() < kClientsMax ? POLLIN : 0;
    polled.push_back({listener_.number(), accepting, 0});
    for (const Client& client : clients_) {
      const bool sending = !client.to_send.empty();
      const bool receiving = !sending && !client.waiting;
      polled.push_back(
          {client.socket.number(), static_cast<short>((sending ? POLLOUT : 0) | (receiving ? POLLIN : 0)), 0});
    }
    if (::poll(polled.data(), polled.size(), poll_timeout_ms()) < 0 && errno != EINTR) {
      log_error(std::string("control socket: poll: ") + std::strerror(errno));
      return;
    }
    for (std::size_t i = 0; i < clients_.size(); ++i) {
      const short events = polled[i + 2].revents;
      if ((events & POLLOUT) != 0) send_to(clients_[i]);
      if ((events & POLLIN) != 0) receive(clients_[i]);
      if ((events & (POLLERR | POLLNVAL)) != 0 || ((events & POLLHUP) != 0 && (events & POLLIN) == 0)) {
        clients_[i].socket = Descriptor();
      }
    }
    if ((polled[0].revents & POLLIN) != 0) take_answers();
    drop_finished_clients();
    if ((polled[1].revents & POLLIN) != 0) accept_clients();
  }
}

void Server::accept_clients() {
  while (clients_.size() < kClientsMax) {
    Descriptor accepted(::accept4(listener_.number(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!accepted) return;
    Client client;
    client.socket = std::move(accepted);
    client.id = next_client_++;
    client.deadline = std::chrono::steady_clock::now() + kIdleMax;
    clients_.push_back(std::move(client));
  }
}

void Server::receive(Client& client) {
  std::array<char, 4096> bytes{};
  const ssize_t count = ::recv(client.socket.number(), bytes.data(), bytes.size(), 0);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) {
    client.socket = Descriptor();
    return;
  }
  client.received.append(bytes.data(), static_cast<std::size_t>(count));
  handle_lines(client);
}

void Server::handle_lines(Client& client) {
  while (!client.waiting && !client.closing) {
    const std::size_t end = client.received.find('\n');
    if (end == std::string::npos) break;
    const std::string line = client.received.substr(0, end);
    client.received.erase(0, end + 1);
    handle_line(client, line);
  }
  if (client.received.size() > kControlRequestMaxBytes && !client.waiting) {
    client.to_send += encode_response(Error(ErrorCode::kTooBig, "the request is too long")) + "\n";
    client.closing = true;
  }
  if (!client.to_send.empty()) send_to(client);
}

void Server::handle_line(Client& client, const std::string& line) {
  client.deadline = std::chrono::steady_clock::now() + kIdleMax;
  const auto request = decode_request(line);
  if (!request.ok()) {
    client.to_send += encode_response(request.error()) + "\n";
    client.closing = true;
    return;
  }
  const auto command = commands_.find(request->command);
  if (command == commands_.end()) {
    const Error unknown(ErrorCode::kUnsupported, "this daemon knows no command \"" + request->command + "\"");
    client.to_send += encode_response(unknown) + "\n";
    return;
  }
  if (!command->second.waits) {
    client.to_send += encode_response(command->second.run(*request)) + "\n";
    return;
  }
  begin_waiting(client, *request);
}

void Server::begin_waiting(Client& client, ControlRequest request) {
  client.waiting = true;
  request.caller_is_gone = [gone = client.gone] { return gone->load(); };
  MutexLock lock(mutex_);
  waiting_requests_.push_back({client.id, std::move(request)});
  // A client that has gone leaves its place to another one before its command has ended, so there may be some more
  // threads than clients.
  if (waiting_requests_.size() > idle_threads_) waiting_threads_.emplace_back([this] { run_waiting(); });
  work_.notify_one();
}

void Server::send_to(Client& client) {
  const ssize_t count =
      ::send(client.socket.number(), client.to_send.data(), client.to_send.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count < 0) {
    client.socket = Descriptor();
    return;
  }
  client.to_send.erase(0, static_cast<std::size_t>(count));
  client.deadline = std::chrono::steady_clock::now() + kIdleMax;
}

void Server::take_answers() {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t bytes = ::read(wake_.number(), &count, sizeof count);
  std::deque<Answer> answers;
  {
    MutexLock lock(mutex_);
    answers.swap(answers_);
  }
  for (const Answer& answer : answers) {
    for (Client& client : clients_) {
      if (client.id != answer.client || !client.socket) continue;
      client.waiting = false;
      client.to_send += answer.line;
      handle_lines(client);
    }
  }
}

void Server::drop_finished_clients() {
  const auto now = std::chrono::steady_clock::now();
  std::erase_if(clients_, [now](const Client& client) {
    const bool done = client.closing && client.to_send.empty();
    const bool ended = !client.socket || done || (!client.waiting && client.deadline <= now);
    if (ended) client.gone->store(true);
    return ended;
  });
}

void Server::run_waiting() {
  for (;;) {
    WaitingRequest next;
    {
      MutexLock lock(mutex_);
      ++idle_threads_;
      while (waiting_requests_.empty() && !stopping_) work_.wait(mutex_);
      --idle_threads_;
      if (stopping_) return;
      next = std::move(waiting_requests_.front());
      waiting_requests_.pop_front();
    }
    const std::string line = encode_response(commands_.at(next.request.command).run(next.request)) + "\n";
    {
      MutexLock lock(mutex_);
      answers_.push_back({next.client, line});
    }
    wake();
  }
}

Status make_directory(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  if (parent.empty() || ::mkdir(parent.c_str(), 0700) == 0 || errno == EEXIST) return {};
  return Error(ErrorCode::kIo, "make directory " + parent + " for the control socket: " + std::strerror(errno));
}

}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::start(const std::string& path,
                                                            std::map<std::string, ControlCommand> commands) {
  TARNFS_TRY(make_directory(path));
  TARNFS_ASSIGN(Descriptor listener, listen_at(path));
  Descriptor wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return Error(ErrorCode::kIo, std::string("make an eventfd: ") + std::strerror(errno));
  return std::unique_ptr<ControlServer>(
      std::make_unique<Server>(path, std::move(commands), std::move(listener), std::move(wake)));
}

}  // namespace tarnfs
