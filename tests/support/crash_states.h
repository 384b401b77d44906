// The states in which a power cut could have left a recorded disk.
//
// Purpose: a CrashSpec names one state in a few numbers, so that it can be printed and built again; CrashLog builds it.
//
// Invariants:
//   1. Cut c means: the first c events happened. What was written before the begin of the last flush that ended is
//      there; of the blocks written after it ("pending") any subset may be there, each torn at 512 bytes.
//   2. Pending blocks are laid down in their order, so the last one of the subset is what a block holds. That the
//      survivor is an earlier write of the same block is another subset.
//
// Thread safety: a CrashLog does not change once it is made.
// Ownership: shares the pages of the recording.
#pragma once

#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/recording_block_device.h"

namespace tarnfs::testing {

struct CrashSpec {
  enum class Kind : std::uint8_t {
    kAll,         // every pending block is there
    kNone,        // none
    kMask,        // those whose bit is set in `value` (at most 64 pending ones)
    kWithout,     // all but `unit`
    kOnly,        // `unit` alone
    kTornInAll,   // all, but of `unit` only the sectors whose bit is set in `value`
    kTornInNone,  // of `unit` the sectors whose bit is set in `value`, and nothing else
    kRandom,      // a random subset, some of it torn, from the seed `value`
  };
  std::size_t cut = 0;
  Kind kind = Kind::kAll;
  std::uint64_t unit = 0;
  std::uint64_t value = 0;

  std::string text() const;  // "12.5.3.240"
  static bool parse(std::string_view text, CrashSpec& spec);
};

class CrashLog {
 public:
  CrashLog(const CrashImage& start, const std::vector<DeviceEvent>& events);

  std::size_t cut_count() const { return cuts_.size(); }
  // Every cut with all and with nothing of what was pending: the first to check.
  std::vector<CrashSpec> cut_points() const;
  // Subsets and torn blocks of every cut, in random order; all of them where few blocks are pending.
  std::vector<CrashSpec> variations(std::mt19937_64& random) const;
  // One more, from a space too large to list.
  CrashSpec random_variation(std::mt19937_64& random) const;

  // The last cut with the same durable and the same pending blocks: what could be on the disk at `cut` could still be
  // then, when more may have been promised.
  std::size_t last_cut_like(std::size_t cut) const;
  CrashImage build(const CrashSpec& spec) const;
  // Which pending blocks are there, for a reader.
  std::string describe(const CrashSpec& spec) const;

 private:
  struct Unit {
    std::uint64_t address = 0;
    ImageBlock block;
  };
  struct Cut {
    std::size_t base = 0;        // index in bases_
    std::size_t first_unit = 0;  // pending: [first_unit, end_unit)
    std::size_t end_unit = 0;
    std::size_t pending() const { return end_unit - first_unit; }
    bool operator==(const Cut&) const = default;
  };
  // The surviving sectors of every pending block: 0 none, 255 all.
  std::vector<std::uint8_t> survivors(const CrashSpec& spec) const;
  void add_subsets(std::size_t cut, std::mt19937_64& random, std::vector<CrashSpec>& specs) const;

  std::vector<Unit> units_;
  std::vector<CrashImage> bases_;  // what is durable, after each flush that made more durable
  std::vector<Cut> cuts_;
};

}  // namespace tarnfs::testing
