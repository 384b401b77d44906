// What the passes of one check share, and the passes themselves, in the order in which they run.
//
// Thread safety: none.
// Ownership: check_volume() owns the state for the time of a check.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "common/block_device.h"
#include "common/format.h"
#include "fs/check/block_reader.h"
#include "fs/check/block_use.h"
#include "fs/check/checker.h"
#include "fs/check/inode_table.h"
#include "fs/check/share_check.h"
#include "fs/check/tree_walker.h"

namespace tarnfs::check {

// A block of the inode file that holds directories, for the second pass.
struct DirectoryBlock {
  std::uint64_t index = 0;
  std::uint64_t address = 0;
  std::uint64_t birth_cp = 0;
};

// An owner and its attribute inode.
struct AttributeLink {
  std::uint64_t attributes = 0;
  std::uint64_t owner = 0;
  auto operator<=>(const AttributeLink&) const = default;
};

struct CheckState {
  CheckState(BlockDevice& checked, CheckReport& result, const CheckOptions& options)
      : device(checked),
        report(result),
        root(result.root),
        size_blocks(result.superblock.size_blocks),
        log(result, options.problems_max),
        reader(checked, size_blocks, log,
               [this, &options](std::uint64_t blocks) {
                 if (options.progress) options.progress({phase, blocks, root.used_blocks});
               }),
        shares(log),
        walker(reader, used, shares, log, size_blocks, Cp{root.cp}) {}
  CheckState(const CheckState&) = delete;
  CheckState& operator=(const CheckState&) = delete;

  // Counts what a walk found; trees that are not whole make the free map's leaks unknowable.
  void count(const WalkedTree& tree) {
    report.counters.data_blocks += tree.data_blocks;
    report.counters.node_blocks += tree.node_blocks;
    trees_complete = trees_complete && tree.complete;
  }

  BlockDevice& device;
  CheckReport& report;
  const RootBlock& root;
  const std::uint64_t size_blocks;
  std::string_view phase;
  ProblemLog log;
  BlockUse used;
  BlockReader reader;
  ShareCheck shares;
  TreeWalker walker;

  InodeTable inodes;
  LostRanges lost_inodes;
  std::vector<DirectoryBlock> directory_blocks;
  std::vector<AttributeLink> attribute_claims;                         // what owners say
  std::vector<AttributeLink> attribute_inodes;                         // what attribute inodes say
  std::vector<std::pair<std::uint64_t, std::uint64_t>> found_parents;  // directories found elsewhere than they say
  std::vector<std::uint64_t> orphans;                                  // what the orphan file holds
  bool orphans_complete = true;
  bool trees_complete = true;  // every block that is in use is known
  bool names_complete = true;  // every entry of every directory is known
};

// Both superblocks and the ring of root blocks; fills in report.superblock and report.root. An error when there is no
// root to go on with.
Status check_roots(BlockDevice& device, CheckReport& report, ProblemLog& log);
// The fields of the newest root; called by check_roots().
void check_root_fields(const CheckReport& report, ProblemLog& log);

// Every inode, and the trees of all but directories.
void check_inodes(CheckState& state);
// The fields of one inode in use, apart from its tree. `number` is its place in the inode file.
void check_inode_fields(CheckState& state, std::uint64_t number, const InodeRecord& record);
// The content of the orphan file.
void check_orphan_file(CheckState& state, const InodeRecord& record, Cp birth_max);

// The content of the share map. Before any file.
void check_share_map(CheckState& state, const InodeRecord& record, Cp birth_max);

// The trees of directories and what stands in them.
void check_directories(CheckState& state);
// The links, parents, loops, orphans and attribute inodes that the passes before have counted.
void check_links(CheckState& state);
// The references to blocks against the share map, when all trees were walked.
void check_shares(CheckState& state);
// The journal's blocks and what stands in them. Before the free map.
void check_journal(CheckState& state);
// The free map against the blocks in use.
void check_free_map(CheckState& state);

}  // namespace tarnfs::check
