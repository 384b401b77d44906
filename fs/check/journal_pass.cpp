// The journal: its blocks are in use, and what it has beyond the newest root can be read.
#include <fmt/format.h>

#include "fs/check/check_state.h"
#include "fs/check/journal_repair.h"
#include "fs/journal/journal_reader.h"

namespace tarnfs::check {
namespace {

class JournalCheck {
 public:
  explicit JournalCheck(CheckState& state)
      : state_(state),
        geometry_(journal_geometry_of(state.report.superblock, state.root)),
        reader_(state.device, geometry_, journal_start_of(state.root)) {}

  void run() {
    for (std::uint64_t block = 0; block < geometry_.size_blocks; ++block) {
      const Address address{geometry_.first.value + block};
      if (state_.used.add(address)) continue;
      state_.log.error(ProblemKind::kUsedTwice, std::nullopt, address,
                       fmt::format("block {} belongs to the journal, but a pointer leads to it", address.value));
    }
    if (geometry_.size_blocks == 0) return;
    if (state_.root.journal_block >= geometry_.size_blocks) {
      error("the root block's place in the journal is outside it");
      return;
    }
    if (read_batches()) check_end();
  }

 private:
  void error(const std::string& text) { state_.log.error(ProblemKind::kJournal, std::nullopt, geometry_.first, text); }

  bool read_batches() {
    while (true) {
      const auto batch = reader_.next();
      if (!batch.ok()) {
        error("the journal cannot be read: " + batch.error().describe());
        return false;
      }
      if (!*batch) return true;
      ++state_.report.counters.journal_batches;
      for (const JournalRecord& record : (*batch)->records) {
        if (record.cp <= Cp{state_.root.cp}) continue;
        ++state_.report.counters.journal_records;
        if (const auto* const inode = std::get_if<JournalInodeState>(&record.body)) check_placed(*inode);
      }
    }
  }

  // The pages that have blocks of their own.
  void check_placed(const JournalInodeState& inode) {
    for (const JournalPages& run : inode.pages) {
      if (run.in_batch()) continue;
      for (std::size_t i = 0; i < run.checksums.size(); ++i) {
        BlockPointer pointer;
        pointer.address = run.address.value + i;
        pointer.birth_cp = state_.root.cp;
        pointer.checksum = run.checksums[i];
        Status status = check_pointer(pointer, state_.size_blocks, Cp{state_.root.cp});
        if (const auto page = status.ok() ? read_block(state_.device, pointer) : status.error(); !page.ok()) {
          state_.log.error(ProblemKind::kJournal, inode.inode, Address{pointer.address},
                           "a page that the journal has of inode " + std::to_string(inode.inode.value) + ": " +
                               page.error().describe());
        }
      }
    }
  }

  void check_end() {
    const auto behind = reader_.block_behind_damage();
    if (!behind.ok()) return error("the journal cannot be read: " + behind.error().describe());
    if (*behind) {
      error(fmt::format("the journal is damaged at its block {}: what fsync promised after it cannot be read",
                        reader_.position().block));
    }
  }

  CheckState& state_;
  const JournalGeometry geometry_;
  JournalReader reader_;
};

}  // namespace

void check_journal(CheckState& state) {
  JournalCheck(state).run();
}

}  // namespace tarnfs::check

namespace tarnfs {

Result<bool> give_up_damaged_journal(BlockDevice& device) {
  TARNFS_ASSIGN(const Superblock superblock, read_superblock(device));
  TARNFS_ASSIGN(const RootBlock root, read_newest_root(device, superblock));
  const JournalGeometry geometry = journal_geometry_of(superblock, root);
  if (geometry.size_blocks == 0 || root.journal_block >= geometry.size_blocks) return false;
  JournalReader reader(device, geometry, journal_start_of(root));
  while (true) {
    TARNFS_ASSIGN(const auto batch, reader.next());
    if (!batch) break;
  }
  bool changed = false;
  const PageRef empty = PageRef::zeroed();
  while (true) {
    TARNFS_ASSIGN(const auto behind, reader.block_behind_damage());
    if (!behind) break;
    TARNFS_TRY(device.write(Address{geometry.first.value + *behind}, std::span(&empty, 1)));
    changed = true;
  }
  if (changed) TARNFS_TRY(device.flush());
  return changed;
}

}  // namespace tarnfs
