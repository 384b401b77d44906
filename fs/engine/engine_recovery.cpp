// What the journal has beyond the newest root is done again when the volume is opened.
//
// The newest root has all operations of its consistency point, and the journal's records say of which consistency point
// they are: those of later ones follow on that root, each exactly once and in their order. Names were checked when the
// operation was done; here they only must fit.
#include <sys/stat.h>

#include <algorithm>

#include "common/aligned_buffer.h"
#include "common/checksum.h"
#include "common/log.h"
#include "common/staging_place.h"
#include "fs/engine/engine.h"
#include "fs/engine/inode_directory_pages.h"
#include "fs/engine/inode_locks.h"
#include "fs/tree/directory.h"

namespace tarnfs {
namespace {

// A crash that tears the write of a root leaves this, and nothing is lost then. A root that was whole once and was
// damaged since leaves the same: its owner must hear of it.
void warn_of_damaged_slot_behind(const RootBlock& newest, BlockDevice& device, const Superblock& superblock) {
  const Address slot = root_slot_of(Cp{newest.cp + 1}, newest.size_blocks);
  const auto behind = read_root_slot(device, superblock, slot);
  if (behind.ok() || behind.error().code() != ErrorCode::kCorrupt) return;
  log_warning(device.name() + ": block " + std::to_string(slot.value) + ", where the state after cp " +
              std::to_string(newest.cp) + " would stand, is damaged; cp " + std::to_string(newest.cp) +
              " is taken. A crash while it was written does no harm; if there was none, what it had is lost, and " +
              "blocks of the older state may have been written over: run fsck.tarnfs, and compare with a mirror");
}

}  // namespace

Status Engine::recover() {
  const RootBlock root = newest_root();
  warn_of_damaged_slot_behind(root, device_, superblock_);
  const JournalGeometry geometry = journal_geometry_of(superblock_, root);
  const JournalPosition start = journal_start_of(root);
  if (Status loaded = load_share_map(); !loaded.ok()) {
    if (takes_changes()) return loaded;
    unwritable_ = loaded.error();  // who only reads needs no counts
  }
  load_orphans();
  if (!options_.replay_journal) {
    unwritable_ = Error(ErrorCode::kReadOnly, device_.name() + " was mounted without its journal; unmount it, and " +
                                                  "mount it without norecovery");
    return {};
  }
  if (geometry.size_blocks == 0) return {};
  if (start.block >= geometry.size_blocks) {
    return Error(ErrorCode::kCorrupt, device_.name() + ": the root block's place in the journal cannot be");
  }
  JournalReader reader(device_, geometry, start);
  while (true) {
    TARNFS_ASSIGN(const auto batch, reader.next());
    if (!batch) break;
    TARNFS_TRY(replay(*batch, Cp{root.cp}));
  }
  TARNFS_ASSIGN(const auto behind, reader.block_behind_damage());
  if (behind) {
    return Error(ErrorCode::kCorrupt, device_.name() + ": the journal is damaged at its block " +
                                          std::to_string(reader.position().block) +
                                          ": what fsync promised after it cannot be read; fsck.tarnfs -y gives it up");
  }
  journal_ = std::make_unique<JournalWriter>(device_, geometry, start, reader.position());
  if (!renumbered_.empty()) {
    log_warning(
        device_.name() + ": " + std::to_string(renumbered_.size()) +
        " inodes of the journal have got other numbers, because the inode file is damaged where they would stand");
  }
  if (replayed_records_ > 0) {
    log_info(device_.name() + ": " + std::to_string(replayed_records_) + " records of the journal were done again");
  }
  return {};
}

Status Engine::replay(const JournalBatchContent& batch, Cp newest) {
  std::span<const PageRef> pages(batch.pages);
  for (const JournalRecord& record : batch.records) {
    const auto* const state = std::get_if<JournalInodeState>(&record.body);
    std::size_t page_count = 0;
    if (state != nullptr) {
      for (const JournalPages& run : state->pages) page_count += run.in_batch() ? run.checksums.size() : 0;
    }
    const std::span<const PageRef> own_pages = pages.first(page_count);
    pages = pages.subspan(page_count);
    if (record.cp <= newest) continue;
    Status status = state != nullptr ? replay_state(record, *state, own_pages) : replay_names(record);
    if (!status.ok() && state != nullptr) {
      status = status.error().in("inode " + std::to_string(replayed(state->inode).value));
    }
    if (!status.ok() && status.error().code() != ErrorCode::kIo) {
      return Error(ErrorCode::kCorrupt, device_.name() + ": a record of the journal does not fit the volume (" +
                                            status.error().describe() + "); run fsck.tarnfs");
    }
    if (!status.ok()) return status.error();
    ++replayed_records_;
  }
  return {};
}

Status Engine::replay_names(const JournalRecord& record) {
  const std::uint64_t blocks = 2 * blocks_for_directory_change() + blocks_for_xattrs() + 4 * blocks_for_inode();
  return run(Intent::kReplay, blocks, [&](Operation& op) -> Status {
    op.set_now(record.time);
    if (const auto* make = std::get_if<JournalMake>(&record.body)) return replay_make(op, *make);
    if (const auto* link = std::get_if<JournalLink>(&record.body)) return replay_link(op, *link);
    if (const auto* remove = std::get_if<JournalRemove>(&record.body)) return replay_remove(op, *remove);
    return replay_rename(op, std::get<JournalRename>(record.body));
  });
}

// What a new inode is called: as in the journal or, where its place in the inode file cannot be read, by a number that
// nobody has. A later record may give that to another inode, which then gets another one as well. Changes nothing else:
// an operation may need a block here.
Result<InodeNumber> Engine::number_for_replay(Operation& op, InodeNumber number) {
  if (const auto found = renumbered_.find(number.value); found != renumbered_.end()) return found->second;
  if (!substitutes_.contains(number.value)) {
    const std::uint64_t page = number.value / kInodesPerBlock;
    TARNFS_ASSIGN(const std::uint64_t readable, readable_inode_page(op, page));
    if (readable == page) {
      note_inode_in_use(number);
      return number;
    }
  }
  note_inode_in_use(number);
  TARNFS_ASSIGN(const InodeNumber substitute, take_inode_number(op));
  substitutes_.insert(substitute.value);
  renumbered_.emplace(number.value, substitute);
  return substitute;
}

// The inode that the journal means.
InodeNumber Engine::replayed(InodeNumber number) const {
  const auto found = renumbered_.find(number.value);
  return found != renumbered_.end() ? found->second : number;
}

Status Engine::replay_make(Operation& op, const JournalMake& make) {
  if (make.inode < kFirstFreeInode || make.attributes.mode == 0)
    return Error(ErrorCode::kInvalid, "an inode that cannot be");
  TARNFS_ASSIGN(const InodePtr directory, get_directory(op, replayed(make.parent)));
  NodeDraft draft;
  apply_journal_attributes(make.attributes, draft.record);
  if (!make.xattrs.empty()) {
    if (make.attribute_inode < kFirstFreeInode) return Error(ErrorCode::kInvalid, "attributes that cannot be");
    TARNFS_ASSIGN(draft.xattrs, XattrSet::parse(make.xattrs));
    TARNFS_ASSIGN(draft.attribute_inode, number_for_replay(op, make.attribute_inode));
  }
  NewNode node;
  node.mode = make.attributes.mode;
  node.symlink_target = make.symlink_target;
  draft.set_symlink_target(make.symlink_target);
  TARNFS_ASSIGN(const InodeNumber number, number_for_replay(op, make.inode));
  if (make.name.empty()) {
    make_drafted(op, draft, node, number);
    add_orphan(number);
    return {};
  }
  draft.record.link_count = S_ISDIR(node.mode) ? 2 : 1;
  draft.record.parent = S_ISDIR(node.mode) ? directory->number.value : 0;
  WriteLock lock(directory->mutex);
  const auto made = make_locked(op, *directory, make.name, node, draft, number);
  return made.ok() ? Status() : made.error();
}

Status Engine::replay_link(Operation& op, const JournalLink& link) TARNFS_NO_THREAD_SAFETY_ANALYSIS {
  TARNFS_ASSIGN(const InodePtr directory, get_directory(op, replayed(link.parent)));
  TARNFS_ASSIGN(const InodePtr inode, get_inode(op, replayed(link.inode)));
  const InodeLocks locks({directory, inode});
  return link_locked(op, *directory, *inode, link.name);
}

Status Engine::replay_remove(Operation& op, const JournalRemove& remove) TARNFS_NO_THREAD_SAFETY_ANALYSIS {
  TARNFS_ASSIGN(const InodePtr directory, get_directory(op, replayed(remove.parent)));
  TARNFS_ASSIGN(const InodePtr inode, get_inode(op, replayed(remove.inode)));
  const InodeLocks locks({directory, inode});
  return remove_locked(op, *directory, *inode, remove.name);
}

Status Engine::replay_rename(Operation& op, const JournalRename& rename) TARNFS_NO_THREAD_SAFETY_ANALYSIS {
  RenameParties parties;
  parties.from_name = rename.from_name;
  parties.to_name = rename.to_name;
  TARNFS_ASSIGN(parties.from, get_directory(op, replayed(rename.from)));
  TARNFS_ASSIGN(parties.to, get_directory(op, replayed(rename.to)));
  TARNFS_ASSIGN(parties.source, get_inode(op, replayed(rename.source)));
  if (rename.target != InodeNumber{}) {
    TARNFS_ASSIGN(parties.target, get_inode(op, replayed(rename.target)));
  }
  if (rename.exchange && parties.target == nullptr) return Error(ErrorCode::kInvalid, "an exchange with nothing");
  const InodeLocks locks({parties.from, parties.to, parties.source, parties.target});
  return rename.exchange ? exchange_locked(op, parties) : replace_locked(op, parties);
}

Status Engine::replay_state(const JournalRecord& record, const JournalInodeState& state,
                            std::span<const PageRef> pages) {
  std::uint64_t blocks = blocks_for_inode() + blocks_for_xattrs() + state.cut.size() * blocks_for_cut();
  for (const JournalPageRange& range : state.reserved) {
    if (range.end_page > kFileSizeMaxBytes / kBlockSize || range.first_page >= range.end_page) {
      return Error(ErrorCode::kInvalid, "a range of pages that cannot be");
    }
    blocks += reserve_blocks_max(range.end_page - range.first_page);
  }
  for (const JournalPages& run : state.pages) {
    if (run.first_page > kFileSizeMaxBytes / kBlockSize) return Error(ErrorCode::kInvalid, "a page that cannot be");
    blocks += blocks_for_pages(run.first_page, run.checksums.size());
  }
  std::vector<PageRef> all_pages;
  std::size_t next_own = 0;
  for (const JournalPages& run : state.pages) {
    if (!run.in_batch()) {
      TARNFS_TRY(load_placed(run, all_pages));
      continue;
    }
    for (std::size_t i = 0; i < run.checksums.size(); ++i) all_pages.push_back(pages[next_own++]);
  }
  return run(Intent::kReplay, blocks, [&](Operation& op) -> Status {
    op.set_now(record.time);
    TARNFS_ASSIGN(const InodePtr inode, get_inode(op, replayed(state.inode)));
    WriteLock lock(inode->mutex);
    if ((inode->record.mode & S_IFMT) != (state.attributes.mode & S_IFMT)) {
      return Error(ErrorCode::kInvalid, "an inode of another type");
    }
    TARNFS_TRY(read_reserved(op, *inode, state.reserved));
    if (state.xattrs) {
      XattrSet set;
      InodeNumber attributes;  // of those that it has already the number does not change
      if (!state.xattrs->empty()) {
        TARNFS_ASSIGN(set, XattrSet::parse(*state.xattrs));
        if (state.attribute_inode < kFirstFreeInode) return Error(ErrorCode::kInvalid, "attributes that cannot be");
        note_inode_in_use(state.attribute_inode);
        if (inode->record.xattr_inode == 0) {
          TARNFS_ASSIGN(attributes, number_for_replay(op, state.attribute_inode));
        }
      }
      TARNFS_TRY(store_xattrs(op, *inode, set, attributes));
    }
    begin_change(op, *inode);
    for (const JournalPageRange& range : state.cut) cut_pages(op, *inode, range.first_page, range.end_page);
    TARNFS_TRY(replay_reserved(op, *inode, state.reserved));
    std::size_t next = 0;
    for (const JournalPages& run : state.pages) {
      for (std::uint64_t i = 0; i < run.checksums.size(); ++i) {
        put_page(op, *inode, run.first_page + i, all_pages[next++]);
      }
    }
    count_protected(inode->record.flags, state.attributes.flags);
    apply_journal_attributes(state.attributes, inode->record);
    return {};
  });
}

// The pages of a run that has blocks of its own. No new block may take their place before a root makes the journal
// superfluous: recovery may be cut off, and begin again.
Status Engine::load_placed(const JournalPages& run, std::vector<PageRef>& pages) {
  constexpr std::size_t kBlocksAtOnce = 256;
  const std::size_t count = run.checksums.size();
  const auto pointer_of = [&](std::size_t i) {
    BlockPointer pointer;
    pointer.address = run.address.value + i;
    pointer.birth_cp = open_generation_;
    pointer.checksum = run.checksums[i];
    return pointer;
  };
  if (count == 0) return {};
  TARNFS_TRY(check_pointer(pointer_of(0), size_blocks_.load(), Cp{open_generation_}));
  TARNFS_TRY(check_pointer(pointer_of(count - 1), size_blocks_.load(), Cp{open_generation_}));
  AlignedBuffer buffer(std::min(count, kBlocksAtOnce));
  for (std::size_t done = 0; done < count;) {
    const auto bytes = buffer.first(std::min(count - done, buffer.size_blocks()));
    TARNFS_TRY(device_.read(Address{run.address.value + done}, bytes));
    for (std::size_t offset = 0; offset < bytes.size(); offset += kBlockSize, ++done) {
      const auto block = bytes.subspan(offset, kBlockSize);
      if (checksum_of(block) == run.checksums[done]) {
        pages.push_back(PageRef::copy_of(block));
        continue;
      }
      TARNFS_ASSIGN(PageRef page, read_block(device_, pointer_of(done)));  // says what is wrong
      pages.push_back(std::move(page));
    }
  }
  Status set_aside = set_aside_again(run);
  if (set_aside.ok() || takes_changes()) return set_aside;
  unwritable_ = set_aside.error();  // who only reads needs no free map
  return {};
}

Status Engine::set_aside_again(const JournalPages& run) {
  std::uint64_t set_aside = 0;
  for (std::size_t i = 0; i < run.checksums.size(); ++i) {
    const Address address{run.address.value + i};
    TARNFS_ASSIGN(const bool reserved, free_map_->reserve_at(address));
    if (!reserved) continue;
    ++set_aside;
    MutexLock lock(superseded_mutex_);
    superseded_.emplace_back(open_generation_, address);
  }
  ledger_->take(set_aside);
  promised_blocks_[open_generation_ & 1].fetch_add(static_cast<std::int64_t>(set_aside));
  return {};
}

}  // namespace tarnfs
