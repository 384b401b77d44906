// Named points at which a test ends the process as kill -9 would. PROTOCOL.md says for each what happens then.
//
// Purpose: TARNFS_FAILPOINT("name") marks a point. Nothing of it is in a program that is released: the macro is empty
// unless TARNFS_FAILPOINTS is defined, which only the programs of tests/failpoint_tests.cmake are compiled with, and
// reach_failpoint() is defined in tests/support alone.
//
// Thread safety: any thread.
#pragma once

#ifdef TARNFS_FAILPOINTS

namespace tarnfs {

void reach_failpoint(const char* name);

}  // namespace tarnfs

#define TARNFS_FAILPOINT(name) ::tarnfs::reach_failpoint(name)

#else

#define TARNFS_FAILPOINT(name) static_cast<void>(0)

#endif
