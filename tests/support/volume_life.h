// A volume's life on a recorded disk, and a look at what a disk holds.
//
// Thread safety: none; each call is complete in itself.
// Errors: as texts in the results.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/crash_workload.h"

namespace tarnfs::testing {

// From the start of a recording to the moment when the volume was dropped without being closed.
struct VolumeLife {
  VolumeLife(CrashImage image, const Observation& seen) : start(std::move(image)), model(seen) {}
  CrashImage start;
  ModelFileSystem model;
  std::vector<DeviceEvent> events;
  std::size_t settled_event = 0;  // from then on the model speaks; before, who knew the start
  std::string problem;            // an operation that failed
  bool makes_sense = true;        // false: an operation of the workload could not be run
};

struct LifeOptions {
  std::uint64_t seed = 0;
  std::string stamp;          // goes into all that is written
  bool settle_first = false;  // check that `seen` is there, and take a consistency point, before the workload
  bool close_at_end = false;  // close the volume, too, in the recording
};

// Runs `workload` on the volume in `image`, which shows `seen`.
VolumeLife live(const CrashImage& image, const Observation& seen, const Workload& workload, const LifeOptions& options);

// The state that all workloads start from, durable, and what it shows.
struct StartingPoint {
  CrashImage image;
  Observation seen;
};
StartingPoint make_starting_point();

// What a disk shows to a reader, and what is wrong with it: it must open read-only without a write, and for writing;
// show the same both times and after it was closed; and be clean for the checker before and after.
struct Look {
  Observation seen;
  std::string problem;
};
Look look_at(const CrashImage& image, bool leaks_allowed = false);

// The first difference in words; empty when both show the same.
std::string difference(const Observation& left, const Observation& right);

}  // namespace tarnfs::testing
