// The offline checker: reads everything that the newest root refers to and tells what is wrong.
//
// Purpose: fsck.tarnfs, and every test that wants to know that a volume is whole. Changes nothing.
//
// Invariants:
//   1. Nothing on disk is trusted: damage gives problems in the report, never a crash, an endless loop (no block is
//      read through two pointers) or memory beyond what the blocks that were really read justify.
//   2. What cannot be judged because something above it is lost is not reported: a damaged directory does not make
//      every inode below it a finding of its own.
//
// Memory: a bit for every block in use (less when few are), 8 bytes for every shared block and its neighbours, 9 bytes
// an inode, 16 a directory, 24 a block of inodes with directories, and two caches of 8 MiB.
// Thread safety: a check is one thread's; `device` must not change meanwhile.
// Errors: what keeps a check from being made: kInvalid no tarnfs volume, kIncompatible a newer format, kCorrupt a
// truncated image, or both superblocks or all root blocks damaged, kIo both superblocks unreadable. All else is in the
// report.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "common/block_device.h"
#include "common/result.h"
#include "fs/check/report.h"

namespace tarnfs {

struct CheckProgress {
  std::string_view phase;          // "inodes", "directories", "free map"
  std::uint64_t blocks_done = 0;   // read and verified
  std::uint64_t blocks_total = 0;  // what the root says is in use
};

struct CheckOptions {
  std::uint64_t problems_max = 10000;                  // how many the report lists; all are counted
  std::function<void(const CheckProgress&)> progress;  // called now and then; may be empty
};

Result<CheckReport> check_volume(BlockDevice& device, const CheckOptions& options);

}  // namespace tarnfs
