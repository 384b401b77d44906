// Of which files the kernel is told that it has to ask for their attributes again.
#include <doctest/doctest.h>

#include <semaphore>
#include <set>
#include <utility>

#include "fs/fuse/attribute_notices.h"

using namespace tarnfs;

namespace {

constexpr std::chrono::hours kNever{1};
constexpr std::chrono::milliseconds kSoon{1};

// The kernel: what it was told of.
class Told {
 public:
  AttributeNotices::Calls calls() {
    return {.forget = [this](InodeNumber inode) { add(inode); },
            .has_name = [this](InodeNumber inode) { return inode.value != nameless; }};
  }
  void wait_for(std::uint64_t inode) {
    MutexLock lock(mutex_);
    while (!told_.contains(inode)) changed_.wait(mutex_);
  }
  std::set<std::uint64_t> all() {
    MutexLock lock(mutex_);
    return told_;
  }

  std::uint64_t nameless = 0;

 private:
  void add(InodeNumber inode) {
    MutexLock lock(mutex_);
    told_.insert(inode.value);
    changed_.notify_all();
  }

  Mutex mutex_;
  Condition changed_;
  std::set<std::uint64_t> told_ TARNFS_GUARDED_BY(mutex_);
};

}  // namespace

TEST_CASE("a file that was written is told of after a while, and again when it is written again") {
  Told told;
  for (int round = 0; round < 3; ++round) {
    AttributeNotices notices(told.calls(), kSoon);
    notices.note_grown(InodeNumber{7});
    told.wait_for(7);
    notices.note_grown(InodeNumber{8});
    told.wait_for(8);
  }
  CHECK(told.all() == std::set<std::uint64_t>{7, 8});
}

TEST_CASE("a file whose attributes the kernel has asked for since, or that has no name, is not told of") {
  Told told;
  told.nameless = 5;
  AttributeNotices notices(told.calls(), kSoon);
  {
    AttributeNotices slow(told.calls(), kNever);
    slow.note_grown(InodeNumber{3});
    slow.note_asked(InodeNumber{3});
    slow.note_grown(InodeNumber{4});  // and what waits when it is closed
  }
  notices.note_grown(InodeNumber{5});
  notices.note_grown(InodeNumber{6});
  told.wait_for(6);
  notices.close();
  CHECK(told.all() == std::set<std::uint64_t>{6});
}

TEST_CASE("a file of which a write has failed is told of at once, with a name or without one") {
  Told told;
  told.nameless = 5;
  AttributeNotices notices(told.calls(), kNever);
  notices.note_grown(InodeNumber{4});
  notices.note_failed(InodeNumber{5});
  notices.note_failed(InodeNumber{6});
  told.wait_for(5);
  told.wait_for(6);
  notices.close();
  CHECK(told.all() == std::set<std::uint64_t>{5, 6});
}

TEST_CASE("no more are told of in one interval than there may be") {
  Told told;
  std::binary_semaphore begun(0);
  std::binary_semaphore noted(0);
  AttributeNotices::Calls calls = told.calls();
  calls.has_name = [&](InodeNumber inode) {
    if (inode.value == 1) {
      begun.release();
      noted.acquire();
    }
    return true;
  };
  AttributeNotices notices(std::move(calls), kSoon);
  notices.note_grown(InodeNumber{1});
  begun.acquire();
  constexpr std::uint64_t kLast = AttributeNotices::kGrownMax + 1;
  for (std::uint64_t inode = 2; inode <= 2 * kLast; ++inode) notices.note_grown(InodeNumber{inode});
  noted.release();
  told.wait_for(kLast);
  CHECK(told.all().size() == kLast);
}
