// How far the kernel reads ahead on a mount.
//
// Purpose: by default 128 KiB, also where one READ takes a MiB: a stream then pays for eight requests instead of one.
// libfuse can only lower the figure, but the kernel's backing device of the mount takes another.
//
// Thread safety: plain functions.
// Errors: none; who may not write there has what the kernel gives.
#pragma once

#include <string>

namespace tarnfs {

// For root, once somebody serves the mount: sends one request to it, unless INIT is known to be answered.
// `on_block_device`: the mount is of the fuseblk kind.
void set_read_ahead(const std::string& mountpoint, unsigned bytes, bool on_block_device, bool init_is_answered);

}  // namespace tarnfs
