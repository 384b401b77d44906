// Cuts the power of volumes at every event of their disks, and looks at what comes up.
//
// Purpose: the proof that what an fsync or a consistency point promised survives, and that the whole state is one that
// the operations could have left. Every state must be sound (look_at()) and legal (ModelFileSystem). Of a sample the
// recovery is recorded, and some operations after it; that disk is cut, too, and must show what the first model allows
// until the recovered state was persisted, and what a second model allows from then on.
//
// Invariants:
//   1. Everything but what a second thread does follows from the seed, so a violation can be run again from the line
//      that is printed with it.
//   2. A state is counted once per workload; the same disk at another cut is judged again by what was promised then,
//   but
//      not opened again.
//
// Thread safety: none.
// Errors: violations are texts; simulate() stops at the first.
#pragma once

#include <cstdint>
#include <string>

#include "tests/support/crash_states.h"
#include "tests/support/volume_life.h"

namespace tarnfs::testing {

struct CrashCounts {
  std::uint64_t states = 0;                 // distinct ones that were opened and checked
  std::uint64_t states_after_recovery = 0;  // of these: cut while or after a crash was recovered from
  std::uint64_t duplicates = 0;             // not opened again
  std::uint64_t workloads = 0;
};

class CrashSimulation {
 public:
  explicit CrashSimulation(std::uint64_t seed) : seed_(seed), start_(make_starting_point()) {}

  // Checks `states_max` states, spread over all workloads. Returns the first violation; empty: none.
  std::string simulate(std::uint64_t states_max);
  // Runs one state again: "workload:state" or "workload:state/state". Empty: it is legal.
  std::string replay(const std::string& which);
  const CrashCounts& counts() const { return counts_; }

 private:
  struct WorkloadCheck;
  struct SecondLife;

  VolumeLife live_once(const Workload& workload, std::size_t index) const;
  std::string check_class(const std::string& class_name, std::uint64_t share, std::uint64_t states_each,
                          std::mt19937_64& random);
  // Sets `made_sense`.
  std::string check_workload(const std::string& class_name, std::size_t index, std::uint64_t states_max,
                             bool& made_sense);
  std::string check_state(WorkloadCheck& check, const CrashSpec& spec);
  std::string check_second_life(WorkloadCheck& check, const CrashSpec& spec, const CrashImage& image,
                                const Observation& seen, const CrashSpec* only);
  SecondLife live_again(const WorkloadCheck& check, const CrashSpec& spec, const CrashImage& image,
                        const Observation& seen) const;
  std::string check_second_state(WorkloadCheck& check, const CrashSpec& first, const SecondLife& again,
                                 const CrashLog& log, const CrashSpec& second);
  // The look from the cache, or a new one, which is counted.
  const Look& look_once(WorkloadCheck& check, const CrashImage& image, bool& is_new);
  std::string report(const WorkloadCheck& check, const std::string& state, const std::string& details,
                     const std::string& problem) const;

  const std::uint64_t seed_;
  const StartingPoint start_;
  CrashCounts counts_;
};

}  // namespace tarnfs::testing
