#include "tests/support/volume_life.h"

#include <algorithm>
#include <thread>

#include "fs/check/checker.h"
#include "fs/engine/volume.h"
#include "fs/journal/journal_format.h"
#include "fs/storage/format_volume.h"
#include "tests/support/simulated_clock.h"

namespace tarnfs::testing {
namespace {

constexpr std::uint64_t kVolumeBlocks = 2048;
constexpr std::uint64_t kImageBlocks = 2600;  // room to grow: the image is longer than the volume

VolumeOptions options_for(VolumeMode mode, Clock& clock) {
  VolumeOptions options;
  options.mode = mode;
  options.cp_interval_ms = 0;
  options.clock = &clock;
  return options;
}

// A thread that persists, and trims, while a workload runs: something whenever the workload has moved on.
class PersistingThread {
 public:
  struct Done {
    Persistence kind;
    std::uint64_t inode;
    std::size_t begin_event;
    std::size_t end_event;
  };
  PersistingThread(FileSystem& volume, RecordingBlockDevice& device, std::uint64_t seed)
      : volume_(volume), device_(device), random_(seed), thread_([this] { run(); }) {}
  ~PersistingThread() { finish(); }
  PersistingThread(const PersistingThread&) = delete;
  PersistingThread& operator=(const PersistingThread&) = delete;

  // The workload has done something with `inode`.
  void moved_on(std::uint64_t inode) {
    MutexLock lock(mutex_);
    ++moves_;
    inode_ = inode;
    changed_.notify_all();
  }
  bool trimmed() const { return trimmed_; }
  const std::vector<Done>& finish() {
    {
      MutexLock lock(mutex_);
      finished_ = true;
      changed_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
    return done_;
  }

 private:
  // The inode of the newest move; nothing at the end.
  std::optional<std::uint64_t> wait_for_move(std::uint64_t& seen) {
    MutexLock lock(mutex_);
    while (moves_ == seen && !finished_) changed_.wait(mutex_);
    seen = moves_;
    return finished_ ? std::nullopt : std::optional(inode_);
  }
  bool persist(const Done& what) {
    if (what.kind == Persistence::kConsistencyPoint) return volume_.consistency_point().ok();
    // The inode may be gone by now.
    return volume_.fsync(InodeNumber{what.inode}, what.kind == Persistence::kFdatasync).ok();
  }
  void run() {
    std::uint64_t seen = 0;
    while (const auto inode = wait_for_move(seen)) {
      if (random_() % 5 == 0) {
        constexpr std::uint64_t kBlocks = 100;
        trimmed_ = volume_.trim({random_() % kVolumeBlocks * kBlockSize, kBlocks * kBlockSize, 0}).ok() && trimmed_;
        continue;
      }
      Done what{Persistence::kConsistencyPoint, 0, 0, 0};
      if (random_() % 4 != 0) {
        what.kind = random_() % 2 == 0 ? Persistence::kFsync : Persistence::kFdatasync;
        what.inode = *inode;
      }
      what.begin_event = device_.mark();
      const bool done = persist(what);
      what.end_event = device_.mark();
      if (done) done_.push_back(what);
    }
  }

  FileSystem& volume_;
  RecordingBlockDevice& device_;
  std::mt19937_64 random_;  // the thread's
  Mutex mutex_;
  Condition changed_;
  std::uint64_t moves_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::uint64_t inode_ TARNFS_GUARDED_BY(mutex_) = kRootDirectory.value;
  bool finished_ TARNFS_GUARDED_BY(mutex_) = false;
  std::vector<Done> done_;  // the thread's until it was joined
  bool trimmed_ = true;     // the same: no trim has failed
  std::thread thread_;
};

class LifeRun {
 public:
  LifeRun(VolumeLife& life, Volume& volume, RecordingBlockDevice& device, const LifeOptions& options)
      : life_(life),
        volume_(volume),
        device_(device),
        options_(options),
        runner_(volume, life.model, device, options.stamp) {}

  bool settle(const Observation& expected) {
    const auto seen = observe(volume_);
    if (!seen.ok()) return fail("before the first operation: " + seen.error().describe());
    if (const std::string other = difference(expected, *seen); !other.empty()) {
      return fail("opened once more it shows something else: " + other);
    }
    if (const auto point = volume_.consistency_point(); !point.ok()) return fail(point.error().describe());
    life_.settled_event = device_.mark();
    return true;
  }

  void run(const Workload& workload) {
    std::vector<std::unique_ptr<PersistingThread>> others;
    for (std::uint64_t i = 0; workload.others_persist && i < 2; ++i) {
      others.push_back(std::make_unique<PersistingThread>(volume_, device_, mix_bits(options_.seed + i)));
    }
    for (const Operation& operation : workload.operations) {
      if (!run_one(operation)) break;
    }
    std::mt19937_64 random(options_.seed);
    for (std::size_t i = 0; i < workload.random_operations && life_.problem.empty(); ++i) {
      const Operation operation = sensible_operation(random, workload.grows);
      run_one(operation);
      const auto inode = runner_.inode_of(operation.path);
      for (const auto& other : others) other->moved_on(inode.value_or(kRootDirectory.value));
    }
    for (const auto& other : others) {
      for (const PersistingThread::Done& done : other->finish()) {
        life_.model.persisted(done.kind, done.inode, done.begin_event, done.end_event);
      }
      if (!other->trimmed()) fail("a trim has failed");
    }
  }

  void close() {
    const std::size_t begin_event = device_.mark();
    const Status status = volume_.close();
    if (!status.ok()) {
      fail("close: " + status.error().describe());
      return;
    }
    life_.model.persisted(Persistence::kConsistencyPoint, 0, begin_event, device_.mark());
  }

 private:
  bool fail(const std::string& problem) {
    if (life_.problem.empty()) life_.problem = problem;
    return false;
  }
  bool run_one(const Operation& operation) {
    switch (runner_.run(operation)) {
      case WorkloadRunner::Outcome::kDone:
        return true;
      case WorkloadRunner::Outcome::kNoSense:
        life_.makes_sense = false;
        return false;
      case WorkloadRunner::Outcome::kFailed:
        break;
    }
    // A small volume may be full: then nothing was changed.
    if (runner_.error().code() == ErrorCode::kNoSpace) return true;
    return fail(describe(operation) + ": " + runner_.error().describe());
  }
  Operation sensible_operation(std::mt19937_64& random, bool grows) const {
    constexpr int kAttempts = 200;
    Operation operation;
    for (int i = 0; i < kAttempts; ++i) {
      operation = random_operation(random, grows);
      if (runner_.makes_sense(operation)) return operation;
    }
    return Operation{};
  }

  VolumeLife& life_;
  Volume& volume_;
  RecordingBlockDevice& device_;
  const LifeOptions& options_;
  WorkloadRunner runner_;
};

Result<Observation> observe_disk(BlockDevice& device, VolumeMode mode, Clock& clock) {
  TARNFS_ASSIGN(const std::unique_ptr<Volume> volume, Volume::open(device, options_for(mode, clock)));
  TARNFS_ASSIGN(Observation seen, observe(*volume));
  TARNFS_TRY(volume->close());
  return seen;
}

std::string problems_of(BlockDevice& device, bool leaks_allowed) {
  const auto report = check_volume(device, CheckOptions{});
  if (!report.ok()) return report.error().describe();
  std::string text;
  for (const Problem& problem : report->problems) {
    if (leaks_allowed && problem.kind == ProblemKind::kLeaked) continue;
    if (problem.severity == Severity::kError) text += "\n  " + problem.text;
  }
  return text;
}

// The blocks of each file are told as they are when all is written.
std::string look_again(const CrashImage& image, Observation& expected, Clock& clock, bool leaks_allowed) {
  RecordingBlockDevice device(image);
  if (const std::string found = problems_of(device, leaks_allowed); !found.empty())
    return "before recovery the checker finds" + found;
  const auto writable = observe_disk(device, VolumeMode::kReadWrite, clock);
  if (!writable.ok()) return "opened for writing: " + writable.error().describe();
  if (const std::string other = difference(expected, *writable); !other.empty()) {
    return "opened for writing it shows something else than read-only: " + other;
  }
  if (const std::string found = problems_of(device, leaks_allowed); !found.empty())
    return "after recovery the checker finds" + found;
  const auto closed = observe_disk(device, VolumeMode::kReadOnly, clock);
  if (!closed.ok()) return "after it was closed: " + closed.error().describe();
  const std::string other = difference(expected, *closed);
  if (!other.empty()) return "after it was closed it shows something else: " + other;
  for (auto& [number, inode] : expected.inodes) {
    inode.block_count = closed->inodes.at(number).block_count;
    inode.pages = closed->inodes.at(number).pages;
  }
  return {};
}

// The ring of the journal is full of old batches, and its end is near: a workload's batches go over it and onto the
// old.
bool go_round_journal(Volume& volume, WorkloadRunner& runner) {
  const std::uint64_t ring_blocks = volume.status().superblock.journal_blocks;
  constexpr std::uint64_t kBlocksLeftMax = 10;
  std::uint64_t before = 0;
  for (unsigned rounds = 0; rounds < 1 || ring_blocks - before > kBlocksLeftMax;) {
    const std::uint64_t pages = ring_blocks - before > 4 * kBlocksLeftMax ? 5 : 1;
    for (const Operation& operation :
         {Operation{OperationKind::kWrite, "pad", "", 0, pages * kBlockSize}, Operation{OperationKind::kFsync, "pad"},
          Operation{OperationKind::kConsistencyPoint}}) {
      if (runner.run(operation) != WorkloadRunner::Outcome::kDone) return false;
    }
    const std::uint64_t now = journal_start_of(volume.status().root).block;
    if (now == before) return false;
    rounds += now < before ? 1 : 0;
    before = now;
  }
  return true;
}

// The allocator goes round the image, so that a freed block is used again long after. Here it comes round to the blocks
// of the first files, with small gaps between them: what a workload frees is what its next consistency point uses.
bool go_round(Volume& volume, WorkloadRunner& runner) {
  const auto run = [&](const Operation& operation) { return runner.run(operation) == WorkloadRunner::Outcome::kDone; };
  const std::uint64_t end = end_of_data_blocks(volume.status().root.size_blocks);
  constexpr std::uint64_t kBlocksAtOnceMax = 100;
  std::uint64_t cursor = volume.status().root.allocation_cursor;
  for (std::uint64_t before = 0; cursor >= before;) {
    before = cursor;
    const std::uint64_t blocks = std::clamp<std::uint64_t>((end - cursor) / 2, 1, kBlocksAtOnceMax);
    if (!run({OperationKind::kWrite, "pad", "", 0, blocks * kBlockSize})) return false;
    if (!run({OperationKind::kConsistencyPoint})) return false;
    cursor = volume.status().root.allocation_cursor;
  }
  return run({OperationKind::kUnlink, "pad"});
}

}  // namespace

std::string difference(const Observation& left, const Observation& right) {
  if (left.names != right.names) return "names" + describe(left.names) + " and" + describe(right.names);
  for (const auto& [number, inode] : left.inodes) {
    const ObservedInode& other = right.inodes.at(number);
    const std::string where = " of " + path_of(left.names, number);
    if (!(inode.metadata == other.metadata)) return "metadata" + where;
    if (inode.link_count != other.link_count) return "link count" + where;
    if (*inode.content != *other.content) {
      return "content" + where + ", " + std::to_string(inode.content->size()) + " and " +
             std::to_string(other.content->size()) + " bytes";
    }
  }
  return {};
}

VolumeLife live(const CrashImage& image, const Observation& seen, const Workload& workload,
                const LifeOptions& options) {
  VolumeLife life(image, seen);
  constexpr unsigned kYieldsBesideOthers = 20;
  SimulatedClock clock(options.seed);
  RecordingBlockDevice device(image, workload.others_persist ? kYieldsBesideOthers : 0);
  VolumeOptions volume_options = options_for(VolumeMode::kReadWrite, clock);
  // With many lives every page that an fsync has to log gets a block of its own, as the pages of large files do.
  volume_options.placed_pages_min = 1 + options.seed % 3 * 16;
  auto opened = Volume::open(device, volume_options);
  if (!opened.ok()) {
    life.problem = "open: " + opened.error().describe();
    return life;
  }
  {
    const std::unique_ptr<Volume> volume = std::move(opened).value();
    LifeRun run(life, *volume, device, options);
    if (!options.settle_first || run.settle(seen)) {
      run.run(workload);
      if (options.close_at_end && life.problem.empty()) run.close();
    }
  }
  life.events = device.events();
  return life;
}

StartingPoint make_starting_point() {
  SimulatedClock clock(0);
  RecordingBlockDevice device{CrashImage(kVolumeBlocks)};
  TARNFS_ASSERT(format_volume(device, FormatOptions{"crash", {}, 0, 0}, clock).ok());
  {
    auto volume = Volume::open(device, options_for(VolumeMode::kReadWrite, clock));
    TARNFS_ASSERT(volume.ok());
    const auto empty = observe(**volume);
    TARNFS_ASSERT(empty.ok());
    ModelFileSystem model(*empty);
    WorkloadRunner runner(**volume, model, device, "start");
    for (const Operation& operation : starting_operations()) {
      TARNFS_ASSERT(runner.run(operation) == WorkloadRunner::Outcome::kDone);
    }
    TARNFS_ASSERT((*volume)->status().superblock.journal_blocks == 0 || go_round_journal(**volume, runner));
    TARNFS_ASSERT(go_round(**volume, runner));
    TARNFS_ASSERT((*volume)->close().ok());
  }
  auto seen = observe_disk(device, VolumeMode::kReadOnly, clock);
  TARNFS_ASSERT(seen.ok());
  CrashImage image = device.image();
  image.extend(kImageBlocks);
  return StartingPoint{std::move(image), std::move(seen).value()};
}

Look look_at(const CrashImage& image, bool leaks_allowed) {
  SimulatedClock clock(0);
  Look look;
  RecordingBlockDevice device(image);
  auto seen = observe_disk(device, VolumeMode::kReadOnly, clock);
  if (!seen.ok()) {
    look.problem = "opened read-only: " + seen.error().describe();
    return look;
  }
  look.seen = std::move(seen).value();
  if (device.written_blocks() != 0) {
    look.problem = "opened read-only it writes " + std::to_string(device.written_blocks()) + " blocks";
    return look;
  }
  look.problem = look_again(image, look.seen, clock, leaks_allowed);
  return look;
}

}  // namespace tarnfs::testing
