// usage: conformance DIRECTORY ELSEWHERE [doctest's options]
//
// DIRECTORY is an empty one of the file system that is tested, ELSEWHERE one of another file system. Suites:
// "read-write"; "read-only" on the read-only mount of a volume where "before read-only" ran; "small" on one of a few
// MiB.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>

#include "tests/conformance/ground.h"

int main(int count, char** words) {
  if (count < 3) {
    std::fprintf(stderr, "usage: conformance DIRECTORY ELSEWHERE [doctest's options]\n");
    return 2;
  }
  if (::geteuid() != 0) {
    std::fprintf(stderr, "conformance: it acts as several users: run it as root\n");
    return 2;
  }
  tarnfs::conformance::set_arguments({.directory = words[1], .elsewhere = words[2]});
  // A write beyond the limit of a file's size is to answer.
  ::signal(SIGXFSZ, SIG_IGN);
  doctest::Context context(count - 2, words + 2);
  const int result = context.run();
  std::printf("%ld checks\n", tarnfs::conformance::checks_made());
  return result;
}
