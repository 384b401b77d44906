// A volume on a simulated device, opened and reopened by tests.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "fs/check/checker.h"
#include "fs/engine/volume.h"
#include "fs/storage/format_volume.h"
#include "tests/support/memory_block_device.h"

namespace tarnfs::testing {

// Problems that the checker finds in the last published root; empty when clean.
inline std::string problems_of(BlockDevice& device) {
  const auto report = check_volume(device, CheckOptions{});
  if (!report.ok()) return report.error().describe();
  std::string text;
  for (const auto& problem : report->problems) text += problem.text + "\n";
  return text;
}

// All that a file of the root directory has, or why it cannot be read.
inline std::string content_of(Volume& volume, std::string_view name) {
  const auto found = volume.lookup(kRootDirectory, name);
  if (!found.ok()) return "error: " + found.error().describe();
  std::string text(found->size_bytes, '?');
  const auto count = volume.read(found->inode, 0, std::as_writable_bytes(std::span(text)));
  if (!count.ok()) return "error: " + count.error().describe();
  return text.substr(0, *count);
}

class TestVolume {
 public:
  explicit TestVolume(std::uint64_t size_blocks = 65536) : device(std::make_unique<MemoryBlockDevice>(size_blocks)) {
    options.cp_interval_ms = 0;
    TARNFS_ASSERT(format_volume(*device, FormatOptions{"test", {}, 0, 0}, system_clock()).ok());
    open();
  }

  void open() {
    auto opened = Volume::open(*device, options);
    if (!opened.ok()) std::fprintf(stderr, "open: %s\n", opened.error().describe().c_str());
    volume = std::move(opened).value();
  }
  // The first block behind the journal, where mkfs begins and the first consistency points go on.
  std::uint64_t first_block_behind_journal() {
    const Superblock superblock = volume->superblock();
    return superblock.journal_first + superblock.journal_blocks;
  }
  // Unmounts and mounts again.
  void reopen() {
    TARNFS_ASSERT(volume->close().ok());
    volume.reset();
    open();
  }
  // What a crash leaves: everything since the last published root is lost.
  void crash_and_reopen() {
    auto copy = device->clone();
    volume.reset();
    device = std::move(copy);
    open();
  }
  std::string problems() { return problems_of(*device); }

  InodeNumber make(InodeNumber parent, std::string_view name, std::uint32_t mode = 0100644) {
    NewNode node;
    node.mode = mode;
    auto made = volume->make_node(parent, name, node);
    if (!made.ok()) std::fprintf(stderr, "make %s: %s\n", std::string(name).c_str(), made.error().describe().c_str());
    return made.value().inode;
  }
  Status write(InodeNumber inode, std::uint64_t offset, std::string_view text) {
    return volume->write(inode, offset, std::as_bytes(std::span(text)), {});
  }
  std::string read(InodeNumber inode, std::uint64_t offset, std::size_t length) {
    std::string text(length, '?');
    const auto count = volume->read(inode, offset, std::as_writable_bytes(std::span(text)));
    if (!count.ok()) return "error: " + count.error().describe();
    text.resize(*count);
    return text;
  }

  VolumeOptions options;
  std::unique_ptr<MemoryBlockDevice> device;
  std::unique_ptr<Volume> volume;
};

}  // namespace tarnfs::testing
