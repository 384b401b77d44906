// What `tarn status` says of a volume, for both daemons, and its JSON.
//
// Invariants:
//   1. The names of the JSON's fields stay: scripts rely on them. More may be added.
//
// Thread safety: values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/histogram.h"
#include "common/result.h"

namespace tarnfs {

// While blocks are copied that a mirror misses.
struct CopyProgress {
  std::uint64_t bytes_done = 0;
  std::uint64_t bytes_total = 0;
  double eta_seconds = 0;
};

// An other side: a mirror that is fed from here, or, first at a mirror, the one that feeds it.
struct PeerReport {
  std::string role = "mirror";  // mirror or primary
  std::string url;
  std::string state;       // connecting, live, catching_up, resyncing, diverged, paused
  std::string mode;        // async
  std::string error;       // why it is not live; empty: nothing to say
  bool encrypted = false;  // and authenticated: with keys
  std::uint64_t published_cp = 0;
  std::uint64_t lag_cps = 0;
  std::uint64_t lag_bytes = 0;
  double lag_seconds = 0;
  std::uint64_t limit_bytes_per_second = 0;  // 0: none
  std::uint64_t held_bytes = 0;              // of blocks that are free but for this mirror
  std::uint64_t pins_lost = 0;               // how often these were given up since the mount
  bool compare_due = false;                  // so all blocks are being compared, or will be
  std::uint64_t sent_bytes = 0;              // before compression
  std::uint64_t wire_bytes = 0;
  double compression_ratio = 1;
  double rtt_ms = 0;
  std::optional<CopyProgress> copy;
};

struct StatusReport {
  std::string uuid;
  std::string label;
  std::string role;  // primary or mirror
  std::string epoch;
  std::uint64_t cp = 0;
  std::string root;  // the root's checksum, 16 hexadecimal digits
  std::string image;
  std::string mountpoint;  // empty: not mounted
  std::uint64_t size_bytes = 0;
  std::uint64_t used_bytes = 0;
  std::uint64_t journal_used_bytes = 0;
  std::uint64_t dirty_bytes = 0;
  WaitSummary cp_wait;                   // what operations waited for consistency points
  WaitSummary dirty_wait;                // what they waited for the dirty limit, which is to say for the disk
  std::uint64_t cp_swap_longest_ns = 0;  // the longest that one kept all operations out
  std::uint64_t cp_lock_longest_ns = 0;  // the longest that one held an inode's lock
  std::uint64_t fsync_cp_count = 0;  // batches of fsyncs that waited for one because the journal could not take them
  std::string transport = "classic";
  // Of a mirror's mount: requests for what the kernel keeps, and states that were shown before the kernel had dropped
  // all that they made untrue.
  std::uint64_t kernel_asked_count = 0;
  std::uint64_t kernel_late_count = 0;
  std::uint64_t errors = 0;
  bool read_only = false;
  bool closing = false;     // the mount is gone and the last consistency point is being taken
  std::string stop_reason;  // why the volume takes no more changes; empty: it does
  std::vector<PeerReport> mirrors;
};

std::string to_json(const StatusReport& report);
// For what a daemon answered: kCorrupt when it is no report.
Result<StatusReport> status_report_of(const std::string& json);
// For people: some lines of text, each ending with a newline.
std::string to_text(const StatusReport& report);

}  // namespace tarnfs
