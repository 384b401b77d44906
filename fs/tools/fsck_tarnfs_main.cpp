// fsck.tarnfs: checks a volume that is not mounted. Repairs nothing in this version.
//
// Exit codes as fsck(8): 0 clean, 4 errors found and left, 8 the check could not be done; 2 for a wrong command line.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <nlohmann/json.hpp>
#include <string>

#include "common/file_block_device.h"
#include "common/staging_place.h"
#include "fs/check/checker.h"
#include "fs/check/journal_repair.h"

namespace tarnfs {
namespace {

constexpr int kExitClean = 0;
constexpr int kExitCorrected = 1;
constexpr int kExitUsage = 2;
constexpr int kExitErrorsLeft = 4;
constexpr int kExitOperational = 8;

struct Arguments {
  std::string image;
  bool json = false;
  bool change_nothing = false;
  bool repair = false;
  bool automatic = false;
  bool force = false;
};

// Tells how far the check is: on a terminal in one line that is rewritten every second, else in a line every half
// minute. A check shorter than a second says nothing.
class ProgressPrinter {
 public:
  void operator()(const CheckProgress& progress) {
    const auto now = std::chrono::steady_clock::now();
    const double interval_seconds = terminal_ ? 1.0 : 30.0;
    if (std::chrono::duration<double>(now - told_).count() < interval_seconds) return;
    told_ = now;
    const double seconds = std::chrono::duration<double>(now - start_).count();
    const double blocks_per_second = static_cast<double>(progress.blocks_done) / seconds;
    const double mib_per_second = blocks_per_second * kBlockSize / (1 << 20);
    const double total = static_cast<double>(std::max(progress.blocks_total, progress.blocks_done));
    const double left_seconds =
        blocks_per_second > 0 ? (total - static_cast<double>(progress.blocks_done)) / blocks_per_second : 0;
    const double percent = total > 0 ? 100.0 * static_cast<double>(progress.blocks_done) / total : 0;
    fmt::print(stderr, "{}{}: {:.0f} %, {:.0f} MiB/s, {:.0f} s left{}", terminal_ ? "\r" : "", progress.phase, percent,
               mib_per_second, left_seconds, terminal_ ? "   " : "\n");
    std::fflush(stderr);
    open_line_ = terminal_;
  }
  void finish() {
    if (open_line_) fmt::print(stderr, "\n");
    open_line_ = false;
  }

 private:
  const bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point told_ = start_;
  bool open_line_ = false;
};

std::string_view name_of(Severity severity) {
  return severity == Severity::kError ? "error" : "warning";
}

std::string uuid_of(const CheckReport& report) {
  return volume_of(report.superblock).to_string();
}

void print_json(const std::string& image, const CheckReport& report) {
  using Json = nlohmann::ordered_json;
  Json problems = Json::array();
  for (const Problem& problem : report.problems) {
    Json entry = {{"kind", name_of(problem.kind)}, {"severity", name_of(problem.severity)}};
    entry["inode"] = problem.inode ? Json(problem.inode->value) : Json();
    entry["address"] = problem.address ? Json(problem.address->value) : Json();
    entry["text"] = problem.text;
    problems.push_back(std::move(entry));
  }
  const CheckCounters& counters = report.counters;
  const Json output = {{"image", image},
                       {"clean", report.clean()},
                       {"volume", uuid_of(report)},
                       {"label", label_of(report.superblock)},
                       {"cp", report.root.cp},
                       {"errors", report.error_count},
                       {"warnings", report.warning_count},
                       {"size_blocks", report.superblock.size_blocks},
                       {"reachable_blocks", counters.reachable_blocks},
                       {"data_blocks", counters.data_blocks},
                       {"node_blocks", counters.node_blocks},
                       {"inodes", counters.inodes},
                       {"regular_files", counters.regular_files},
                       {"directories", counters.directories},
                       {"symlinks", counters.symlinks},
                       {"special_files", counters.special_files},
                       {"attribute_inodes", counters.attribute_inodes},
                       {"orphans", counters.orphans},
                       {"entries", counters.entries},
                       {"journal_batches", counters.journal_batches},
                       {"journal_records", counters.journal_records},
                       {"problems", problems}};
  // A label or a path may be no UTF-8.
  fmt::print("{}\n", output.dump(2, ' ', false, Json::error_handler_t::replace));
}

void print_text(const std::string& image, const CheckReport& report) {
  for (const Problem& problem : report.problems) {
    fmt::print("{}: {}: {}\n", image, name_of(problem.severity), problem.text);
  }
  const std::uint64_t left_out = report.error_count + report.warning_count - report.problems.size();
  if (left_out > 0) fmt::print("{}: {} more problems are not listed\n", image, left_out);
  const CheckCounters& counters = report.counters;
  fmt::print("{}: {}, cp {}: {} inodes ({} directories), {} names, {} of {} blocks in use; {} errors, {} warnings\n",
             image, report.clean() ? "clean" : "DAMAGED", report.root.cp, counters.inodes, counters.directories,
             counters.entries, counters.reachable_blocks, report.superblock.size_blocks, report.error_count,
             report.warning_count);
}

// What can be repaired: so far a damaged journal.
Result<bool> repair(const std::string& image) {
  TARNFS_ASSIGN(const auto device, FileBlockDevice::open(image, DeviceMode::kReadWrite));
  TARNFS_ASSIGN(const bool changed, give_up_damaged_journal(*device));
  if (changed) fmt::print("{}: the damaged end of the journal was given up\n", image);
  return changed;
}

Status check_is_whole(const std::string& image) {
  TARNFS_ASSIGN(const auto device, FileBlockDevice::open(image, DeviceMode::kReadOnly));
  return check_nothing_is_staged(*device, image);
}

int run(const Arguments& arguments) {
  if (const Status whole = check_is_whole(arguments.image); !whole.ok()) {
    fmt::print(stderr, "fsck.tarnfs: {}\n", whole.error().describe());
    return kExitOperational;
  }
  bool repaired = false;
  if (arguments.repair) {
    const auto changed = repair(arguments.image);
    if (!changed.ok()) {
      fmt::print(stderr, "fsck.tarnfs: {}\n", changed.error().describe());
      return kExitOperational;
    }
    repaired = *changed;
  }
  auto device = FileBlockDevice::open(arguments.image, DeviceMode::kReadOnly);
  if (!device.ok()) {
    fmt::print(stderr, "fsck.tarnfs: {}\n", device.error().describe());
    return kExitOperational;
  }
  ProgressPrinter progress;
  CheckOptions options;
  options.progress = [&progress](const CheckProgress& state) { progress(state); };
  const auto report = check_volume(**device, options);
  progress.finish();
  if (!report.ok()) {
    fmt::print(stderr, "fsck.tarnfs: {}\n", report.error().describe());
    return kExitOperational;
  }
  arguments.json ? print_json(arguments.image, *report) : print_text(arguments.image, *report);
  if (report->clean()) return repaired ? kExitCorrected : kExitClean;
  fmt::print(
      stderr,
      "fsck.tarnfs: {} is damaged, and this version repairs only journals; restore it from its mirror or a backup\n",
      arguments.image);
  return kExitErrorsLeft;
}

int main_with(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Checks a tarnfs volume that is not mounted: pointers, checksums, counts, names and the free map.",
               "fsck.tarnfs");
  app.set_version_flag("--version", std::string("fsck.tarnfs ") + TARNFS_VERSION);
  auto* const nothing = app.add_flag("-n", arguments.change_nothing, "change nothing (as this version always does)");
  app.add_flag("-y", arguments.repair, "repair what can be: this version, a damaged journal")->excludes(nothing);
  app.add_flag("-a,-p", arguments.automatic, "as boot scripts call it: the same check");
  app.add_flag("-f", arguments.force, "check also when the volume seems clean (always done)");
  app.add_flag("--json", arguments.json, "print one JSON object");
  app.add_option("IMAGE", arguments.image, "the file or block device")->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    fmt::print(stderr, "fsck.tarnfs: {}; see fsck.tarnfs --help\n", error.what());
    return kExitUsage;
  }
  return run(arguments);
}

}  // namespace
}  // namespace tarnfs

int main(int argc, char** argv) {
  try {
    return tarnfs::main_with(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "fsck.tarnfs: %s\n", error.what());
    return tarnfs::kExitOperational;
  }
}
