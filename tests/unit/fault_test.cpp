// A standard workload on a disk that fails at the N-th call, for every N until none is hit: no crash, no hang, no false
// success. What a persistence call acknowledged is there when the image is opened on a healthy disk, the state is
// legal, the checker finds nothing, and after a failed write or flush nothing is acknowledged any more.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <algorithm>

#include "common/log.h"
#include "fs/engine/volume.h"
#include "tests/support/crash_states.h"
#include "tests/support/fault_block_device.h"
#include "tests/support/simulated_clock.h"
#include "tests/support/thread_sanitizer.h"
#include "tests/support/volume_life.h"
#include "tests/support/watchdog.h"

using namespace tarnfs;
using namespace tarnfs::testing;

namespace {

using Kind = OperationKind;

std::vector<Operation> standard_workload() {
  return {
      {Kind::kCreate, "A/n"},
      {Kind::kWrite, "A/n", "", 0, 9000},
      {Kind::kFsync, "A/n"},
      {Kind::kRename, "A/n", "B/g"},
      {Kind::kFsync, "B"},
      {Kind::kUnlink, "A/f"},
      {Kind::kMakeDirectory, "A/d"},
      {Kind::kCreate, "A/d/m"},
      {Kind::kWrite, "A/d/m", "", 5000, 3000},
      {Kind::kFdatasync, "A/d/m"},
      {Kind::kTruncate, "B/g", "", 0, 4000},
      {Kind::kSetXattr, "B/g", "user.x", 0, 40},
      {Kind::kSetXattr, "A", "user.y", 0, 5000},
      {Kind::kChangeMode, "B/g", "", 0, 0600},
      {Kind::kConsistencyPoint},
      {Kind::kMakeUnnamed, "#t"},
      {Kind::kWrite, "#t", "", 0, 5000},
      {Kind::kLink, "#t", "B/t"},
      {Kind::kFsync, "#t"},
      {Kind::kLink, "B/t", "l"},
      {Kind::kExchange, "A/d", "B/g"},
      {Kind::kOpen, "B/t", "#h"},
      {Kind::kUnlink, "B/t"},
      {Kind::kAppend, "#h", "", 0, 9000},
      {Kind::kPunchHole, "#h", "", 1000, 6000},
      {Kind::kFdatasync, "#h"},
      {Kind::kRemoveDirectory, "A/e"},
      {Kind::kRelease, "#h"},
      {Kind::kWrite, "l", "", 0, (1U << 20) + 3000},
      {Kind::kFsync, "l"},
  };
}

std::vector<Operation> workload_after_reopening() {
  return {{Kind::kUnlink, "l"}, {Kind::kCreate, "z"}, {Kind::kWrite, "z", "", 0, 5000}, {Kind::kFsync, "z"}};
}

bool persists(const Operation& operation) {
  return operation.kind >= Kind::kFsync;
}

bool changes_nothing(const Operation& operation) {
  return operation.kind == Kind::kOpen || operation.kind == Kind::kRelease;
}

// One run of the workload with one fault.
class FaultRun {
 public:
  FaultRun(const StartingPoint& start, const Fault& fault)
      : start_(start), disk_(start.image), device_(disk_, fault), clock_(1) {}

  // What is wrong; empty when nothing is.
  std::string run() {
    ModelFileSystem first(start_.seen);
    std::string problem = live(first, standard_workload(), "w", nullptr);
    const std::size_t first_end = disk_.mark();
    if (!problem.empty()) return problem + "\n" + first.steps_text();
    // The same disk once more, with what the fault left of it.
    std::optional<ModelFileSystem> second;
    bool settled = false;
    if (auto volume = open(); volume.ok()) {
      if (const auto seen = observe(**volume); seen.ok()) {
        problem = first.judge(*seen, first_end);
        second.emplace(*seen);
        (*volume).reset();
        if (problem.empty()) problem = live(*second, workload_after_reopening(), "v", &settled);
      }
    }
    if (problem.empty()) problem = judge_disks(first, first_end, second ? &*second : nullptr, settled);
    return problem.empty() ? "" : problem + "\n" + first.steps_text() + (second ? second->steps_text() : "");
  }
  bool was_hit() const { return device_.was_hit(); }

 private:
  Result<std::unique_ptr<Volume>> open() {
    VolumeOptions options;
    options.cp_interval_ms = 0;
    options.clock = &clock_;
    return Volume::open(device_, options);
  }

  // `settled` (may be null): set when a consistency point made durable what was there at the start.
  std::string live(ModelFileSystem& model, const std::vector<Operation>& operations, const std::string& stamp,
                   bool* settled) {
    auto opened = open();
    if (!opened.ok()) return {};
    Volume& volume = **opened;
    const std::uint64_t failed_at_start = device_.failed_changes();
    if (settled != nullptr) *settled = volume.consistency_point().ok();
    WorkloadRunner runner(volume, model, disk_, stamp);
    for (const Operation& operation : operations) {
      // A consistency point inside may have met the fault a moment ago and not have stopped the volume yet; close()
      // knows.
      const bool stopped = volume.status().stopped;
      const auto outcome = runner.run(operation);
      const bool done = outcome == WorkloadRunner::Outcome::kDone;
      if (done && stopped && !changes_nothing(operation)) {
        return "false success of " + describe(operation) + " on a volume that has stopped";
      }
      const bool failed = outcome == WorkloadRunner::Outcome::kFailed && device_.failed_reads() == 0;
      if (failed && persists(operation) && !volume.read_only()) {
        return "the volume is not read-only although " + describe(operation) + " failed";
      }
      if (!persists(operation)) continue;
      if (std::string wrong = wrong_contents(volume, model); !wrong.empty()) return wrong;
    }
    const bool failed_before = volume.status().stopped || device_.failed_changes() > failed_at_start;
    const std::size_t begin_event = disk_.mark();
    const bool closed = volume.close().ok();
    if (closed && failed_before) return "false success of close after a failed write or flush";
    if (closed) model.persisted(Persistence::kConsistencyPoint, 0, begin_event, disk_.mark());
    return {};
  }

  // A read may fail, but not lie.
  static std::string wrong_contents(Volume& volume, const ModelFileSystem& model) {
    for (const auto& [key, inode] : model.names()) {
      if (!S_ISREG(model.metadata(inode).mode)) continue;
      constexpr std::size_t kBytesMax = 32768;  // the large file has more calls to fail than all the others
      const auto content = read_start(volume, InodeNumber{inode}, kBytesMax);
      if (!content.ok()) continue;
      if (*content != model.content(inode).substr(0, kBytesMax))
        return "wrong content of " + path_of(model.names(), inode);
    }
    return {};
  }

  // What is on the disk when all that was written is there, and when only what was flushed is.
  std::string judge_disks(const ModelFileSystem& first, std::size_t first_end, const ModelFileSystem* second,
                          bool settled) {
    const CrashLog log(start_.image, disk_.events());
    const std::size_t end = log.cut_count() - 1;
    std::optional<std::uint64_t> seen_digest;
    for (const CrashSpec::Kind kind : {CrashSpec::Kind::kAll, CrashSpec::Kind::kNone}) {
      const CrashSpec spec{end, kind, 0, 0};
      const CrashImage image = log.build(spec);
      if (seen_digest == image.digest()) continue;
      seen_digest = image.digest();
      // Blocks below a node that cannot be read stay allocated: the engine says so, and fsck gives them back.
      const Look look = look_at(image, device_.failed_reads() > 0);
      std::string problem = look.problem;
      const std::string by_second = second == nullptr ? "not opened again" : second->judge(look.seen, end);
      if (problem.empty() && settled) problem = by_second;
      if (problem.empty() && !settled && !by_second.empty()) problem = first.judge(look.seen, first_end);
      if (!problem.empty()) return log.describe(spec) + "\n" + problem;
    }
    return {};
  }

  const StartingPoint& start_;
  RecordingBlockDevice disk_;
  FaultBlockDevice device_;
  SimulatedClock clock_;
};

std::string text_of(const Fault& fault) {
  static const char* const calls[] = {"call", "read", "write", "flush"};
  static const char* const effects[] = {"EIO", "ENOSPC", "short"};
  return std::string(calls[static_cast<int>(fault.call)]) + " " + std::to_string(fault.at) + ": " +
         effects[static_cast<int>(fault.effect)] + (fault.for_good ? " for good" : " once");
}

// Every N until none is hit, which is the number that is returned.
std::uint64_t fail_everywhere(const StartingPoint& start, Watchdog& watchdog, Fault fault) {
  for (fault.at = 0;; fault.at += kOneRoundOf) {
    watchdog.begin(text_of(fault));
    FaultRun run(start, fault);
    const std::string problem = run.run();
    CHECK_MESSAGE(problem.empty(), text_of(fault), "\n", problem);
    if (!run.was_hit()) return fault.at;
    if (!problem.empty()) return fault.at;
  }
}

}  // namespace

TEST_CASE("a disk that fails at the N-th call") {
  constexpr std::chrono::seconds kPatience{60};
  open_log(LogTarget::kNowhere, "fault_test");
  const StartingPoint start = make_starting_point();
  Watchdog watchdog(kPatience);
  std::uint64_t runs = 0;
  for (const bool for_good : {false, true}) {
    runs += fail_everywhere(start, watchdog, Fault{Fault::Call::kAny, Fault::Effect::kIo, 0, for_good});
    // What still can be read when nothing can be written, and the other way round.
    for (const Fault::Call call : {Fault::Call::kWrite, Fault::Call::kFlush}) {
      if (for_good) runs += fail_everywhere(start, watchdog, Fault{call, Fault::Effect::kIo, 0, for_good});
      runs += fail_everywhere(start, watchdog, Fault{call, Fault::Effect::kNoSpace, 0, for_good});
    }
    for (const Fault::Call call : {Fault::Call::kRead, Fault::Call::kWrite}) {
      runs += fail_everywhere(start, watchdog, Fault{call, Fault::Effect::kShort, 0, for_good});
    }
  }
  std::printf("%llu faults\n", static_cast<unsigned long long>(runs));
  CHECK(runs > 100);
}
