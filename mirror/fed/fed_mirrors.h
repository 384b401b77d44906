// The mirrors that a daemon feeds: a sender for each, and what `tarn` tells of them and does with them.
//
// Purpose: the same for `tarnfs` and for a `tarn-mirrord` that has mirrors of its own.
//
// Thread safety: make(), start(), stop() and clear() are called by one thread; the others may be called by any thread
// between make() and clear().
// Ownership: the source outlives stop().
// Errors: of the addresses and keys, and as each function says.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/replication.h"
#include "fs/control/server.h"
#include "fs/control/status_report.h"
#include "mirror/channel/zmq_channel.h"
#include "mirror/sender/change_fan_out.h"
#include "mirror/sender/sender.h"

namespace tarnfs {

struct FedMirrorsOptions {
  std::vector<std::string> urls;
  ZmqOptions channel;
  SenderOptions sender;   // but for url, connect, and pings, which are as often as the channel's
  std::string when_none;  // what is wrong with a request for mirrors where there are none, and what to do
};

class FedMirrors {
 public:
  // Starts nothing.
  Status make(const FedMirrorsOptions& options);
  void start(ReplicationSource& source);
  void stop();
  void clear() { senders_.clear(); }

  bool empty() const { return senders_.empty(); }
  const std::vector<std::unique_ptr<Sender>>& senders() const { return senders_; }
  // What announces to all of them; null where there are none.
  ChangeFeed* feed() { return senders_.empty() ? nullptr : &fan_out_; }

  // kInvalid where there are none.
  Status check_any() const;
  // One of them is not connected. One that somebody paused is not away.
  bool any_away() const;
  // Waits until each one has published `cp`, as Sender::wait_published() does for one.
  Status wait_published(Cp cp, std::chrono::milliseconds timeout, const std::function<bool()>& given_up);

  // `tarn pause`, `resume` and `limit`.
  void add_commands(std::map<std::string, ControlCommand>& commands);
  // As in `tarn status`.
  std::vector<PeerReport> report() const;

 private:
  Result<std::string> answer_pause(bool pause);
  Result<std::string> answer_limit(const ControlRequest& request);

  std::string when_none_;
  bool encrypted_ = false;
  ChangeFanOut fan_out_;
  std::vector<std::unique_ptr<Sender>> senders_;
};

}  // namespace tarnfs
