// What the helpers of mount(8) and umount(8) share.
//
// Thread safety: plain functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace tarnfs {

// The options for tarnfs: device files and set-user-id work as on other mounts, unless an option says otherwise.
std::string options_for_mount(const std::string& given, bool sloppy);
// Where the program `name` may be: next to this one, in bin and sbin besides it, and in the usual places.
std::vector<std::string> candidates_for(std::string_view name);
// Runs a program found in PATH and waits for it; it tells its own errors. Its exit code; 128 when a signal ended it.
// kUnsupported when it cannot be run.
Result<int> run_and_wait(const std::vector<std::string>& words);

}  // namespace tarnfs
