// TCP connections that speak no protocol of ours, and a relay that keeps what goes through it.
//
// Thread safety: a RawPeer belongs to one thread; a Relay has a thread of its own and may be asked by any other.
#pragma once

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>
#include <utility>

#include "common/mutex.h"

namespace tarnfs::testing {

inline std::uint16_t port_of(const std::string& url) {
  return static_cast<std::uint16_t>(std::stoul(url.substr(url.rfind(':') + 1)));
}

class RawPeer {
 public:
  explicit RawPeer(std::uint16_t port) : descriptor_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    REQUIRE(descriptor_ >= 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::connect(descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  }
  RawPeer(RawPeer&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  ~RawPeer() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  RawPeer(const RawPeer&) = delete;
  RawPeer& operator=(const RawPeer&) = delete;
  RawPeer& operator=(RawPeer&&) = delete;

  int descriptor() const { return descriptor_; }
  // False when the other side has closed the connection.
  bool send(const std::string& bytes) const {
    std::size_t sent = 0;
    while (sent < bytes.size()) {
      const ssize_t count = ::send(descriptor_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (count < 0) return false;
      sent += static_cast<std::size_t>(count);
    }
    return true;
  }
  // What came until `bytes_max`, the end of the connection (*closed) or the timeout.
  std::string receive(std::size_t bytes_max, std::chrono::milliseconds timeout, bool* closed) const {
    *closed = false;
    std::string all;
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    while (all.size() < bytes_max) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      pollfd polled = {descriptor_, POLLIN, 0};
      if (left.count() <= 0 || ::poll(&polled, 1, static_cast<int>(left.count())) <= 0) break;
      std::array<char, 4096> bytes{};
      const ssize_t count = ::recv(descriptor_, bytes.data(), std::min(bytes.size(), bytes_max - all.size()), 0);
      if (count <= 0) {
        *closed = true;
        break;
      }
      all.append(bytes.data(), static_cast<std::size_t>(count));
    }
    return all;
  }
  bool is_closed_within(std::chrono::milliseconds timeout) const {
    bool closed = false;
    [[maybe_unused]] const std::string ignored = receive(SIZE_MAX, timeout, &closed);
    return closed;
  }

 private:
  int descriptor_;
};

// Takes one connection on a port of its own and passes it on to `target`.
class Relay {
 public:
  explicit Relay(std::uint16_t target) : target_(target), stop_(::eventfd(0, EFD_CLOEXEC)) {
    REQUIRE(listener_ >= 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    REQUIRE(::bind(listener_, reinterpret_cast<const sockaddr*>(&address), size) == 0);
    REQUIRE(::listen(listener_, 1) == 0);
    REQUIRE(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { run(); });
  }
  ~Relay() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(stop_, &one, sizeof one);
    thread_.join();
    ::close(listener_);
    ::close(stop_);
  }
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  std::string url() const { return "tcp://127.0.0.1:" + std::to_string(port_); }
  // What the client sent so far.
  std::string recorded() const {
    MutexLock lock(mutex_);
    return recorded_;
  }

 private:
  void run() {
    std::array<pollfd, 2> waiting = {pollfd{listener_, POLLIN, 0}, pollfd{stop_, POLLIN, 0}};
    ::poll(waiting.data(), waiting.size(), -1);
    if (waiting[1].revents != 0) return;
    const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    const RawPeer server(target_);
    pass(client, server);
    ::close(client);
  }

  void pass(int client, const RawPeer& server) {
    for (;;) {
      std::array<pollfd, 3> polled = {pollfd{client, POLLIN, 0}, pollfd{server.descriptor(), POLLIN, 0},
                                      pollfd{stop_, POLLIN, 0}};
      ::poll(polled.data(), polled.size(), -1);
      if (polled[2].revents != 0) return;
      std::array<char, 16384> bytes{};
      for (std::size_t i = 0; i < 2; ++i) {
        if (polled.at(i).revents == 0) continue;
        const ssize_t count = ::recv(polled.at(i).fd, bytes.data(), bytes.size(), 0);
        if (count <= 0) return;
        const auto size = static_cast<std::size_t>(count);
        if (i == 0) {
          MutexLock lock(mutex_);
          recorded_.append(bytes.data(), size);
        }
        if (::send(polled.at(1 - i).fd, bytes.data(), size, MSG_NOSIGNAL) != count) return;
      }
    }
  }

  const std::uint16_t target_;
  const int listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int stop_;
  std::uint16_t port_ = 0;
  mutable Mutex mutex_;
  std::string recorded_ TARNFS_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace tarnfs::testing
