// The system calls that take a path, as a table: what holds for all of them is checked for each of them.
//
// Invariants: a call touches its path, kOrigin, "renamed" and "linked", nothing else.
//
// Thread safety, ownership: constants.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/conformance/ground.h"

namespace tarnfs::conformance {

// The other file of calls that take two paths; in the current directory, see make_origin().
inline constexpr const char* kOrigin = "origin";

// What a call does with the last component of its path.
enum class Last {
  kFinds,    // an existing file; a symlink is taken for itself
  kFollows,  // an existing file; a symlink is followed
  kMakes,    // a new name
};

// What it asks of the file.
enum class Asks { kAnything, kDirectory, kNoDirectory, kRegular, kSymlink };

struct PathCall {
  std::string name;
  Last last;
  bool changes;         // fails on a read-only file system
  bool changes_parent;  // needs the right to write in the directory
  Asks asks;
  std::function<long(const char*)> run;
};

const std::vector<PathCall>& path_calls();

// socket(2) and bind(2) to a path of fewer than 108 bytes.
long bind_to(const char* path);

// A regular file that everybody may read, write and link.
void make_origin();

void for_each_call(const std::function<bool(const PathCall&)>& wanted,
                   const std::function<void(const PathCall&)>& check);

inline bool any_call(const PathCall& /*call*/) {
  return true;
}
inline bool makes(const PathCall& call) {
  return call.last == Last::kMakes;
}
inline bool finds(const PathCall& call) {
  return call.last != Last::kMakes;
}
inline bool follows(const PathCall& call) {
  return call.last == Last::kFollows;
}

}  // namespace tarnfs::conformance
