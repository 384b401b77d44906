// What the helpers of mount(8) and umount(8) share.
//
// Thread safety: plain functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/descriptor.h"
#include "common/result.h"

namespace tarnfs {

// The options for tarnfs: device files and set-user-id work as on other mounts, unless an option says otherwise.
std::string options_for_mount(const std::string& given, bool sloppy);
// Where the program `name` may be: next to this one, in bin and sbin besides it, and in the usual places.
std::vector<std::string> candidates_for(std::string_view name);
// Runs a program found in PATH and waits for it; it tells its own errors. Its exit code; 128 when a signal ended it.
// kUnsupported when it cannot be run.
Result<int> run_and_wait(const std::vector<std::string>& words);
// A descriptor that becomes readable when the process of this program that has `path` open is gone; none when there is
// no such process, or more than one.
Descriptor process_with_open_file(std::string_view program, const std::string& path);

}  // namespace tarnfs
