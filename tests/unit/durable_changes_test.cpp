// With dirsync and sync a power cut takes nothing that was answered; without them it does.
#include "fs/engine/durable_changes.h"

#include <doctest/doctest.h>
#include <linux/fs.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <thread>

#include "fs/engine/volume.h"
#include "fs/engine/waiting.h"
#include "fs/storage/format_volume.h"
#include "tests/support/crash_states.h"
#include "tests/support/memory_file_system.h"
#include "tests/support/observation.h"
#include "tests/support/volume_life.h"

using namespace tarnfs;
using namespace tarnfs::testing;

namespace {

constexpr std::uint64_t kVolumeBlocks = 4096;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

std::optional<Attributes> find(FileSystem& file_system, std::string_view path) {
  InodeNumber directory = kRootDirectory;
  for (std::size_t slash = path.find('/'); slash != std::string_view::npos; slash = path.find('/')) {
    const auto above = file_system.lookup(directory, path.substr(0, slash));
    if (!above.ok()) return std::nullopt;
    directory = above->inode;
    path.remove_prefix(slash + 1);
  }
  const auto found = file_system.lookup(directory, path);
  return found.ok() ? std::optional(*found) : std::nullopt;
}

InodeNumber inode_at(FileSystem& file_system, std::string_view path) {
  const auto found = find(file_system, path);
  REQUIRE(found);
  return found->inode;
}

std::uint32_t type_of(FileSystem& file_system, std::string_view path) {
  const auto found = find(file_system, path);
  return found ? found->mode & S_IFMT : 0;
}

template <class Value>
Status status_of(const Result<Value>& result) {
  return result.ok() ? Status() : Status(result.error());
}

// A change, and whether one sees that it was made. Each has names of its own.
struct Step {
  const char* what;
  std::function<Status(FileSystem&)> make;
  std::function<bool(FileSystem&)> is_made;
};

const std::string kLongTarget(1000, 't');

// The directories and files that the steps change.
void prepare(FileSystem& file_system) {
  for (const char* name : {"d", "removed-d", "exchanged-d"}) {
    REQUIRE(file_system.make_node(kRootDirectory, name, NewNode{.mode = S_IFDIR | 0755}).ok());
  }
  for (const char* name : {"file", "moved", "over", "replaced", "exchanged-f", "left", "removed", "old-xattr"}) {
    const auto made = file_system.make_node(kRootDirectory, name, NewNode{.mode = S_IFREG | 0644});
    REQUIRE(made.ok());
    REQUIRE(file_system.write(made->inode, 0, bytes_of(std::string(9000, 'c')), {}).ok());
  }
  for (const char* name :
       {"chmod", "chown", "utimes", "truncate", "xattr", "written", "allocated", "copied", "flags"}) {
    REQUIRE(file_system.make_node(kRootDirectory, name, NewNode{.mode = S_IFREG | 0600}).ok());
  }
  const InodeNumber with_xattr = inode_at(file_system, "old-xattr");
  REQUIRE(file_system.set_xattr(with_xattr, "user.old", bytes_of("old"), XattrMode::kCreate).ok());
  REQUIRE(file_system.write(inode_at(file_system, "truncate"), 0, bytes_of("content"), {}).ok());
}

Status make(FileSystem& file_system, std::string_view name, const NewNode& node) {
  return status_of(file_system.make_node(kRootDirectory, name, node));
}

Status link_unnamed(FileSystem& file_system) {
  const auto unnamed = file_system.make_unnamed(kRootDirectory, NewNode{.mode = S_IFREG | 0640});
  if (!unnamed.ok()) return unnamed.error();
  return status_of(file_system.link(unnamed->inode, kRootDirectory, "named"));
}

const std::vector<Step>& name_steps() {
  static const std::vector<Step> steps = {
      {"mkdir", [](FileSystem& f) { return make(f, "made", NewNode{.mode = S_IFDIR | 0750}); },
       [](FileSystem& f) { return type_of(f, "made") == S_IFDIR; }},
      {"create below another directory",
       [](FileSystem& f) {
         return status_of(f.make_node(inode_at(f, "d"), "new", NewNode{.mode = S_IFREG | 0640, .caller = {7, 8, 0}}));
       },
       [](FileSystem& f) { return find(f, "d/new").value_or(Attributes{}).gid == 8; }},
      {"mknod", [](FileSystem& f) { return make(f, "fifo", NewNode{.mode = S_IFIFO | 0600}); },
       [](FileSystem& f) { return type_of(f, "fifo") == S_IFIFO; }},
      {"symlink",
       [](FileSystem& f) { return make(f, "symlink", NewNode{.mode = S_IFLNK, .symlink_target = kLongTarget}); },
       [](FileSystem& f) {
         const auto found = find(f, "symlink");
         return found && f.symlink_target(found->inode).value() == kLongTarget;
       }},
      {"link", [](FileSystem& f) { return status_of(f.link(inode_at(f, "file"), inode_at(f, "d"), "linked")); },
       [](FileSystem& f) { return find(f, "d/linked").value_or(Attributes{}).link_count == 2; }},
      {"rename",
       [](FileSystem& f) {
         return f.rename(kRootDirectory, "moved", inode_at(f, "d"), "moved", RenameMode::kNoReplace);
       },
       [](FileSystem& f) { return find(f, "d/moved") && !find(f, "moved"); }},
      {"rename over another",
       [](FileSystem& f) { return f.rename(kRootDirectory, "over", kRootDirectory, "replaced", RenameMode::kReplace); },
       [](FileSystem& f) { return find(f, "replaced") && !find(f, "over"); }},
      {"exchange",
       [](FileSystem& f) {
         return f.rename(kRootDirectory, "exchanged-d", kRootDirectory, "exchanged-f", RenameMode::kExchange);
       },
       [](FileSystem& f) { return type_of(f, "exchanged-f") == S_IFDIR && type_of(f, "exchanged-d") == S_IFREG; }},
      {"rename that leaves a whiteout",
       [](FileSystem& f) {
         return f.rename_leaving(kRootDirectory, "left", inode_at(f, "d"), "left", RenameMode::kReplace,
                                 NewNode{.mode = S_IFCHR});
       },
       [](FileSystem& f) { return type_of(f, "left") == S_IFCHR && type_of(f, "d/left") == S_IFREG; }},
      {"unlink", [](FileSystem& f) { return f.unlink(kRootDirectory, "removed"); },
       [](FileSystem& f) { return !find(f, "removed"); }},
      {"rmdir", [](FileSystem& f) { return f.remove_directory(kRootDirectory, "removed-d"); },
       [](FileSystem& f) { return !find(f, "removed-d"); }},
  };
  return steps;
}

// Two operations, of which the first one gives nothing that a power cut would keep.
const Step& naming_step() {
  static const Step step = {"link of a file without a name", link_unnamed, [](FileSystem& f) {
                              return type_of(f, "named") == S_IFREG && find(f, "named")->link_count == 1;
                            }};
  return step;
}

std::vector<Step> all_name_steps() {
  std::vector<Step> steps = name_steps();
  steps.push_back(naming_step());
  return steps;
}

Status change(FileSystem& file_system, std::string_view name, const AttributeChanges& changes) {
  return status_of(file_system.change_attributes(inode_at(file_system, name), changes));
}

const std::vector<Step>& other_steps() {
  static const std::vector<Step> steps = {
      {"chmod", [](FileSystem& f) { return change(f, "chmod", {.mode = 0751}); },
       [](FileSystem& f) { return find(f, "chmod")->mode == (S_IFREG | 0751); }},
      {"chown", [](FileSystem& f) { return change(f, "chown", {.uid = 7, .gid = 8}); },
       [](FileSystem& f) { return find(f, "chown")->uid == 7 && find(f, "chown")->gid == 8; }},
      {"utimes",
       [](FileSystem& f) {
         return change(f, "utimes", {.accessed = Timestamp{1, 2}, .modified = Timestamp{3, 4}, .sets_times = true});
       },
       [](FileSystem& f) { return find(f, "utimes")->modified.seconds == 3; }},
      {"truncate", [](FileSystem& f) { return change(f, "truncate", {.size_bytes = 3}); },
       [](FileSystem& f) { return find(f, "truncate")->size_bytes == 3; }},
      {"chattr", [](FileSystem& f) { return change(f, "flags", {.flags = FS_NODUMP_FL}); },
       [](FileSystem& f) { return find(f, "flags")->flags == FS_NODUMP_FL; }},
      {"setxattr",
       [](FileSystem& f) { return f.set_xattr(inode_at(f, "xattr"), "user.x", bytes_of("y"), XattrMode::kCreate); },
       [](FileSystem& f) {
         const auto value = f.xattr(inode_at(f, "xattr"), "user.x");
         return value.ok() && *value == "y";
       }},
      {"removexattr", [](FileSystem& f) { return f.remove_xattr(inode_at(f, "old-xattr"), "user.old"); },
       [](FileSystem& f) { return f.xattr_names(inode_at(f, "old-xattr")).value().empty(); }},
      {"write without the kernel's cache",
       [](FileSystem& f) { return f.write(inode_at(f, "written"), 0, bytes_of("written"), {}); },
       [](FileSystem& f) { return read_start(f, inode_at(f, "written"), 100).value() == "written"; }},
      {"fallocate", [](FileSystem& f) { return f.fallocate(inode_at(f, "allocated"), 0, 40960, {}); },
       [](FileSystem& f) { return find(f, "allocated")->block_count >= 10; }},
      {"copy_file_range",
       [](FileSystem& f) { return status_of(f.copy_range(inode_at(f, "file"), 0, inode_at(f, "copied"), 0, 9000)); },
       [](FileSystem& f) { return read_start(f, inode_at(f, "copied"), 10000).value() == std::string(9000, 'c'); }},
  };
  return steps;
}

// A volume on a recorded disk whose start has what the steps need, and what was done to it.
class RecordedVolume {
 public:
  explicit RecordedVolume(std::optional<std::uint64_t> journal_blocks, unsigned yields = 0) {
    RecordingBlockDevice blank{CrashImage(kVolumeBlocks)};
    FormatOptions format{"durable", {}, 0, 0};
    format.journal_blocks = journal_blocks;
    REQUIRE(format_volume(blank, format, clock_).ok());
    start_ = blank.image();
    {
      RecordingBlockDevice preparing(start_);
      auto prepared = open_on(preparing, VolumeMode::kReadWrite);
      prepare(*prepared);
      REQUIRE(prepared->close().ok());
      start_ = preparing.image();
    }
    device_.emplace(start_, yields);
    volume_ = open_on(*device_, VolumeMode::kReadWrite);
    // The journal takes batches once a mount has a root of its own.
    REQUIRE(volume_->consistency_point().ok());
  }

  Volume& volume() { return *volume_; }
  RecordingBlockDevice& device() { return *device_; }
  CrashLog log() const { return {start_, device_->events()}; }

  // What a mount shows of the disk that a power cut has left.
  bool shows(const CrashImage& image, const std::function<bool(FileSystem&)>& is_made) {
    RecordingBlockDevice disk(image);
    const auto volume = open_on(disk, VolumeMode::kReadOnly);
    return is_made(*volume);
  }

 private:
  std::unique_ptr<Volume> open_on(BlockDevice& device, VolumeMode mode) {
    VolumeOptions options;
    options.mode = mode;
    options.cp_interval_ms = 0;
    options.access_times = false;
    options.clock = &clock_;
    auto opened = Volume::open(device, options);
    REQUIRE_MESSAGE(opened.ok(), (opened.ok() ? "" : opened.error().describe()));
    return std::move(*opened);
  }

  SimulatedClock clock_{1};
  CrashImage start_{kVolumeBlocks};
  std::optional<RecordingBlockDevice> device_;
  std::unique_ptr<Volume> volume_;
};

std::string names_of(const std::vector<Step>& steps) {
  std::string names;
  for (const Step& step : steps) names += std::string(step.what) + "\n";
  return names;
}

// Does the steps one after the other and cuts the power after each: the names of those that are there whatever became
// of what the disk had not flushed.
std::string kept_of(RecordedVolume& recorded, FileSystem& file_system, const std::vector<Step>& steps) {
  std::vector<std::size_t> cuts;
  for (const Step& step : steps) {
    CAPTURE(std::string(step.what));
    REQUIRE(!step.is_made(file_system));
    const Status made = step.make(file_system);
    REQUIRE_MESSAGE(made.ok(), (made.ok() ? "" : made.error().describe()));
    REQUIRE(step.is_made(file_system));
    cuts.push_back(recorded.device().mark());
  }
  const CrashLog log = recorded.log();
  std::vector<Step> kept;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    bool is_kept = true;
    for (const auto kind : {CrashSpec::Kind::kNone, CrashSpec::Kind::kAll, CrashSpec::Kind::kRandom}) {
      const CrashSpec spec{.cut = cuts[i], .kind = kind, .value = i};
      is_kept = is_kept && recorded.shows(log.build(spec), steps[i].is_made);
    }
    if (is_kept) kept.push_back(steps[i]);
  }
  return names_of(kept);
}

bool would_wait(const Status& status) {
  return !status.ok() && status.error().code() == ErrorCode::kWouldWait;
}

// The journal's size: the default, and a volume without one, where each fsync takes a consistency point.
const std::array<std::optional<std::uint64_t>, 2> kJournals = {std::nullopt, 0};

}  // namespace

TEST_CASE("dirsync: names are there after a power cut as soon as they were answered") {
  for (const auto& journal_blocks : kJournals) {
    RecordedVolume recorded(journal_blocks);
    DurableChanges durable(recorded.volume(), DurableScope::kNames);
    CHECK(kept_of(recorded, durable, all_name_steps()) == names_of(all_name_steps()));
  }
}

TEST_CASE("sync: so are attributes, sizes, extended attributes, space and content") {
  for (const auto& journal_blocks : kJournals) {
    RecordedVolume recorded(journal_blocks);
    DurableChanges durable(recorded.volume(), DurableScope::kAll);
    CHECK(kept_of(recorded, durable, all_name_steps()) == names_of(all_name_steps()));
    CHECK(kept_of(recorded, durable, other_steps()) == names_of(other_steps()));
  }
}

TEST_CASE("without the options a power cut takes all of it, and with dirsync what is not a name") {
  for (const auto& journal_blocks : kJournals) {
    RecordedVolume recorded(journal_blocks);
    CHECK(kept_of(recorded, recorded.volume(), all_name_steps()) == "");
    CHECK(kept_of(recorded, recorded.volume(), other_steps()) == "");
    RecordedVolume with_names(journal_blocks);
    DurableChanges durable(with_names.volume(), DurableScope::kNames);
    CHECK(kept_of(with_names, durable, other_steps()) == "");
  }
}

// Many threads share a batch of the journal, and consistency points come between an operation and its fsync.
TEST_CASE("names of many threads, beside consistency points, are there after every power cut that came later") {
  constexpr unsigned kThreads = 4;
  constexpr unsigned kNamesOfEach = 12;
  RecordedVolume recorded(std::nullopt, 10);
  DurableChanges durable(recorded.volume(), DurableScope::kNames);
  struct Answered {
    std::string name;
    std::size_t event = 0;
  };
  std::array<std::vector<Answered>, kThreads> answered;
  std::atomic<unsigned> running{kThreads};
  std::atomic<unsigned> failures{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (unsigned n = 0; n < kNamesOfEach; ++n) {
        const std::string name = std::to_string(t) + "-" + std::to_string(n);
        const auto made = durable.make_node(kRootDirectory, name, NewNode{.mode = S_IFREG | 0644});
        failures += made.ok() ? 0 : 1;
        answered[t].push_back({name, recorded.device().mark()});
      }
      --running;
    });
  }
  while (running > 0) failures += recorded.volume().consistency_point().ok() ? 0 : 1;
  for (std::thread& thread : threads) thread.join();
  REQUIRE(failures == 0);
  const CrashLog log = recorded.log();
  unsigned lost = 0;
  for (const auto& of_thread : answered) {
    for (const Answered& last : of_thread) {
      const CrashImage image = log.build({.cut = last.event, .kind = CrashSpec::Kind::kNone});
      lost += recorded.shows(image,
                             [&](FileSystem& file_system) {
                               return std::all_of(
                                   answered.begin(), answered.end(), [&](const std::vector<Answered>& names) {
                                     return std::all_of(names.begin(), names.end(), [&](const Answered& each) {
                                       return each.event > last.event || find(file_system, each.name).has_value();
                                     });
                                   });
                             })
                  ? 0
                  : 1;
    }
  }
  CHECK(lost == 0);
}

TEST_CASE("what has to become durable is put off where nobody may wait, before anything has changed") {
  RecordedVolume recorded(std::nullopt);
  const auto before = observe(recorded.volume());
  REQUIRE(before.ok());
  const std::uint64_t dirty_bytes = recorded.volume().status().dirty_bytes;
  const std::size_t events = recorded.device().events().size();
  for (const auto scope : {DurableScope::kNames, DurableScope::kAll}) {
    DurableChanges durable(recorded.volume(), scope);
    std::vector<Step> steps = name_steps();
    if (scope == DurableScope::kAll) steps.insert(steps.end(), other_steps().begin(), other_steps().end());
    for (const Step& step : steps) {
      CAPTURE(std::string(step.what));
      const NoWaitScope nobody_waits;
      CHECK(would_wait(step.make(durable)));
      CHECK(!step.is_made(durable));
    }
  }
  CHECK(recorded.volume().status().dirty_bytes == dirty_bytes);
  CHECK(recorded.device().events().size() == events);
  const auto after = observe(recorded.volume());
  REQUIRE(after.ok());
  CHECK(difference(*before, *after) == "");
  // With dirsync all but names goes on there, and inside a WaitScope everything.
  DurableChanges durable(recorded.volume(), DurableScope::kNames);
  const NoWaitScope nobody_waits;
  for (const Step& step : other_steps()) CHECK_MESSAGE(step.make(durable).ok(), std::string(step.what));
  const WaitScope waits;
  CHECK(durable.unlink(kRootDirectory, "removed").ok());
}

TEST_CASE("one fsync for a change, none for what failed, changes nothing or is the kernel's to write back") {
  MemoryFileSystem memory;
  DurableChanges durable(memory, DurableScope::kAll);
  const InodeNumber file = durable.make_node(kRootDirectory, "f", NewNode{.mode = S_IFREG | 0644}).value().inode;
  CHECK(memory.fsync_count() == 1);
  CHECK(durable.make_node(kRootDirectory, "f", NewNode{.mode = S_IFREG | 0644}).error().code() == ErrorCode::kExists);
  CHECK(durable.unlink(kRootDirectory, "none").error().code() == ErrorCode::kNotFound);
  CHECK(durable.lookup(kRootDirectory, "f").ok());
  CHECK(durable.make_unnamed(kRootDirectory, NewNode{.mode = S_IFREG | 0600}).ok());
  CHECK(durable.write(file, 0, bytes_of("cached"), {.from_page_cache = true}).ok());
  CHECK(durable.change_attributes(file, {.modified = Timestamp{1, 2}, .writes_back = true}).ok());
  CHECK(memory.fsync_count() == 1);
  CHECK(durable.write(file, 0, bytes_of("direct"), {}).ok());
  CHECK(durable.change_attributes(file, {.modified = Timestamp{1, 2}}).ok());
  CHECK(memory.fsync_count() == 3);
  const NoWaitScope nobody_waits;
  CHECK(durable.write(file, 0, bytes_of("cached"), {.from_page_cache = true}).ok());
  CHECK(durable.change_attributes(file, {.modified = Timestamp{3, 4}, .writes_back = true}).ok());
}

TEST_CASE("an fsync that fails is the answer, and no lookup is left") {
  MemoryFileSystem memory;
  DurableChanges durable(memory, DurableScope::kAll);
  const InodeNumber file = durable.make_node(kRootDirectory, "f", NewNode{.mode = S_IFREG | 0644}).value().inode;
  REQUIRE(memory.lookup_count() == 1);
  memory.fail_fsyncs(true);
  const NewNode node{.mode = S_IFREG | 0644};
  CHECK(durable.make_node(kRootDirectory, "g", node).error().code() == ErrorCode::kIo);
  CHECK(durable.link(file, kRootDirectory, "h").error().code() == ErrorCode::kIo);
  CHECK(durable.rename(kRootDirectory, "h", kRootDirectory, "i", RenameMode::kReplace).error().code() ==
        ErrorCode::kIo);
  CHECK(durable.change_attributes(file, {.mode = 0600}).error().code() == ErrorCode::kIo);
  CHECK(durable.copy_range(file, 0, file, 4096, 1).ok() == false);
  CHECK(memory.lookup_count() == 1);
}
