// What the kernel keeps of a file system that changes by itself (a mirror's view), and how it is made to give it up.
//
// Purpose: names, attributes and pages stay in the kernel for as long as they are true, so that what was asked for once
// costs no request. When the view changes, exactly what the change makes untrue is dropped before anybody can be
// answered from the new view.
//
// Invariants (DESIGN.md argues for them):
//   1. A name or attribute that the kernel may keep was answered while the view did not change: prepare() lets those in
//      progress end, and what is answered between it and finish() has no time to live.
//   2. When forget() returns in time, the kernel has no page any more whose content the change touches, and reads of
//      such pages wait for finish(). Reads that filled some from the old view meanwhile were noted, and their pages
//      dropped once more. An inode that was handed out meanwhile may be missing in the change, which knows of those
//      alone that were handed out before: all its pages are taken to be touched. The ACLs of an inode count as a page
//      of it, because the kernel keeps them without a time too.
//   3. The kernel is called by one thread, which holds no lock and answers no request: it may wait there for a page or
//      a directory that somebody has locked. forget() waits for it up to wait_max after prepare(), and not at all while
//      it is behind with an earlier change; what is late is dropped all the same.
//   4. Before all names are dropped, the kernel has made those of every listing that was answered. It makes them with
//      the directory locked, but counts them among what comes after the drop when it comes first.
//   5. A read is held only while the pages of reads that were answered before are dropped. That waits for nobody who
//      waits for a request that would come behind a held one.
//
// Thread safety: all functions may be called from any thread; prepare(), forget() and finish() by one at a time.
// Ownership: what it was constructed with must outlive close().
// Errors: none. The kernel need not know what it is told to drop.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "common/mutex.h"
#include "fs/engine/view_change.h"

namespace tarnfs {

class KernelCache final : public ViewListener {
 public:
  // Each waits as long as somebody in the kernel holds what it drops, and returns 0, -ENOENT when the kernel does not
  // know it, or another negative errno.
  struct Calls {
    // Attributes, ACLs and, from an offset of at least 0 on, pages; length 0: as far as there are any.
    std::function<int(InodeNumber inode, std::int64_t offset_bytes, std::int64_t length_bytes)> drop_inode;
    std::function<int(InodeNumber directory, const std::string& name)> drop_name;
    std::function<int()> drop_all_names;
  };
  static constexpr std::chrono::milliseconds kWaitMax{500};

  // The answer to one request, from before the file system is asked until it is sent. Without a cache, of a file system
  // that does not change by itself: it may be kept.
  class Answer {
   public:
    explicit Answer(KernelCache* cache);
    ~Answer();
    Answer(const Answer&) = delete;
    Answer& operator=(const Answer&) = delete;

    // Whether the kernel may keep it; to be asked when it is sent.
    bool may_be_kept() const;
    // The answer is that the directory has no such name.
    void note_missing(InodeNumber directory) const;
    // The answer hands the inode out. Before it is sent.
    void note_handed_out(InodeNumber inode) const;
    // The answer lists the directory, with attributes. Before may_be_kept() is asked for one of them.
    void note_listed(InodeNumber directory);

   private:
    KernelCache* const cache_;
    std::uint64_t view_ = 0;
    bool is_granted_ = false;  // counted in granted_count_
  };

  explicit KernelCache(Calls calls, std::chrono::milliseconds wait_max = kWaitMax);
  ~KernelCache() override;

  // Before a read is answered, which fills pages. May wait, as invariant 5 says; inside a NoWaitScope it returns false
  // instead, and the read is to come again where it may wait.
  bool before_read(InodeNumber inode, std::uint64_t offset_bytes, std::size_t size_bytes) TARNFS_EXCLUDES(mutex_);
  // Before it is answered what an ACL of the inode is. Waits or returns false in the same way.
  bool before_acl(InodeNumber inode) TARNFS_EXCLUDES(mutex_);

  // Whether this kernel knows drop_all_names. Before the first change.
  void set_drops_all_names(bool can) { drops_all_names_ = can; }

  // ViewListener.
  bool forgets_all_names() const override { return drops_all_names_; }
  void prepare() override TARNFS_EXCLUDES(mutex_);
  void forget(ViewChange change) override TARNFS_EXCLUDES(mutex_);
  void finish() override TARNFS_EXCLUDES(mutex_);

  // Drops nothing more and holds no read. Returns when the kernel is not being called any more. Idempotent.
  void close() TARNFS_EXCLUDES(close_mutex_, mutex_);

  // Requests for what the kernel could have kept: lookups, attributes, listings with attributes, reads.
  std::uint64_t asked_count() const { return asked_count_.load(std::memory_order_relaxed); }
  // Changes that were shown before all was dropped, because somebody held something for too long.
  std::uint64_t late_count() const { return late_count_.load(std::memory_order_relaxed); }

 private:
  // Where the ACLs stand among the pages of an inode. No file is so large.
  static constexpr std::uint64_t kPlaceOfAcls = kEndOfFile - 1;
  struct Pages {
    InodeNumber inode;
    std::uint64_t first = 0;
    std::uint64_t end = 0;
    bool are_acls() const { return first == kPlaceOfAcls; }
  };
  using PagesByInode = std::unordered_map<InodeNumber, RangeSet>;
  using Inodes = std::unordered_set<InodeNumber>;
  // A change whose untrue answers are to be dropped.
  struct Job {
    std::uint64_t view = 0;  // view_ while it was made
    ViewChange change;
    // When the change has been shown before it was done: reads that were answered, and inodes that were handed out,
    // while it was made.
    std::vector<Pages> reads;
    Inodes handed_out;
  };
  struct Unsettled {
    std::uint64_t view = 0;  // of its job
    ViewChange::Inode inode;
    std::function<bool(InodeNumber)> is_known;
  };

  static bool is_changing(std::uint64_t view) { return (view & 1) != 0; }
  void end_granted() TARNFS_EXCLUDES(mutex_);
  bool before_filling(const Pages& pages) TARNFS_EXCLUDES(mutex_);
  void work();
  Job* next_job() TARNFS_EXCLUDES(mutex_);
  void drop(const Job& job);
  void drop_names(const ViewChange& change);
  int drop_inode(const ViewChange::Inode& inode) const;
  void drop_pages(const Pages& pages) const;
  void retry_unsettled();
  void begin_holding(Job& job) TARNFS_EXCLUDES(mutex_);
  std::optional<Pages> next_refilled(bool first) TARNFS_EXCLUDES(mutex_);
  void end_job() TARNFS_EXCLUDES(mutex_);
  void add_job(ViewChange change) TARNFS_REQUIRES(mutex_);
  bool may_know_missing_in(InodeNumber directory) TARNFS_EXCLUDES(mutex_);
  bool too_many_are_listed() TARNFS_EXCLUDES(mutex_);
  void end_listings() TARNFS_EXCLUDES(mutex_);
  bool touches_change(const Pages& pages) const TARNFS_REQUIRES(mutex_);
  bool is_refilled(const Pages& pages) const TARNFS_REQUIRES(mutex_);

  const Calls calls_;
  const std::chrono::milliseconds wait_max_;
  bool drops_all_names_ = false;
  std::atomic<std::uint64_t> view_{0};           // odd between prepare() and finish()
  std::atomic<std::uint64_t> granted_count_{0};  // answers in progress that may be kept
  std::atomic<std::uint64_t> asked_count_{0};
  std::atomic<std::uint64_t> late_count_{0};
  std::atomic<bool> closing_{false};  // set under mutex_

  Mutex mutex_;
  Condition changed_;
  std::chrono::steady_clock::time_point deadline_ TARNFS_GUARDED_BY(mutex_);
  std::deque<Job> jobs_ TARNFS_GUARDED_BY(mutex_);           // the first one is being done
  std::vector<Pages> reads_ TARNFS_GUARDED_BY(mutex_);       // since prepare(), before there was `holding_`
  Inodes handed_out_ TARNFS_GUARDED_BY(mutex_);              // between prepare() and finish()
  bool holding_ TARNFS_GUARDED_BY(mutex_) = false;           // reads of changed pages wait
  PagesByInode changed_pages_ TARNFS_GUARDED_BY(mutex_);     // of the first job
  std::deque<Pages> refilled_ TARNFS_GUARDED_BY(mutex_);     // to be dropped again; the first one is being dropped
  Inodes missing_in_ TARNFS_GUARDED_BY(mutex_);              // directories that were asked in vain
  Inodes listed_ TARNFS_GUARDED_BY(mutex_);                  // directories whose listing may still be coming in
  bool missing_anywhere_ TARNFS_GUARDED_BY(mutex_) = false;  // in more directories than are counted

  std::vector<Unsettled> unsettled_;  // of the thread
  Mutex close_mutex_;                 // held while the thread is waited for; before mutex_
  std::thread thread_ TARNFS_GUARDED_BY(close_mutex_);
};

}  // namespace tarnfs
