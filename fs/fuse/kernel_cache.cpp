#include "fs/fuse/kernel_cache.h"

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>

#include "common/log.h"
#include "fs/engine/waiting.h"

namespace tarnfs {
namespace {

constexpr std::size_t kMissingDirectoriesMax = 65536;
// When there are so many the next change ends them; at twice as many, listings are not kept.
constexpr std::size_t kListedDirectoriesMany = 32768;
// Naming anything in a directory waits for who has it locked. Should there be such a name, the kernel asks for it anew.
constexpr const char* kAnyName = ".tarn";
// More changes than these are made into one that is coarser, when the kernel can be told in that way.
constexpr std::size_t kJobsMax = 4;
constexpr int kSettleRoundsMax = 50;
constexpr std::chrono::milliseconds kSettlePause{1};
constexpr std::chrono::seconds kUnsettledPause{1};

bool overlap(std::uint64_t first, std::uint64_t end, std::uint64_t other_first, std::uint64_t other_end) {
  return first < other_end && other_first < end;
}

// A whole inode in place of what has changed in it, each inode once.
void make_coarse(std::vector<ViewChange::Inode>& inodes) {
  std::sort(inodes.begin(), inodes.end(), [](const auto& a, const auto& b) { return a.number < b.number; });
  const auto same = [](const auto& a, const auto& b) { return a.number == b.number; };
  inodes.erase(std::unique(inodes.begin(), inodes.end(), same), inodes.end());
  for (ViewChange::Inode& inode : inodes) inode.pages.add(0, kEndOfFile);
}

}  // namespace

KernelCache::Answer::Answer(KernelCache* cache) : cache_(cache) {
  if (cache_ == nullptr) return;
  cache_->asked_count_.fetch_add(1, std::memory_order_relaxed);
  // Either prepare() sees this one in progress, or this one sees that the view is changing.
  cache_->granted_count_.fetch_add(1);
  view_ = cache_->view_.load();
  is_granted_ = !is_changing(view_);
  if (!is_granted_) cache_->end_granted();
}

KernelCache::Answer::~Answer() {
  if (is_granted_) cache_->end_granted();
}

void KernelCache::end_granted() {
  if (granted_count_.fetch_sub(1) != 1 || !is_changing(view_.load())) return;
  MutexLock lock(mutex_);
  changed_.notify_all();
}

bool KernelCache::Answer::may_be_kept() const {
  return cache_ == nullptr || (is_granted_ && cache_->view_.load() == view_);
}

void KernelCache::Answer::note_missing(InodeNumber directory) const {
  if (cache_ == nullptr) return;
  MutexLock lock(cache_->mutex_);
  if (cache_->missing_in_.size() < kMissingDirectoriesMax) {
    cache_->missing_in_.insert(directory);
  } else if (!cache_->missing_in_.contains(directory)) {
    cache_->missing_anywhere_ = true;
  }
}

void KernelCache::Answer::note_handed_out(InodeNumber inode) const {
  // One that is granted ends before it is asked who has been handed out, or was counted before.
  if (may_be_kept()) return;
  MutexLock lock(cache_->mutex_);
  if (is_changing(cache_->view_.load())) cache_->handed_out_.insert(inode);
}

void KernelCache::Answer::note_listed(InodeNumber directory) {
  if (cache_ == nullptr || !is_granted_) return;
  {
    MutexLock lock(cache_->mutex_);
    if (cache_->listed_.size() < 2 * kListedDirectoriesMany) cache_->listed_.insert(directory);
    is_granted_ = cache_->listed_.contains(directory);
  }
  if (!is_granted_) cache_->end_granted();
}

KernelCache::KernelCache(Calls calls, std::chrono::milliseconds wait_max)
    : calls_(std::move(calls)), wait_max_(wait_max), thread_([this] { work(); }) {}

KernelCache::~KernelCache() {
  close();
}

void KernelCache::close() {
  MutexLock close_lock(close_mutex_);
  {
    MutexLock lock(mutex_);
    closing_ = true;
    holding_ = false;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

bool KernelCache::before_read(InodeNumber inode, std::uint64_t offset_bytes, std::size_t size_bytes) {
  if (!before_filling({inode, offset_bytes / kBlockSize, (offset_bytes + size_bytes + kBlockSize - 1) / kBlockSize})) {
    return false;
  }
  asked_count_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

bool KernelCache::before_acl(InodeNumber inode) {
  return before_filling({inode, kPlaceOfAcls, kEndOfFile});
}

bool KernelCache::before_filling(const Pages& pages) {
  // One that comes before the view begins to change has its pages locked already: dropping them waits for it. And the
  // kernel does not keep an ACL that it has asked for before it is told to drop it.
  if (!is_changing(view_.load())) return true;
  MutexLock lock(mutex_);
  // What is being dropped may be locked by this very read: it is answered, and what it fills is dropped again.
  while (holding_ && touches_change(pages) && (pages.are_acls() || !is_refilled(pages))) {
    if (NoWaitScope::is_active()) return false;
    changed_.wait(mutex_);
  }
  if (!is_changing(view_.load())) return true;
  if (!holding_) {
    reads_.push_back(pages);
  } else if (touches_change(pages)) {
    refilled_.push_back(pages);
  }
  return true;
}

void KernelCache::prepare() {
  view_.fetch_add(1);
  MutexLock lock(mutex_);
  deadline_ = std::chrono::steady_clock::now() + wait_max_;
  while (granted_count_.load() > 0 && !closing_) {
    const auto left = deadline_ - std::chrono::steady_clock::now();
    if (left <= left.zero() || !changed_.wait_for(mutex_, left)) return;
  }
}

void KernelCache::forget(ViewChange change) {
  MutexLock lock(mutex_);
  if (closing_) return;
  const bool behind = !jobs_.empty();
  add_job(std::move(change));
  changed_.notify_all();
  const std::uint64_t view = view_.load();
  while (!jobs_.empty() && jobs_.back().view == view && !closing_) {
    const auto left = behind ? deadline_ - deadline_ : deadline_ - std::chrono::steady_clock::now();
    if (left > left.zero()) {
      changed_.wait_for(mutex_, left);
      continue;
    }
    late_count_.fetch_add(1, std::memory_order_relaxed);
    if (!behind) log_warning("somebody keeps the kernel from dropping what has changed; it may be seen for longer");
    return;
  }
}

void KernelCache::add_job(ViewChange change) {
  const std::uint64_t view = view_.load();
  if (jobs_.size() < kJobsMax || !drops_all_names_) {
    jobs_.push_back(Job{view, std::move(change), {}, {}});
    return;
  }
  Job& last = jobs_.back();  // not the first one, which is being done
  last.view = view;
  last.change.all_names = true;
  last.change.names.clear();
  last.change.is_known = std::move(change.is_known);
  last.change.inodes.insert(last.change.inodes.end(), change.inodes.begin(), change.inodes.end());
  make_coarse(last.change.inodes);
}

void KernelCache::finish() {
  MutexLock lock(mutex_);
  const std::uint64_t view = view_.fetch_add(1);
  if (!holding_ && !jobs_.empty() && jobs_.back().view == view) {
    Job& late = jobs_.back();
    late.reads.insert(late.reads.end(), reads_.begin(), reads_.end());
    late.handed_out.merge(handed_out_);
  }
  reads_.clear();
  handed_out_.clear();
  holding_ = false;
  changed_.notify_all();
}

void KernelCache::work() {
  while (Job* const job = next_job()) {
    drop(*job);
    begin_holding(*job);
    for (auto pages = next_refilled(true); pages; pages = next_refilled(false)) drop_pages(*pages);
    end_job();
  }
}

KernelCache::Job* KernelCache::next_job() {
  for (;;) {
    {
      MutexLock lock(mutex_);
      bool timed_out = false;
      while (jobs_.empty() && !closing_ && !timed_out) {
        if (unsettled_.empty()) {
          changed_.wait(mutex_);
        } else {
          timed_out = !changed_.wait_for(mutex_, kUnsettledPause);
        }
      }
      if (closing_) return nullptr;
      if (!jobs_.empty()) return &jobs_.front();
    }
    retry_unsettled();
  }
}

void KernelCache::drop(const Job& job) {
  const ViewChange& change = job.change;
  retry_unsettled();
  for (const ViewChange::Inode& inode : change.inodes) {
    if (closing_) return;
    if (drop_inode(inode) != -ENOENT || !change.is_known(inode.number)) continue;
    unsettled_.push_back({job.view, inode, change.is_known});
  }
  drop_names(change);
  // Their answers are on the way into the kernel, or the kernel's word that it has forgotten them on the way here.
  // Nothing tells when the first has arrived. As long as the change is not shown, which is not for ever, it waits for
  // them; after that for a while.
  const auto is_of_this = [&](const Unsettled& each) { return each.view == job.view; };
  const auto any_of_this = [&] { return std::any_of(unsettled_.begin(), unsettled_.end(), is_of_this); };
  for (int round = 0; any_of_this() && !closing_; ++round) {
    if (round >= kSettleRoundsMax && view_.load() != job.view) return;
    std::this_thread::sleep_for(kSettlePause);
    retry_unsettled();
  }
}

void KernelCache::drop_names(const ViewChange& change) {
  for (const ViewChange::Name& name : change.names) {
    if (closing_) return;
    if (!name.is_new || may_know_missing_in(name.directory)) calls_.drop_name(name.directory, name.name);
  }
  if (change.all_names || too_many_are_listed()) end_listings();
  if (!change.all_names) return;
  if (const int result = drops_all_names_ ? calls_.drop_all_names() : -ENOSYS; result != 0) {
    log_error("names that have changed may be seen for longer: the kernel cannot be told to drop all of them");
  }
}

int KernelCache::drop_inode(const ViewChange::Inode& inode) const {
  if (inode.pages.empty()) return calls_.drop_inode(inode.number, -1, 0);
  int result = 0;
  for (const auto& [first, end] : inode.pages.ranges()) {
    constexpr std::uint64_t kPagesMax = std::numeric_limits<std::int64_t>::max() / kBlockSize;
    const auto offset_bytes = static_cast<std::int64_t>(std::min(first, kPagesMax) * kBlockSize);
    const auto length_bytes = static_cast<std::int64_t>(end > kPagesMax ? 0 : (end - first) * kBlockSize);
    result = calls_.drop_inode(inode.number, offset_bytes, length_bytes);
    if (result != 0) break;
  }
  return result;
}

void KernelCache::drop_pages(const Pages& pages) const {
  ViewChange::Inode inode{pages.inode, {}};
  if (!pages.are_acls()) inode.pages.add(pages.first, pages.end);
  drop_inode(inode);
}

void KernelCache::retry_unsettled() {
  std::erase_if(unsettled_, [this](const Unsettled& each) {
    return !each.is_known(each.inode.number) || drop_inode(each.inode) != -ENOENT;
  });
}

// From now on reads of what has changed wait, unless the change has been shown meanwhile. What was read before, after
// it was dropped or not, is dropped again.
void KernelCache::begin_holding(Job& job) {
  MutexLock lock(mutex_);
  changed_pages_.clear();
  for (const ViewChange::Inode& inode : job.change.inodes) {
    RangeSet& changed = changed_pages_[inode.number];
    for (const auto& [first, end] : inode.pages.ranges()) changed.add(first, end);
    changed.add(kPlaceOfAcls, kEndOfFile);
  }
  for (const InodeNumber inode : job.handed_out) changed_pages_[inode].add(0, kEndOfFile);
  holding_ = job.view == view_.load() && !closing_;
  std::vector<Pages>& reads = job.reads;
  if (holding_) reads.insert(reads.end(), reads_.begin(), reads_.end());
  for (const Pages& pages : reads) {
    if (touches_change(pages)) refilled_.push_back(pages);
  }
}

std::optional<KernelCache::Pages> KernelCache::next_refilled(bool first) {
  MutexLock lock(mutex_);
  if (!first) {
    refilled_.pop_front();
    changed_.notify_all();
  }
  if (refilled_.empty() || closing_) {
    refilled_.clear();
    return std::nullopt;
  }
  return refilled_.front();
}

void KernelCache::end_job() {
  MutexLock lock(mutex_);
  jobs_.pop_front();
  changed_.notify_all();
}

bool KernelCache::may_know_missing_in(InodeNumber directory) {
  MutexLock lock(mutex_);
  return missing_anywhere_ || missing_in_.contains(directory);
}

bool KernelCache::too_many_are_listed() {
  MutexLock lock(mutex_);
  return listed_.size() >= kListedDirectoriesMany;
}

// A listing that was answered since is of the view that is being left only where its answer may not be kept.
void KernelCache::end_listings() {
  Inodes listed;
  {
    MutexLock lock(mutex_);
    listed.swap(listed_);
  }
  for (const InodeNumber directory : listed) {
    if (closing_) return;
    calls_.drop_name(directory, kAnyName);
  }
}

bool KernelCache::touches_change(const Pages& pages) const {
  if (handed_out_.contains(pages.inode)) return true;
  const auto found = changed_pages_.find(pages.inode);
  if (found == changed_pages_.end()) return false;
  return found->second.contains(pages.first) || found->second.next_inside(pages.first) < pages.end;
}

bool KernelCache::is_refilled(const Pages& pages) const {
  return std::any_of(refilled_.begin(), refilled_.end(), [&](const Pages& other) {
    return other.inode == pages.inode && overlap(other.first, other.end, pages.first, pages.end);
  });
}

}  // namespace tarnfs
