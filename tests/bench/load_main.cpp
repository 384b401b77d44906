// tarnfs_bench_load: puts one kind of load on a directory and prints a line of JSON for each phase.
//
//   tarnfs_bench_load metadata DIRECTORY [files=N] [threads=N]
//   tarnfs_bench_load fsync DIRECTORY [milliseconds=N] [file_mib=N]
//   tarnfs_bench_load stream DIRECTORY phase=NAME [milliseconds=N] [file_mib=N]
//   tarnfs_bench_load scale DIRECTORY step=NAME [files=N] [directories=N] [threads=N] [...], see load_scale.cpp
//   tarnfs_bench_load mixed DIRECTORY [milliseconds=N] [file_mib=N]
#include <unistd.h>

#include <cstdio>
#include <string>

#include "load.h"

int main(int argc, char** argv) {
  using namespace tarnfs::bench;
  if (argc < 3) {
    std::fprintf(stderr, "usage: tarnfs_bench_load metadata|fsync|stream|scale|mixed DIRECTORY [KEY=VALUE]...\n");
    return 2;
  }
  const std::string suite = argv[1];
  const Options options(argc - 3, argv + 3);
  if (::chdir(argv[2]) != 0) fail("go to", argv[2]);
  if (suite == "metadata") {
    run_metadata(options);
  } else if (suite == "fsync") {
    run_fsync(options);
  } else if (suite == "stream") {
    run_stream(options);
  } else if (suite == "scale") {
    run_scale(options);
  } else if (suite == "mixed") {
    run_mixed(options);
  } else {
    std::fprintf(stderr, "tarnfs_bench_load: there is no load %s\n", suite.c_str());
    return 2;
  }
  return 0;
}
