// A network in memory: one server and its peers, with a cable that can be cut, held up and tampered with.
//
// Thread safety: as channel.h; the controls may be called from any thread.
#pragma once

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "common/channel.h"
#include "common/mutex.h"

namespace tarnfs::testing {

class MemoryNetwork {
 public:
  std::unique_ptr<ServerChannel> listen() { return std::make_unique<Server>(state_); }
  ChannelFactory connector() {
    return [state = state_]() -> Result<std::unique_ptr<Channel>> {
      MutexLock lock(state->mutex);
      if (!state->reachable) return Error(ErrorCode::kDisconnected, "the memory network is down");
      const PeerId peer = state->next_peer++;
      state->links[peer];
      ++state->connections;
      state->changed.notify_all();
      return std::unique_ptr<Channel>(std::make_unique<Client>(state, peer));
    };
  }

  // While it is false nobody can connect.
  void set_reachable(bool reachable) {
    MutexLock lock(state_->mutex);
    state_->reachable = reachable;
  }
  // Breaks all connections.
  void cut() {
    MutexLock lock(state_->mutex);
    while (!state_->links.empty()) state_->break_link(state_->links.begin()->first);
  }
  // Instead of the n-th message from a primary (0: the next) the connection breaks.
  void cut_at_message(std::optional<std::uint64_t> n) {
    MutexLock lock(state_->mutex);
    state_->cut_at = n;
  }
  // While it is true messages from primaries wait on the way.
  void hold(bool held) {
    MutexLock lock(state_->mutex);
    state_->held = held;
    state_->changed.notify_all();
  }
  // While it is true messages to primaries are lost.
  void lose_answers(bool lost) {
    MutexLock lock(state_->mutex);
    state_->answers_lost = lost;
  }
  // Sees, and may change, every message from a primary.
  void set_filter(std::function<void(Message&)> filter) {
    MutexLock lock(state_->mutex);
    state_->filter = std::move(filter);
  }
  std::uint64_t connections() const {
    MutexLock lock(state_->mutex);
    return state_->connections;
  }

 private:
  struct Link {
    std::deque<Message> to_client;
    bool woken = false;
  };

  struct State {
    Mutex mutex;
    Condition changed;
    std::map<PeerId, Link> links TARNFS_GUARDED_BY(mutex);  // those that stand
    std::deque<ServerEvent> to_server TARNFS_GUARDED_BY(mutex);
    std::function<void(Message&)> filter TARNFS_GUARDED_BY(mutex);
    std::optional<std::uint64_t> cut_at TARNFS_GUARDED_BY(mutex);
    PeerId next_peer TARNFS_GUARDED_BY(mutex) = 1;
    std::uint64_t connections TARNFS_GUARDED_BY(mutex) = 0;
    bool reachable TARNFS_GUARDED_BY(mutex) = true;
    bool held TARNFS_GUARDED_BY(mutex) = false;
    bool answers_lost TARNFS_GUARDED_BY(mutex) = false;
    bool server_woken TARNFS_GUARDED_BY(mutex) = false;

    void break_link(PeerId peer) TARNFS_REQUIRES(mutex) {
      if (links.erase(peer) == 0) return;
      ServerEvent gone;
      gone.kind = ServerEvent::Kind::kGone;
      gone.peer = peer;
      to_server.push_back(std::move(gone));
      changed.notify_all();
    }
  };

  class Client final : public Channel {
   public:
    Client(std::shared_ptr<State> state, PeerId peer) : state_(std::move(state)), peer_(peer) {}
    ~Client() override {
      MutexLock lock(state_->mutex);
      state_->break_link(peer_);
    }

    Status send(Message message) override {
      MutexLock lock(state_->mutex);
      if (!state_->links.contains(peer_)) return gone();
      if (state_->cut_at && (*state_->cut_at)-- == 0) {
        state_->cut_at.reset();
        state_->break_link(peer_);
        return gone();
      }
      if (state_->filter) state_->filter(message);
      ServerEvent event;
      event.peer = peer_;
      event.message = std::move(message);
      state_->to_server.push_back(std::move(event));
      state_->changed.notify_all();
      return {};
    }

    Result<std::optional<Message>> receive(std::chrono::nanoseconds timeout) override {
      const auto deadline = std::chrono::steady_clock::now() + timeout;
      MutexLock lock(state_->mutex);
      for (;;) {
        const auto link = state_->links.find(peer_);
        if (link == state_->links.end()) return gone();
        if (!link->second.to_client.empty()) {
          Message message = std::move(link->second.to_client.front());
          link->second.to_client.pop_front();
          return std::optional<Message>(std::move(message));
        }
        if (std::exchange(link->second.woken, false)) return std::optional<Message>();
        const auto left = deadline - std::chrono::steady_clock::now();
        if (left <= left.zero()) return std::optional<Message>();
        state_->changed.wait_for(state_->mutex, left);
      }
    }

    void wake() override {
      MutexLock lock(state_->mutex);
      const auto link = state_->links.find(peer_);
      if (link != state_->links.end()) link->second.woken = true;
      state_->changed.notify_all();
    }

   private:
    static Error gone() { return Error(ErrorCode::kDisconnected, "the connection broke"); }

    const std::shared_ptr<State> state_;
    const PeerId peer_;
  };

  class Server final : public ServerChannel {
   public:
    explicit Server(std::shared_ptr<State> state) : state_(std::move(state)) {}
    ~Server() override {
      MutexLock lock(state_->mutex);
      while (!state_->links.empty()) state_->break_link(state_->links.begin()->first);
      state_->to_server.clear();
    }

    std::string address() const override { return "memory"; }

    Status send(PeerId peer, Message message) override {
      MutexLock lock(state_->mutex);
      const auto link = state_->links.find(peer);
      if (link == state_->links.end()) return Error(ErrorCode::kDisconnected, "the peer is gone");
      if (state_->answers_lost) return {};
      link->second.to_client.push_back(std::move(message));
      state_->changed.notify_all();
      return {};
    }

    Result<std::optional<ServerEvent>> receive(std::chrono::nanoseconds timeout) override {
      const auto deadline = std::chrono::steady_clock::now() + timeout;
      MutexLock lock(state_->mutex);
      for (;;) {
        if (!state_->held && !state_->to_server.empty()) {
          ServerEvent event = std::move(state_->to_server.front());
          state_->to_server.pop_front();
          if (dropped_.contains(event.peer)) continue;
          return std::optional<ServerEvent>(std::move(event));
        }
        if (std::exchange(state_->server_woken, false)) return std::optional<ServerEvent>();
        const auto left = deadline - std::chrono::steady_clock::now();
        if (left <= left.zero()) return std::optional<ServerEvent>();
        state_->changed.wait_for(state_->mutex, left);
      }
    }

    void drop(PeerId peer) override { dropped_[peer] = true; }

    void wake() override {
      MutexLock lock(state_->mutex);
      state_->server_woken = true;
      state_->changed.notify_all();
    }

   private:
    const std::shared_ptr<State> state_;
    std::map<PeerId, bool> dropped_;
  };

  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace tarnfs::testing
