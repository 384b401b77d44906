// The processes of daemons, found without asking them anything: a daemon that hangs holds nobody up.
//
// Thread safety: plain functions.
// Errors: none; a process that cannot be looked at is left out.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "common/descriptor.h"

namespace tarnfs {

struct DaemonProcess {
  std::string socket_path;
  pid_t pid = 0;       // as the kernel says; 0 when it is of another world
  Descriptor process;  // a pidfd: readable once the process is gone
};

// Who listens at `socket_path`, to which `socket` is connected.
DaemonProcess process_behind(const Descriptor& socket, const std::string& socket_path);
// Who listens at the sockets in `directory`, in the order of their names.
std::vector<DaemonProcess> daemon_processes(const std::string& directory);

// Whether the process has `path` open, which is canonical.
bool has_open(pid_t pid, const std::string& path);
// Whether it runs the program of this name, of at most 15 bytes.
bool is_program(pid_t pid, std::string_view program);
// A pidfd of the process of this program that has `path` open; none when there is no such process, or more than one.
Descriptor process_with_open_file(std::string_view program, const std::string& path);

}  // namespace tarnfs
