#include "fs/check/checker.h"

#include "fs/check/check_state.h"

namespace tarnfs {

Result<CheckReport> check_volume(BlockDevice& device, const CheckOptions& options) {
  CheckReport report;
  ProblemLog log(report, options.problems_max);
  TARNFS_TRY(check::check_roots(device, report, log));
  check::CheckState state(device, report, options);
  check::check_inodes(state);
  check::check_directories(state);
  check::check_links(state);
  check::check_shares(state);
  check::check_journal(state);
  check::check_free_map(state);
  return report;
}

}  // namespace tarnfs
