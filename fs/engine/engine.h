// The engine: a volume's operations in memory, and its consistency points.
//
// Purpose: the implementation of Volume. Operations stand in engine_names.cpp, engine_attributes.cpp, engine_data.cpp,
// engine_reserve.cpp, engine_copy.cpp, engine_xattrs.cpp and engine_listing.cpp; engine_journal.cpp makes changes
// durable for fsync, engine_recovery.cpp does them again after a crash; consistency_point.cpp writes what operations
// changed; engine_mirror.cpp is what replication and a mirror's read-only mount need.
//
// Invariants:
//   1. An operation changes memory only, inside the gate, under the locks of the inodes it touches, and has had the
//      blocks promised that its changes need at the next consistency point.
//   2. No inode lock and no gate is held while a disk or a network is waited for.
//   3. One consistency point runs at a time, on its own thread. What it publishes is the state at one moment: when it
//      closed the gate.
//   4. After a failed write or flush no root is published, and nothing is changed any more. After shut_down() nothing
//      is read or written either.
//   5. An operation's generation is the number of the consistency point that will have it.
//
// Thread safety: all public functions may be called from any thread. Lock order: LOCKS.md.
// Ownership: owns caches and threads; device, clock and feed belong to the caller and outlive it.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "common/histogram.h"
#include "common/mutex.h"
#include "common/wait_estimate.h"
#include "fs/engine/block_writer.h"
#include "fs/engine/coming_space.h"
#include "fs/engine/generation_gate.h"
#include "fs/engine/group_commit.h"
#include "fs/engine/inode.h"
#include "fs/engine/inode_cache.h"
#include "fs/engine/lookup_counts.h"
#include "fs/engine/operation.h"
#include "fs/engine/pin_table.h"
#include "fs/engine/space_ledger.h"
#include "fs/engine/space_loan.h"
#include "fs/engine/volume.h"
#include "fs/engine/waiting.h"
#include "fs/engine/xattr_set.h"
#include "fs/journal/journal_reader.h"
#include "fs/journal/journal_writer.h"
#include "fs/journal/name_log.h"
#include "fs/storage/block_cache.h"
#include "fs/tree/directory_node.h"
#include "fs/tree/free_map.h"
#include "fs/tree/share_map.h"

namespace tarnfs {

class InodeDirectoryPages;

class Engine final : public Volume {
 public:
  Engine(BlockDevice& device, const VolumeOptions& options, const Superblock& superblock, const RootBlock& root);
  ~Engine() override;

  // Does again what the journal has beyond the root. Before start().
  Status recover();
  // Starts the threads of a read-write volume, and takes a consistency point of what was recovered.
  Status start();

  // FileSystem.
  Result<Attributes> lookup(InodeNumber parent, std::string_view name) override;
  Result<Attributes> make_node(InodeNumber parent, std::string_view name, const NewNode& node) override;
  Result<Attributes> make_unnamed(InodeNumber parent, const NewNode& node) override;
  Result<Attributes> link(InodeNumber inode, InodeNumber parent, std::string_view name) override;
  Status unlink(InodeNumber parent, std::string_view name) override;
  Status remove_directory(InodeNumber parent, std::string_view name) override;
  Status rename(InodeNumber from, std::string_view from_name, InodeNumber to, std::string_view to_name,
                RenameMode mode) override;
  Status rename_leaving(InodeNumber from, std::string_view from_name, InodeNumber to, std::string_view to_name,
                        RenameMode mode, const NewNode& left) override;
  void forget(InodeNumber inode, std::uint64_t count) override;
  Result<Attributes> attributes(InodeNumber inode) override;
  Result<Attributes> change_attributes(InodeNumber inode, const AttributeChanges& changes) override;
  Result<std::string> symlink_target(InodeNumber inode) override;
  Result<std::string> xattr(InodeNumber inode, std::string_view name) override;
  Result<std::vector<std::string>> xattr_names(InodeNumber inode) override;
  Status set_xattr(InodeNumber inode, std::string_view name, std::span<const std::byte> value, XattrMode mode) override;
  Status remove_xattr(InodeNumber inode, std::string_view name) override;
  Result<std::size_t> read(InodeNumber inode, std::uint64_t offset_bytes, std::span<std::byte> out,
                           ReadOptions options = {}) override;
  Status write(InodeNumber inode, std::uint64_t offset_bytes, std::span<const std::byte> data,
               WriteOptions options) override;
  Status fallocate(InodeNumber inode, std::uint64_t offset_bytes, std::uint64_t length_bytes,
                   FallocateOptions options) override;
  Result<std::uint64_t> seek(InodeNumber inode, std::uint64_t offset_bytes, SeekKind kind) override;
  Result<std::uint64_t> copy_range(InodeNumber from, std::uint64_t from_offset_bytes, InodeNumber to,
                                   std::uint64_t to_offset_bytes, std::uint64_t length_bytes) override;
  Status list(InodeNumber directory, std::uint64_t cookie,
              const std::function<bool(const DirectoryEntry&)>& visit) override;
  Result<Attributes> attributes_with_lookup(InodeNumber inode) override;
  FileSystemUsage usage() override;
  Status settle_usage() override;
  bool takes_changes() const override { return mode_ == VolumeMode::kReadWrite; }
  bool read_only() const override { return !takes_changes() || stopped_; }
  std::uint64_t view() const override { return view_.load(); }
  Status fsync(InodeNumber inode, bool data_only) override;
  Result<Cp> consistency_point() override;
  Result<std::uint64_t> trim(const TrimRange& range) override;
  Result<std::uint64_t> resize(std::uint64_t size_bytes) override;
  Status shut_down() override;

  // ReplicationSource.
  Superblock superblock() const override;
  RootBlock newest_root() const override;
  std::optional<std::uint64_t> root_checksum(Cp cp) override;
  PinnedRoot pin_newest_root() override;
  PinId pin_root(Cp cp) override;
  void move_pin(PinId pin, Cp cp) override;
  void unpin(PinId pin) override;
  std::uint64_t held_bytes(PinId pin) override;
  Status walk_changed(const RootBlock& root, Cp since, const std::function<Status(const BlockWrite&)>& visit) override;
  Status list_changed(const RootBlock& root, Cp since,
                      const std::function<Status(const BlockPointer&)>& visit) override;
  Result<BlockWrite> read_listed(const RootBlock& root, const BlockPointer& block) override;

  // MirrorTarget.
  Status adopt(const RootBlock& root) override;
  Result<bool> in_use(Address address) override;
  Result<bool> in_use_by(const RootBlock& root, Address address) override;

  // Volume.
  Status make_writable() override;
  void set_access_times(bool on) override { access_times_ = on; }
  void set_changes(Changes changes) override TARNFS_EXCLUDES(cp_mutex_);
  void leave_times_to_kernel() override { kernel_keeps_times_ = true; }
  Status close() override;
  VolumeStatus status() override;
  void set_view_listener(ViewListener* listener) override { view_listener_ = listener; }

 private:
  friend class ConsistencyPoint;
  friend class InodeDirectoryPages;

  enum class Intent {
    kRead,
    kChange,        // needs space, waits while too much is dirty
    kWrite,         // a change of content: waits earlier, so that a stream of writes leaves room for the others
    kAccepted,      // a write that the kernel said yes to: may use the reserve for such
    kReserved,      // a write that takes nothing but what was kept for it, and may use the deletion reserve for copies
    kRename,        // may use most of the deletion reserve
    kDeletion,      // a change that gives space back: may use the deletion reserve
    kReclaim,       // a deletion that follows from one that was taken: no policy keeps it back
    kOptional,      // a change that is left out when there is no space or too much is dirty
    kReplay,        // a change of before a crash: was promised its space then
    kHousekeeping,  // a deletion on the consistency point's thread, which must not wait for itself
  };
  static bool waits(Intent intent) {
    return intent == Intent::kChange || changes_content(intent) || intent == Intent::kRename ||
           intent == Intent::kDeletion || intent == Intent::kReclaim;
  }
  static bool changes_content(Intent intent) {
    return intent == Intent::kWrite || intent == Intent::kAccepted || intent == Intent::kReserved;
  }
  static SpaceClaim claim_of(Intent intent) {
    if (intent == Intent::kAccepted) return SpaceClaim::kAccepted;
    if (intent == Intent::kRename) return SpaceClaim::kRename;
    const bool leaves_little = intent == Intent::kDeletion || intent == Intent::kReclaim ||
                               intent == Intent::kHousekeeping || intent == Intent::kReserved;
    return leaves_little ? SpaceClaim::kDeletion : SpaceClaim::kOrdinary;
  }
  // Where a page of a file is: in memory, in a block, or (both empty) nowhere: a hole.
  struct PagePlace {
    PageRef page;
    BlockPointer pointer;
  };
  // A directory entry that is looked at, with the inode it names.
  struct NamedInode {
    InodePtr inode;
    std::uint32_t type = 0;
  };

  // What stays from one run of an operation to the next.
  struct Attempt {
    HeldBlocks held;
    BlockPointer missing;  // what the last run needed
    bool missing_is_dispensable = false;
    BlockPointer failed;  // the block that could not be loaded before
  };
  // What a new inode starts with.
  struct NodeDraft {
    InodeRecord record;
    XattrSet xattrs;
    InodeNumber attribute_inode;  // where there are any
    void set_symlink_target(std::string_view target);
  };

  // Runs `body(Operation&)` until it needs no more block, with `blocks_max` blocks promised. The heart of the engine;
  // see operation.h.
  template <class Body>
  auto run(Intent intent, std::uint64_t blocks_max, Body&& body) -> decltype(body(std::declval<Operation&>()));
  // How long an operation has waited for consistency points: noted when it is done, however that was.
  struct WaitNote {
    explicit WaitNote(Histogram& all) : histogram(all) {}
    ~WaitNote() { histogram.add(waited_ns); }
    WaitNote(const WaitNote&) = delete;
    WaitNote& operator=(const WaitNote&) = delete;
    Histogram& histogram;
    std::uint64_t waited_ns = 0;
  };
  Status before_change(Intent intent, WaitNote& wait) TARNFS_EXCLUDES(cp_mutex_);
  Status obey_policy(Intent intent) TARNFS_EXCLUDES(cp_mutex_);
  Status wait_for_writes(Intent intent, std::int64_t wait_bytes, WaitNote& wait) TARNFS_EXCLUDES(cp_mutex_);
  std::int64_t dirty_bytes() const;
  std::int64_t unwritten_bytes() const;
  bool much_is_promised() const;
  void wake_dirty_waiters() TARNFS_EXCLUDES(cp_mutex_);
  Status load_missing(Attempt& attempt, std::uint64_t view);
  bool set_reserves(bool shares, bool must) TARNFS_EXCLUDES(reserves_mutex_);
  void settle(const Operation& op);

  // Space (engine_space.cpp).
  struct SpaceAttempts {
    unsigned count = 0;
    std::uint64_t orphans_blocks = 0;  // at the last one
    std::uint64_t cp = 0;              // the newest one then
  };
  void warn_of_pins_given_up(std::uint64_t now_ns);
  void lose_all_pins(std::uint64_t now_ns);
  bool make_space(SpaceAttempts& attempts, std::uint64_t blocks, SpaceClaim claim, WaitNote& wait)
      TARNFS_EXCLUDES(cp_mutex_);
  std::uint64_t orphans_blocks_left() TARNFS_EXCLUDES(usage_mutex_);
  static std::uint64_t written_blocks_min(const Inode& inode) TARNFS_REQUIRES_SHARED(inode.mutex);
  static std::uint64_t blocks_left_of_orphan(const Inode& inode) TARNFS_REQUIRES_SHARED(inode.mutex);
  void count_freed(const Operation& op, Inode& inode, std::uint64_t first_page, std::uint64_t promised_blocks)
      TARNFS_REQUIRES(inode.mutex) TARNFS_EXCLUDES(usage_mutex_);

  // Inodes (engine_inodes.cpp).
  std::optional<TreeRoot> newest_inode_file() const;  // nothing: a mirror that has no state yet
  Result<InodePtr> get_inode(Operation& op, InodeNumber number);
  Result<InodePtr> get_any_inode(Operation& op, InodeNumber number);
  Result<InodePtr> get_directory(Operation& op, InodeNumber number);
  Result<std::uint64_t> readable_inode_page(Operation& op, std::uint64_t page);
  Result<InodeNumber> take_inode_number(Operation& op);
  void begin_change(Operation& op, Inode& inode) TARNFS_REQUIRES(inode.mutex);
  void put_page(Operation& op, Inode& inode, std::uint64_t index, PageRef page, bool is_reserved = false)
      TARNFS_REQUIRES(inode.mutex);
  void edit_page(Operation& op, Inode& directory, std::uint64_t index, PageRef page, const BlockPointer& block,
                 const LeafEdit& edit) TARNFS_REQUIRES(directory.mutex);
  void cut_pages(Operation& op, Inode& inode, std::uint64_t first, std::uint64_t end) TARNFS_REQUIRES(inode.mutex);
  void charge_path(Operation& op, const Inode& inode, std::uint64_t index) TARNFS_REQUIRES(inode.mutex);
  static void drop_shared(Operation& op, Inode& inode, std::uint64_t first, std::uint64_t end)
      TARNFS_REQUIRES(inode.mutex);
  static std::optional<PagePlace> find_changed_page(const Inode& inode, std::uint64_t index)
      TARNFS_REQUIRES_SHARED(inode.mutex);
  Result<PagePlace> find_page(Operation& op, const Inode& inode, std::uint64_t index)
      TARNFS_REQUIRES_SHARED(inode.mutex);
  Result<PageRef> page_in_memory(Operation& op, const Inode& inode, std::uint64_t index)
      TARNFS_REQUIRES_SHARED(inode.mutex);
  Result<std::string> content_of(Operation& op, const Inode& inode) TARNFS_REQUIRES_SHARED(inode.mutex);
  static std::uint64_t block_count_of(const Inode& inode) TARNFS_REQUIRES_SHARED(inode.mutex);
  Attributes attributes_of(const Inode& inode) const TARNFS_REQUIRES_SHARED(inode.mutex);
  static bool may_be_named(const Inode& inode);
  void count_protected(std::uint32_t flags_before, std::uint32_t flags_after);
  static unsigned height_above(const Inode& inode, std::uint64_t index) TARNFS_REQUIRES_SHARED(inode.mutex);
  std::uint64_t blocks_for_inode() const;
  static constexpr std::uint64_t blocks_for_cut() { return std::uint64_t{2} * (kTreeHeightMax + 2U); }
  // Attribute inode, its pages and nodes: what a node with an inherited ACL needs.
  static constexpr std::uint64_t kBlocksForInheritedAcl = 64;
  std::uint64_t blocks_for_directory_change() const;
  static void touch_changed(Operation& op, Inode& inode, bool modified) TARNFS_REQUIRES(inode.mutex);
  void touch_written(Operation& op, Inode& inode) const TARNFS_REQUIRES(inode.mutex);
  static void set_size(Inode& inode, std::uint64_t size_bytes) TARNFS_REQUIRES(inode.mutex);

  // Names (engine_names.cpp).
  Result<NamedInode> find_named(Operation& op, const InodePtr& parent, std::string_view name);
  Result<NodeDraft> draft_node(Operation& op, const Inode& parent, const NewNode& node)
      TARNFS_REQUIRES_SHARED(parent.mutex);
  Result<InodeNumber> take_numbers(Operation& op, NodeDraft& draft);
  Result<InodePtr> make_locked(Operation& op, Inode& directory, std::string_view name, const NewNode& node,
                               const NodeDraft& draft, InodeNumber number) TARNFS_REQUIRES(directory.mutex);
  Status link_locked(Operation& op, Inode& directory, Inode& inode, std::string_view name)
      TARNFS_REQUIRES(directory.mutex, inode.mutex);
  Status remove_locked(Operation& op, Inode& directory, Inode& inode, std::string_view name)
      TARNFS_REQUIRES(directory.mutex, inode.mutex);
  void commit_removal(Operation& op, Inode& directory, Inode& inode, InodeDirectoryPages& pages, std::string_view name)
      TARNFS_REQUIRES(directory.mutex, inode.mutex);
  InodePtr make_drafted(Operation& op, const NodeDraft& draft, const NewNode& node, InodeNumber number);
  void drop_link(Operation& op, Inode& inode) TARNFS_REQUIRES(inode.mutex);
  static Status check_removable(const Inode& parent, const Inode& inode, bool directory)
      TARNFS_REQUIRES(parent.mutex, inode.mutex);
  Status remove_name(InodeNumber parent, std::string_view name, bool directory);
  struct RenameParties {
    InodePtr from;
    InodePtr to;
    std::string_view from_name;
    std::string_view to_name;
    InodePtr source;
    InodePtr target;  // null: the new name is free
  };
  Result<RenameParties> find_parties(Operation& op, InodeNumber from, std::string_view from_name, InodeNumber to,
                                     std::string_view to_name);
  static Status check_rename(const RenameParties& parties, RenameMode mode);
  // What a rename makes under the old name.
  struct LeftNode {
    const NewNode& node;
    NodeDraft draft;
    InodeNumber number;
  };
  Status replace_locked(Operation& op, const RenameParties& parties, const LeftNode* left = nullptr);
  Status replace_leaving(Operation& op, const RenameParties& parties, const NewNode& node);
  Status rename_or_leave(InodeNumber from, std::string_view from_name, InodeNumber to, std::string_view to_name,
                         RenameMode mode, const NewNode* left);
  Status exchange_locked(Operation& op, const RenameParties& parties);
  void move_directory(Inode& directory, Inode& from, Inode& to);
  Result<bool> is_ancestor(Operation& op, InodeNumber ancestor, InodeNumber directory);

  // Data (engine_data.cpp).
  struct ReadPlan;
  Result<ReadPlan> plan_read(Operation& op, InodeNumber number, std::uint64_t offset_bytes, std::span<std::byte> out);
  Status read_blocks(const ReadPlan& plan, std::uint64_t offset_bytes, std::span<std::byte> out);
  Status read_and_verify(const ReadPlan& plan, std::uint64_t offset_bytes, std::span<std::byte> out);
  bool notes_access(const InodeRecord& record, Timestamp now) const;
  void touch_accessed(InodeNumber number);
  // What an operation has been promised besides the least.
  struct AttributeSpace {
    bool for_acl = false;   // for writing an ACL anew
    bool for_good = false;  // for a block that stays
  };
  // Notes in `space` what is missing, and returns nothing and has changed nothing then.
  Result<std::optional<Attributes>> change_attributes_in_memory(Operation& op, InodeNumber number,
                                                                const AttributeChanges& changes, AttributeSpace& space);
  bool cut_takes_block(const Inode& inode, const AttributeChanges& changes) const TARNFS_REQUIRES_SHARED(inode.mutex);
  Status write_in_memory(Operation& op, InodeNumber number, std::uint64_t offset_bytes, std::span<const std::byte> data,
                         WriteOptions options, bool from_reserve_only);
  Status write_pages(Operation& op, Inode& inode, std::uint64_t offset_bytes, std::span<const std::byte> data,
                     bool from_reserve_only) TARNFS_REQUIRES(inode.mutex);
  Status resize(Operation& op, Inode& inode, std::uint64_t size_bytes) TARNFS_REQUIRES(inode.mutex);
  Status touch_nodes(Operation& op, const Inode& inode, std::uint64_t first, std::uint64_t last)
      TARNFS_REQUIRES_SHARED(inode.mutex);
  Status zero_range(Operation& op, Inode& inode, std::uint64_t first_byte, std::uint64_t end_byte)
      TARNFS_REQUIRES(inode.mutex);
  Result<std::uint64_t> next_data_page(Operation& op, const Inode& inode, std::uint64_t from)
      TARNFS_REQUIRES_SHARED(inode.mutex);
  std::uint64_t blocks_for_pages(std::uint64_t first_page, std::uint64_t count) const;

  // Space that is kept for pages (engine_reserve.cpp).
  struct ReservePlan;
  struct FallocateStep;
  static Result<TreeSpan> page_span(Operation& op, const Inode& inode, std::uint64_t index)
      TARNFS_REQUIRES_SHARED(inode.mutex);
  static Result<RangeSet> reserved_pages(Operation& op, const Inode& inode, std::uint64_t first, std::uint64_t last)
      TARNFS_REQUIRES_SHARED(inode.mutex);
  static Result<ReservePlan> plan_reserve(Operation& op, const Inode& inode, std::uint64_t first, std::uint64_t end,
                                          const RangeSet& zeroed, std::size_t spans_max)
      TARNFS_REQUIRES_SHARED(inode.mutex);
  void reserve_pages(Operation& op, Inode& inode, const ReservePlan& plan) TARNFS_REQUIRES(inode.mutex);
  static std::uint64_t reserve_blocks_max(std::uint64_t pages);
  static Status read_reserved(Operation& op, const Inode& inode, std::span<const JournalPageRange> ranges)
      TARNFS_REQUIRES_SHARED(inode.mutex);
  Status replay_reserved(Operation& op, Inode& inode, std::span<const JournalPageRange> ranges)
      TARNFS_REQUIRES(inode.mutex);
  static Status check_fallocate(const Inode& inode, const FallocateOptions& options)
      TARNFS_REQUIRES_SHARED(inode.mutex);
  Result<FallocateStep> fallocate_part(Operation& op, InodeNumber number, std::uint64_t offset_bytes,
                                       std::uint64_t end_bytes, const FallocateOptions& options, bool keeps_more);

  // Copies that share blocks (engine_copy.cpp).
  struct CopyRange;
  struct CopyPlan;
  struct CopyStep;
  Result<CopyRange> bound_copy(const CopyRange& wanted);
  Result<std::uint64_t> copy_through_buffer(const CopyRange& range);
  Status write_much_of_source(const CopyRange& range);
  Result<bool> enable_sharing();
  Result<std::uint64_t> copy_by_reference(const CopyRange& range);
  Result<CopyStep> share_range(Operation& op, const CopyRange& range, std::uint64_t data_blocks_max);
  Status plan_pages(Operation& op, const Inode& source, const Inode& target, CopyPlan& plan)
      TARNFS_REQUIRES_SHARED(source.mutex, target.mutex);
  Status plan_edge(Operation& op, const Inode& source, const Inode& target, std::size_t position, CopyPlan& plan)
      TARNFS_REQUIRES_SHARED(source.mutex, target.mutex);
  Status plan_holes(Operation& op, const Inode& target, CopyPlan& plan) TARNFS_REQUIRES_SHARED(target.mutex);
  Status claim_shares(Operation& op, CopyPlan& plan);
  void put_shared(Operation& op, Inode& inode, std::uint64_t first, std::span<const BlockPointer> pointers)
      TARNFS_REQUIRES(inode.mutex);
  std::uint64_t unpublished_shares(const Inode& inode) const TARNFS_REQUIRES_SHARED(inode.mutex);
  Status load_share_map();

  // Extended attributes (engine_xattrs.cpp).
  Result<InodePtr> get_attribute_inode(Operation& op, const Inode& owner) TARNFS_REQUIRES_SHARED(owner.mutex);
  Result<XattrSet> xattrs_of(Operation& op, const Inode& inode) TARNFS_REQUIRES_SHARED(inode.mutex);
  void replace_content(Operation& op, Inode& inode, std::span<const std::byte> content) TARNFS_REQUIRES(inode.mutex);
  static Status set_acl(XattrSet& set, InodeRecord& record, std::string_view name, std::span<const std::byte> value,
                        XattrMode mode);
  std::uint64_t blocks_for_xattrs() const;
  Status store_xattrs(Operation& op, Inode& inode, const XattrSet& set, InodeNumber new_attribute_inode = {})
      TARNFS_REQUIRES(inode.mutex);
  Result<std::optional<XattrSet>> xattrs_after_chmod(Operation& op, const Inode& inode, std::uint32_t mode)
      TARNFS_REQUIRES_SHARED(inode.mutex);
  Status inherit_acl(Operation& op, const Inode& parent, const NewNode& node, std::uint32_t& mode, XattrSet& set)
      TARNFS_REQUIRES_SHARED(parent.mutex);
  void delete_content(Operation& op, Inode& inode) TARNFS_REQUIRES(inode.mutex);

  // Orphans: inodes without links that are still held (engine_orphans.cpp).
  Status reclaim(InodeNumber number, Intent intent = Intent::kReclaim);
  void reclaim_unheld(InodeNumber number);
  void reclaim_later(InodeNumber number, const Error& reason);
  void add_orphan(InodeNumber number);
  bool is_orphan(InodeNumber number);
  void load_orphans();
  void reclaim_all_orphans();
  Status cut_orphan(InodeNumber number, unsigned level, unsigned& height);
  Status shrink_orphan(InodeNumber number);
  bool shrink_orphans();

  // The journal (engine_journal.cpp, engine_recovery.cpp).
  bool logs_content(const Inode& inode) const TARNFS_REQUIRES_SHARED(inode.mutex);
  void log_name(Operation& op, JournalRecord::Body body, InodeNumber replacing = {});
  void log_make(Operation& op, InodeNumber parent, std::string_view name, const NewNode& node, const NodeDraft& draft,
                Inode& inode, const JournalRename* with = nullptr, InodeNumber replacing = {})
      TARNFS_REQUIRES(inode.mutex);
  UnloggedChanges* frozen_unlogged(const Inode& inode) const TARNFS_REQUIRES_SHARED(inode.mutex);
  std::uint64_t unlogged_blocks(std::span<const InodePtr> inodes);
  Status commit_to_journal(std::span<const InodePtr> inodes);
  Status commit_by_cp();
  struct RunningFsync {
    explicit RunningFsync(Engine& of) : engine(of) { engine.fsyncs_running_.fetch_add(1); }
    ~RunningFsync() {
      engine.fsyncs_running_.fetch_sub(1);
      if (engine.shut_down_) engine.fsyncs_running_.notify_all();
    }
    RunningFsync(const RunningFsync&) = delete;
    RunningFsync& operator=(const RunningFsync&) = delete;
    Engine& engine;
  };
  bool compose_batch(Operation& op, std::span<const InodePtr> inodes, JournalBatch& batch);
  bool log_state(Operation& op, Inode& inode, JournalBatch& batch) TARNFS_REQUIRES(inode.mutex);
  static void log_page(const Inode& inode, std::uint64_t index, JournalInodeState& state, JournalBatch& batch)
      TARNFS_REQUIRES_SHARED(inode.mutex);
  std::optional<std::vector<std::byte>> xattrs_in_memory(Operation& op, const Inode& inode)
      TARNFS_REQUIRES_SHARED(inode.mutex);
  // Pages that are written before their consistency point (engine_placement.cpp).
  struct Placement;
  Status place_large_file(Inode& inode);
  std::uint64_t large_frozen_generation(Inode& inode);
  Placement collect_unplaced(Inode& inode);
  void install_placed(Inode& inode, const Placement& placement);
  Status write_placed(Placement& placement, std::span<const Address> addresses);
  void supersede(Operation& op, Inode& inode, std::uint64_t first, std::uint64_t end) TARNFS_REQUIRES(inode.mutex);
  void release_superseded(std::uint64_t generation);
  Status wait_until_published(std::uint64_t generation) TARNFS_EXCLUDES(cp_mutex_);

  // What is kept for mirrors (engine_mirror.cpp).
  PinLimits pin_limits() const;
  void limit_pins();
  void tell_of_lost_pins(const std::vector<LostPin>& lost);

  // The mirror's view (engine_mirror.cpp).
  bool is_known(InodeNumber number) { return number == kRootDirectory || !lookups_.is_zero(number); }
  ViewChange change_of_view(const RootBlock& next);

  // Trimming (engine_trim.cpp).
  Result<std::uint64_t> trim_run(std::uint64_t first, std::uint64_t end);
  Result<FreeMap::FreeRun> trim_chunk(std::uint64_t from, std::uint64_t end);

  // Growing (engine_resize.cpp).
  Result<std::uint64_t> size_to_grow_to(std::uint64_t size_bytes);
  Status grow_to(std::uint64_t size_blocks) TARNFS_EXCLUDES(cp_mutex_);
  void note_growth(const RootBlock& root) TARNFS_EXCLUDES(root_mutex_);

  Status replay(const JournalBatchContent& batch, Cp newest);
  Status replay_names(const JournalRecord& record);
  Status replay_make(Operation& op, const JournalMake& make);
  Status replay_link(Operation& op, const JournalLink& link);
  Status replay_remove(Operation& op, const JournalRemove& remove);
  Status replay_rename(Operation& op, const JournalRename& rename);
  Status replay_state(const JournalRecord& record, const JournalInodeState& state, std::span<const PageRef> pages);
  Status load_placed(const JournalPages& run, std::vector<PageRef>& pages);
  Status set_aside_again(const JournalPages& run);
  void note_inode_in_use(InodeNumber number);
  Result<InodeNumber> number_for_replay(Operation& op, InodeNumber number);
  InodeNumber replayed(InodeNumber number) const;

  // Consistency points (engine_cp.cpp, consistency_point.cpp).
  void run_cp_thread();
  Status take_cp(bool force);
  Status request_cp(bool force) TARNFS_EXCLUDES(cp_mutex_);
  void want_cp_soon() TARNFS_EXCLUDES(cp_mutex_);
  void stop(const Error& reason);
  Error reading_failed(const RootBlock& root, const Error& error);
  Error stopped_error(ErrorCode code) const;  // `code` unless it was shut down

  BlockDevice& device_;
  const VolumeOptions options_;
  std::atomic<VolumeMode> mode_;  // kReadWrite, once it is that, for good
  std::atomic<bool> access_times_;
  std::atomic<bool> kernel_keeps_times_{false};
  std::atomic<Changes> changes_{Changes::kTaken};  // changed under cp_mutex_
  // A mirror's: changed with the gate closed and under root_mutex_. A volume's: size and checksum are changed and read
  // under root_mutex_, the rest is constant.
  Superblock superblock_;
  Clock& clock_;
  BlockCache cache_;
  WaitEstimate block_loads_;  // of one block or a few
  InodeCache inodes_;
  LookupCounts lookups_;
  PinTable pins_;

  mutable SharedMutex root_mutex_;
  RootBlock root_ TARNFS_GUARDED_BY(root_mutex_);  // the newest durable one
  std::atomic<std::uint64_t> published_cp_;        // of root_
  std::atomic<std::uint64_t> size_blocks_;         // grows
  std::atomic<std::uint64_t> view_{0};             // grows when adopt() changes the root

  bool epoch_begun_ = false;  // a consistency point has begun one; of its thread

  GenerationGate gate_;
  std::uint64_t open_generation_;  // changed with the gate closed, read inside it
  std::atomic<std::uint64_t> next_inode_;
  // Of the inode file, the last one that was looked at for a new inode of the open generation; 0: none. Changed inside
  // the gate, forgotten with it closed.
  std::atomic<std::uint64_t> readable_inode_page_{0};
  std::atomic<std::uint64_t> inode_count_;
  std::atomic<std::int64_t> protected_inodes_;                  // with a flag of kProtectingFlags
  std::array<std::atomic<std::int64_t>, 2> dirty_bytes_{};      // by generation & 1
  std::atomic<std::uint64_t> writing_generation_{0};            // what the running consistency point writes; 0: none
  std::atomic<std::uint32_t> dirty_waiters_{0};                 // under cp_mutex_, but for a first look
  std::array<std::atomic<std::int64_t>, 2> promised_blocks_{};  // by generation & 1

  std::unique_ptr<JournalWriter> journal_;  // of volumes that have one, but for a mirror's; made before the threads
  NameLog name_log_;
  GroupCommit<InodePtr> commits_;
  std::uint64_t replayed_records_ = 0;  // before the threads
  // What recovery calls new inodes for which the journal has another number, and these numbers. Before the threads.
  std::unordered_map<std::uint64_t, InodeNumber> renumbered_;
  std::unordered_set<std::uint64_t> substitutes_;

  Mutex superseded_mutex_;
  // Blocks set aside that no page has any more, with the generation whose root makes them free.
  std::vector<std::pair<std::uint64_t, Address>> superseded_ TARNFS_GUARDED_BY(superseded_mutex_);

  Mutex dirty_mutex_;
  std::vector<InodePtr> dirty_ TARNFS_GUARDED_BY(dirty_mutex_);

  Mutex orphans_mutex_;
  std::unordered_set<std::uint64_t> orphans_ TARNFS_GUARDED_BY(orphans_mutex_);
  bool orphans_unreadable_ TARNFS_GUARDED_BY(orphans_mutex_) = false;  // the file stays as it is, for fsck
  bool orphans_changed_ TARNFS_GUARDED_BY(orphans_mutex_) = false;
  std::vector<InodeNumber> shrinking_ TARNFS_GUARDED_BY(orphans_mutex_);

  // These five not on a mirror. Made before the threads.
  std::unique_ptr<SpaceLedger> ledger_;
  SpaceLoan trim_loan_;
  std::unique_ptr<BlockWriter> writer_;  // the consistency point's thread
  std::unique_ptr<FreeMap> free_map_;
  std::unique_ptr<ShareMap> shares_;
  std::atomic<bool> any_reserve_{false};           // space is kept for some page, or was
  Mutex reserves_mutex_;                           // the ledger's reserves; they are read without it
  std::atomic<bool> sharing_{false};               // the ledger keeps what the share map may need; set under it
  std::optional<Error> unwritable_;                // why a read-only volume must stay one; before the threads
  std::atomic<std::uint64_t> pins_warning_ns_{0};  // when it was last said that pins were given up; 0: never
  std::atomic<std::uint64_t> held_blocks_{0};      // freed, but kept for a root that somebody reads
  // With `held_blocks_` and the ledger it is changed under the lock when a root is published, so that usage() never
  // counts twice.
  Mutex usage_mutex_;
  ComingSpace coming_space_ TARNFS_GUARDED_BY(usage_mutex_);
  std::uint64_t allocatable_before_blocks_ = 0;  // the consistency point's thread

  Mutex cp_mutex_;
  Condition cp_changed_;
  std::uint64_t cp_requested_ TARNFS_GUARDED_BY(cp_mutex_) = 0;  // tickets
  std::uint64_t cp_served_ TARNFS_GUARDED_BY(cp_mutex_) = 0;
  bool cp_forced_ TARNFS_GUARDED_BY(cp_mutex_) = false;
  std::atomic<bool> cp_wanted_soon_{false};  // set under cp_mutex_; a look without it may be late
  bool cp_running_ TARNFS_GUARDED_BY(cp_mutex_) = false;
  bool closing_ TARNFS_GUARDED_BY(cp_mutex_) = false;
  bool resizing_ TARNFS_GUARDED_BY(cp_mutex_) = false;
  std::atomic<std::uint64_t> growing_to_blocks_{0};  // what the next consistency point's root is of; 0: as it is
  std::string stop_reason_ TARNFS_GUARDED_BY(cp_mutex_);
  std::atomic<bool> stopped_{false};
  std::atomic<bool> shut_down_{false};  // changed with the gate closed, and then `stopped_` follows
  std::atomic<std::uint64_t> cp_count_{0};
  std::atomic<std::uint64_t> error_count_{0};
  std::atomic<std::uint64_t> swap_longest_ns_{0};
  std::atomic<std::uint64_t> lock_longest_ns_{0};
  std::atomic<std::uint64_t> fsync_cp_count_{0};
  std::atomic<std::uint32_t> fsyncs_running_{0};
  Histogram cp_wait_;
  Histogram dirty_wait_;  // for the dirty limit; who did not wait for that is not counted
  std::thread cp_thread_;

  ViewListener* view_listener_ = nullptr;  // of the thread that calls adopt()
};

template <class Body>
auto Engine::run(Intent intent, std::uint64_t blocks_max, Body&& body) -> decltype(body(std::declval<Operation&>())) {
  Attempt attempt;
  WaitNote wait(cp_wait_);
  std::optional<SpaceLoan::Recall> recall;
  SpaceAttempts space_attempts;
  while (true) {
    if (shut_down_) return Error(ErrorCode::kIo);
    if (intent != Intent::kRead && intent != Intent::kReplay) TARNFS_TRY(before_change(intent, wait));
    const std::uint64_t view = view_.load();
    if (intent == Intent::kReplay) {
      if (ledger_ != nullptr) ledger_->take(blocks_max);
    } else if (ledger_ != nullptr && blocks_max > 0 && !ledger_->promise(blocks_max, claim_of(intent))) {
      if (waits(intent) && NoWaitScope::is_active()) return Error(ErrorCode::kWouldWait);
      if (waits(intent) && !recall) {
        recall.emplace(trim_loan_);  // what a trim has at this moment may be all that is missing
        continue;
      }
      if (waits(intent) && make_space(space_attempts, blocks_max, claim_of(intent), wait)) continue;
      return Error(shut_down_ ? ErrorCode::kIo : ErrorCode::kNoSpace);
    }
    {
      Operation op(gate_, cache_, attempt.held, open_generation_, clock_);
      op.blocks_promised = blocks_max;
      wait.waited_ns += op.waited_ns();
      using Answer = decltype(body(op));
      auto result = shut_down_ ? Answer(Error(ErrorCode::kIo)) : body(op);
      settle(op);
      if (result.ok() || result.error().code() != ErrorCode::kNeedsBlock) return result;
      attempt.missing = op.missing;
      attempt.missing_is_dispensable = op.missing_is_dispensable;
    }
    TARNFS_TRY(load_missing(attempt, view));
  }
}

}  // namespace tarnfs
