// Who asks, for requests that make nothing.
//
// Purpose: where idmapped mounts are possible (FUSE_ALLOW_IDMAP) the kernel tells user and group only with requests
// that make an inode, which caller_of() is for. With the others it tells no more than the thread that waits for the
// answer: what it runs as stands in /proc.
//
// Invariants:
//   1. A caller of whom nothing can be found out, such as one that was killed or lives in another pid namespace, is not
//      root and in no group.
//
// Thread safety: all functions may be called from any thread, by one thread at a time for each request.
#pragma once

#include <sys/types.h>

#include "fs/fuse/front_end.h"

namespace tarnfs {

bool asks_as_root(fuse_req_t request);
// As its own or as a supplementary group.
bool asks_in_group(fuse_req_t request, gid_t group);

}  // namespace tarnfs
