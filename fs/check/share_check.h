// The share map against the references that were found.
//
// Purpose: inode 3 stands before all files, so what it says of a block is known when the first reference to it is
// found: then further ones are counted, instead of being an error.
//
// Invariants:
//   1. Only data blocks of regular files are counted; every further reference has the pointer of the first one, so that
//      a block is verified once.
//
// Memory: 8 bytes for each block of those runs of 2048 blocks of which any has a count.
// Thread safety: none.
// Errors: problems in the log.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>

#include "common/format.h"
#include "fs/check/block_reader.h"
#include "fs/check/inode_table.h"
#include "fs/check/report.h"

namespace tarnfs::check {

class ShareCheck {
 public:
  explicit ShareCheck(ProblemLog& log) : log_(log) {}

  // What the map says: page `index`, and pages that could not be read.
  void add_page(std::uint64_t index, const SharePage& counts);
  void add_lost(std::uint64_t first, std::uint64_t count) { lost_.add(first, count); }

  enum class Further { kUnexpected, kCounted, kUnknown };
  // A file's data block that nothing else refers to so far.
  void note_first(const BlockPointer& pointer);
  // One that something refers to already. kUnexpected: the block is nothing that files may share. kUnknown: what the
  // map says of it was lost.
  Further note_further(const BlockPointer& pointer, TreeOwner owner);
  // Compares the counts, when everything was walked. `complete`: every reference was found.
  void finish(bool complete);

 private:
  struct Page {
    SharePage expected{};
    std::array<std::uint16_t, kSharesPerPage> found{};
    std::array<std::uint32_t, kSharesPerPage> fingerprints{};  // of the first pointer; 0: no file refers to the block
  };
  static std::uint32_t fingerprint_of(const BlockPointer& pointer);
  void compare(std::uint64_t index, const Page& page, bool complete);
  void report(std::uint64_t first, std::uint64_t count, std::uint16_t expected, std::uint32_t found);

  ProblemLog& log_;
  std::map<std::uint64_t, std::unique_ptr<Page>> pages_;
  LostRanges lost_;
};

}  // namespace tarnfs::check
