// An open volume: the engine behind FileSystem, and what replication asks of it.
//
// Thread safety: all functions may be called from any thread, but open() and close() only once.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "common/block_device.h"
#include "common/clock.h"
#include "common/format.h"
#include "common/histogram.h"
#include "common/replication.h"
#include "common/result.h"
#include "fs/engine/file_system.h"
#include "fs/engine/view_change.h"

namespace tarnfs {

enum class VolumeMode {
  kReadWrite,
  kReadOnly,  // a root of the image, as it was when the volume was opened; until make_writable()
  kMirror,    // read-only; shows what adopt() says, and an empty root directory before the first
};

// What becomes of changes that are asked for.
enum class Changes {
  kTaken,
  kWait,     // until it is otherwise, or the volume is closed
  kRefused,  // kReadOnly
};

// The list of so many kept blocks takes 256 MiB of memory at worst, as much as what waits for a mirror.
inline constexpr std::uint64_t kPinSizeDefaultMaxBytes = 64ULL << 30;

struct VolumeOptions {
  VolumeMode mode = VolumeMode::kReadWrite;
  std::uint64_t cp_interval_ms = 5000;             // 0: no timer
  std::uint64_t dirty_limit_bytes = 256ULL << 20;  // dirty data and metadata in memory
  std::uint64_t cache_limit_bytes = 128ULL << 20;  // clean metadata in memory
  // An fsync that has so many pages of a file to log writes them to blocks of their own; the journal only names them.
  std::uint64_t placed_pages_min = 256;
  bool access_times = true;  // as relatime has them; false: reads change nothing, until set_access_times()
  // False, with kReadOnly alone: the newest root as it is, whatever the journal has or however damaged it is. Such a
  // volume stays read-only.
  bool replay_journal = true;
  // Beyond these, blocks that are kept for a mirror alone are given up (fs/engine/pin_table.h).
  std::optional<std::uint64_t> pin_size_bytes;  // none: a quarter of the volume, at most kPinSizeDefaultMaxBytes
  std::uint64_t pin_age_ms = 0;                 // 0: no limit
  Clock* clock = &system_clock();
  ChangeFeed* feed = nullptr;  // may be null; must outlive the volume
};

struct VolumeStatus {
  Superblock superblock;
  RootBlock root;  // the newest durable one; cp 0 when a mirror has none yet
  FileSystemUsage usage;
  std::uint64_t dirty_bytes = 0;
  std::uint64_t held_blocks = 0;         // freed, but kept for mirrors until somebody needs them
  std::uint64_t journal_size_bytes = 0;  // 0: the volume has none, or takes no changes
  std::uint64_t journal_used_bytes = 0;
  std::uint64_t cache_bytes = 0;
  std::uint64_t cp_count = 0;  // consistency points since the volume was opened
  std::uint64_t error_count = 0;
  std::uint64_t cp_swap_longest_ns = 0;  // longest stop of all operations
  std::uint64_t cp_lock_longest_ns = 0;  // longest time that a consistency point held an inode's lock
  // What operations waited for consistency points: at the gate, for space, and for too much that is dirty, but for
  // writes of content: these wait for the disk when they are faster. Not what they wait for the lock of an inode, of
  // which only the holder's side is known: cp_lock_longest_ns bounds it.
  WaitSummary cp_wait;
  WaitSummary dirty_wait;            // the waits for the dirty limit, of writes of content too
  std::uint64_t fsync_cp_count = 0;  // batches of fsyncs that did not fit into the journal and took one
  bool stopped = false;              // read-only after a failed write or flush
  std::string stop_reason;
  bool shut_down = false;  // stopped because somebody asked for it: answers nothing but kIo
};

class Volume : public FileSystem, public ReplicationSource, public MirrorTarget {
 public:
  // Opens the volume on `device`, which must outlive it. Reads the superblock, the root ring and the journal. What the
  // journal has beyond the newest root is done again, unless `options` say otherwise: read-write volumes take a
  // consistency point of it, read-only ones keep it in memory and write nothing.
  static Result<std::unique_ptr<Volume>> open(BlockDevice& device, const VolumeOptions& options);
  // Makes a volume that was opened with kReadOnly one that was opened with kReadWrite; the device can be written by
  // now, and nobody else has since. Does nothing when it is one. kReadOnly, with the reason, when it cannot be.
  virtual Status make_writable() = 0;
  virtual void set_access_times(bool on) = 0;
  // Of a read-write volume: what it says of changes from now on. What was taken before is written as always.
  virtual void set_changes(Changes changes) = 0;
  // Takes a last consistency point (read-write, and not shut down) and stops all threads. Idempotent; the destructor
  // stops without one.
  virtual Status close() = 0;
  virtual VolumeStatus status() = 0;
  // Who keeps answers of a mirror's view; null: nobody. Not while adopt() runs; `listener` outlives it.
  virtual void set_view_listener(ViewListener* listener) = 0;
};

}  // namespace tarnfs
