// Every directory: its tree, its entries, and what they name.
#include <fmt/format.h>
#include <sys/stat.h>

#include <cstring>

#include "fs/check/check_state.h"
#include "fs/check/directory_checker.h"

namespace tarnfs::check {
namespace {

void check_directories_of(CheckState& state, const DirectoryBlock& block) {
  auto page = state.reader.read(Address{block.address});
  if (!page.ok()) {
    // It could be read a moment ago.
    state.log.error(ProblemKind::kUnreadable, std::nullopt, Address{block.address},
                    fmt::format("block {} of the inode file cannot be read: {}", block.index, page.error().describe()));
    state.trees_complete = false;
    state.names_complete = false;
    return;
  }
  for (std::size_t i = 0; i < kInodesPerBlock; ++i) {
    InodeRecord record;
    std::memcpy(static_cast<void*>(&record), page->data() + i * sizeof record, sizeof record);
    if (!S_ISDIR(record.mode)) continue;
    DirectoryChecker(state, block.index * kInodesPerBlock + i, record).run(Cp{block.birth_cp});
  }
}

}  // namespace

void check_directories(CheckState& state) {
  state.phase = "directories";
  for (const DirectoryBlock& block : state.directory_blocks) check_directories_of(state, block);
  state.reader.finish();
}

}  // namespace tarnfs::check
