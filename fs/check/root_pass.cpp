// The superblock's two copies and the ring of root blocks.
#include <fmt/format.h>
#include <sys/stat.h>

#include <map>
#include <optional>

#include "common/staging_place.h"
#include "fs/check/check_state.h"

namespace tarnfs::check {
namespace {

Result<Superblock> read_copy(BlockDevice& device, Address address) {
  PageRef page = PageRef::uninitialised();
  TARNFS_TRY(device.read(address, page.mutable_bytes()));
  return check_superblock(page.bytes());
}

// The front copy, or the one at the end of the image; then the other one, where the size says that it is.
Result<Superblock> check_superblocks(BlockDevice& device, ProblemLog& log) {
  TARNFS_ASSIGN(const Superblock superblock, read_superblock(device));
  const Address last{superblock.size_blocks - 1};
  for (const Address address : {Address{0}, last}) {
    auto copy = read_copy(device, address);
    if (!copy.ok()) {
      log.warning(
          ProblemKind::kSuperblock, std::nullopt, address,
          fmt::format("the copy of the superblock at block {} is damaged: {}", address.value, copy.error().describe()));
    } else if (copy->checksum != superblock.checksum) {
      log.error(ProblemKind::kSuperblock, std::nullopt, address,
                fmt::format("the copy of the superblock at block {} differs from the one in use", address.value));
    }
  }
  return superblock;
}

void check_chain(const std::map<std::uint64_t, RootBlock>& roots, ProblemLog& log) {
  for (const auto& [cp, root] : roots) {
    const auto previous = roots.find(cp - 1);
    if (previous == roots.end() || previous->second.epoch != root.epoch) continue;
    if (root.previous_checksum == previous->second.checksum) continue;
    log.warning(ProblemKind::kRootRing, std::nullopt, std::nullopt,
                fmt::format("the root of cp {} does not name the root of cp {} as the one before it", cp, cp - 1));
  }
}

void check_tree_record(const InodeRecord& record, const std::string& name, ProblemLog& log) {
  if (record.mode == (S_IFREG | 0600U) && record.number == 0 && record.layout == 0) return;
  log.error(ProblemKind::kRoot, std::nullopt, std::nullopt,
            fmt::format("the root block's inode of {} has mode {:o}, number {} and layout {}", name, record.mode,
                        record.number, record.layout));
}

}  // namespace

void check_root_fields(const CheckReport& report, ProblemLog& log) {
  const RootBlock& root = report.root;
  const auto error = [&](std::string text) {
    log.error(ProblemKind::kRoot, std::nullopt, root_slot_of(Cp{root.cp}, report.superblock.size_blocks),
              "root block: " + std::move(text));
  };
  if (root.reserve_blocks > root.size_blocks - root.used_blocks) {
    error(fmt::format("it keeps {} blocks for inodes, more than are free", root.reserve_blocks));
  }
  if (root.time_nanoseconds >= 1000000000U) error(fmt::format("its time has {} nanoseconds", root.time_nanoseconds));
  for (std::uint32_t i = 0; i < root.history_count; ++i) {
    const std::uint64_t last_cp = root.history[i].last_cp;
    if (last_cp >= root.cp || (i > 0 && last_cp < root.history[i - 1].last_cp)) {
      error(fmt::format("epoch {} of its history ends at cp {}, out of order", i, last_cp));
    }
  }
  check_tree_record(root.inode_file, "the inode file", log);
  check_tree_record(root.free_map, "the free map", log);
}

Status check_roots(BlockDevice& device, CheckReport& report, ProblemLog& log) {
  TARNFS_ASSIGN(report.superblock, check_superblocks(device, log));
  std::map<std::uint64_t, RootBlock> roots;
  for (std::uint64_t i = 0; i < kRootSlots; ++i) {
    const Address slot = root_slot_of(Cp{i}, report.superblock.size_blocks);
    const auto root = read_root_slot(device, report.superblock, slot);
    if (!root.ok()) {
      log.warning(ProblemKind::kRootRing, std::nullopt, slot,
                  fmt::format("root slot at block {} is not valid: {}", slot.value, root.error().describe()));
    } else if (root->has_value()) {
      roots[(*root)->cp] = **root;
    }
  }
  TARNFS_ASSIGN(report.root, read_newest_root(device, report.superblock));
  if (report.root.size_blocks != report.superblock.size_blocks) {
    log.warning(ProblemKind::kSuperblock, std::nullopt, Address{0},
                fmt::format("a growth from {} to {} blocks was cut off; the next mount finishes it",
                            report.superblock.size_blocks, report.root.size_blocks));
    report.superblock = grown(report.superblock, report.root.size_blocks);
  }
  check_chain(roots, log);
  check_root_fields(report, log);
  return {};
}

}  // namespace tarnfs::check
