// Set-user-id and set-group-id, which go when somebody else changes a file.
//
// Purpose: with FUSE_HANDLE_KILLPRIV_V2 the kernel leaves to us what its own file systems do: before content is changed
// by a user without CAP_FSETID, and with a change of owner, S_ISUID goes, and S_ISGID too where the group may execute
// or the user is not in it (setattr_should_drop_suidgid() in Linux). Where the reply does not carry the mode, the
// kernel is told to ask for it again: else it would run the program with the old one.
//
// Thread safety: all functions may be called from any thread, by one thread at a time for each request.
// Errors: those of the FileSystem.
#pragma once

#include "fs/fuse/front_end.h"

namespace tarnfs {

// What is left of the mode when this caller changes the file.
std::uint32_t mode_without_privileges(fuse_req_t request, const Attributes& attributes);
// Before the caller changes content, of whom the kernel says that he may not keep them. May be done twice.
Status drop_privileges(fuse_req_t request, InodeNumber inode);
// The same for a request of which the kernel does not say it.
Status drop_privileges_unless_root(fuse_req_t request, InodeNumber inode);
// After the caller has set an access ACL: S_ISGID alone, where he is not in the group, as with chmod(2).
Status drop_group_privilege(fuse_req_t request, InodeNumber inode);

}  // namespace tarnfs
