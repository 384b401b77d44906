// What is dropped in the kernel, and when, with a kernel that does what the test says.
#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "fs/engine/waiting.h"
#include "fs/fuse/kernel_cache.h"

using namespace tarnfs;

namespace {

constexpr std::chrono::seconds kPatience{20};

// Notes the calls. One of them can be made to wait, as for a page that somebody has locked.
class FakeKernel {
 public:
  KernelCache::Calls calls() {
    KernelCache::Calls calls;
    calls.drop_inode = [this](InodeNumber inode, std::int64_t offset_bytes, std::int64_t length_bytes) {
      const std::string text =
          std::to_string(inode.value) + ":" + std::to_string(offset_bytes) + "+" + std::to_string(length_bytes);
      return note(text, inode);
    };
    calls.drop_name = [this](InodeNumber directory, const std::string& name) {
      return note(std::to_string(directory.value) + "/" + name, InodeNumber{});
    };
    calls.drop_all_names = [this] { return note("all names", InodeNumber{}); };
    return calls;
  }

  void block(const std::string& call) {
    const std::lock_guard lock(mutex_);
    blocked_ = call;
  }
  void unblock() {
    const std::lock_guard lock(mutex_);
    blocked_.clear();
    changed_.notify_all();
  }
  void set_unknown(InodeNumber inode, bool unknown) {
    const std::lock_guard lock(mutex_);
    if (unknown) {
      unknown_.insert(inode);
    } else {
      unknown_.erase(inode);
    }
  }
  // Whether so many calls were begun in time.
  bool wait_for(const std::string& call, std::size_t count = 1) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return counts_[call] >= count; });
  }
  std::size_t count(const std::string& call) {
    const std::lock_guard lock(mutex_);
    return counts_[call];
  }
  std::vector<std::string> taken() {
    const std::lock_guard lock(mutex_);
    return std::exchange(log_, {});
  }

  std::function<void(const std::string&)> on_call;  // on the cache's thread, before the call is noted

 private:
  int note(const std::string& call, InodeNumber inode) {
    if (on_call) on_call(call);
    std::unique_lock lock(mutex_);
    log_.push_back(call);
    ++counts_[call];
    changed_.notify_all();
    changed_.wait(lock, [&] { return blocked_ != call; });
    return unknown_.contains(inode) ? -ENOENT : 0;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::string blocked_;
  std::set<InodeNumber> unknown_;
  std::map<std::string, std::size_t> counts_;
  std::vector<std::string> log_;
};

ViewChange change_of(const std::vector<std::pair<std::uint64_t, RangeSet>>& inodes,
                     std::vector<ViewChange::Name> names = {}) {
  ViewChange change;
  for (const auto& [number, pages] : inodes) change.inodes.push_back({InodeNumber{number}, pages});
  change.names = std::move(names);
  change.is_known = [](InodeNumber) { return true; };
  return change;
}

RangeSet pages(std::uint64_t first, std::uint64_t end) {
  RangeSet set;
  set.add(first, end);
  return set;
}

constexpr InodeNumber kFile{20};

}  // namespace

TEST_CASE("an answer may be kept unless the view changes between its beginning and its end") {
  FakeKernel kernel;
  KernelCache cache(kernel.calls());
  {
    const KernelCache::Answer answer(&cache);
    CHECK(answer.may_be_kept());
  }
  cache.prepare();
  {
    const KernelCache::Answer during(&cache);
    CHECK(!during.may_be_kept());
    cache.forget(change_of({}));
    cache.finish();
    CHECK(!during.may_be_kept());  // it may be of the old view
  }
  const KernelCache::Answer after(&cache);
  CHECK(after.may_be_kept());
  const KernelCache::Answer unchanging(nullptr);
  CHECK(unchanging.may_be_kept());
}

TEST_CASE("answers that may be kept end before the difference is looked for") {
  FakeKernel kernel;
  KernelCache cache(kernel.calls());
  std::atomic<bool> answered{false};
  std::atomic<bool> begun{false};
  std::thread request([&] {
    const KernelCache::Answer answer(&cache);
    const bool kept = answer.may_be_kept();
    begun = true;
    begun.notify_all();
    while (answer.may_be_kept()) std::this_thread::yield();  // until prepare() has begun
    CHECK(kept);
    answered = true;
  });
  begun.wait(false);
  cache.prepare();
  CHECK(answered);
  request.join();
  CHECK(cache.late_count() == 0);
}

TEST_CASE("what has changed is dropped, and a name that is new only where one was asked for in vain") {
  FakeKernel kernel;
  KernelCache cache(kernel.calls());
  {
    const KernelCache::Answer answer(&cache);
    answer.note_missing(InodeNumber{5});
  }
  RangeSet two = pages(3, 4);
  two.add(10, kEndOfFile);
  cache.prepare();
  cache.forget(change_of({{20, two}, {21, {}}}, {{InodeNumber{5}, "gone", false},
                                                 {InodeNumber{5}, "new", true},
                                                 {InodeNumber{6}, "new", true},
                                                 {InodeNumber{6}, "moved", false}}));
  CHECK(kernel.taken() ==
        std::vector<std::string>{"20:12288+4096", "20:40960+0", "21:-1+0", "5/gone", "5/new", "6/moved"});
  cache.finish();
  CHECK(cache.late_count() == 0);
}

TEST_CASE("a read of the old view that fills dropped pages is dropped again, and later ones wait for the new view") {
  FakeKernel kernel;
  KernelCache cache(kernel.calls());
  bool read_meanwhile = false;
  kernel.on_call = [&](const std::string& call) {
    if (call != "21:-1+0" || std::exchange(read_meanwhile, true)) return;
    cache.before_read(kFile, 4 * kBlockSize, 2 * kBlockSize);   // touches it
    cache.before_read(kFile, 5 * kBlockSize, 90 * kBlockSize);  // does not
  };
  cache.prepare();
  cache.forget(change_of({{kFile.value, pages(2, 5)}, {21, {}}}));
  CHECK(kernel.taken() == std::vector<std::string>{"20:8192+12288", "21:-1+0", "20:16384+8192"});
  std::atomic<int> answered{0};
  std::thread other([&] {
    cache.before_read(kFile, 0, 2 * kBlockSize);
    cache.before_read(InodeNumber{99}, 0, 2 * kBlockSize);
    ++answered;
  });
  other.join();  // these need not wait
  CHECK(answered == 1);
  std::thread reader([&] {
    cache.before_read(kFile, kBlockSize, 2 * kBlockSize);
    ++answered;
  });
  CHECK(answered == 1);
  cache.finish();
  reader.join();
  CHECK(answered == 2);
  CHECK(kernel.taken().empty());
}

TEST_CASE("a thread that may not wait is told that a read is held, and the read is none before it comes again") {
  FakeKernel kernel;
  KernelCache cache(kernel.calls());
  const std::uint64_t asked = cache.asked_count();
  cache.prepare();
  cache.forget(change_of({{kFile.value, pages(2, 5)}}));
  {
    const NoWaitScope scope;
    CHECK(!cache.before_read(kFile, 4 * kBlockSize, kBlockSize));
    CHECK(!cache.before_acl(kFile));
    CHECK(cache.before_read(kFile, 5 * kBlockSize, kBlockSize));
    CHECK(cache.asked_count() == asked + 1);
  }
  cache.finish();
  {
    const NoWaitScope scope;
    CHECK(cache.before_read(kFile, 4 * kBlockSize, kBlockSize));
    CHECK(cache.before_acl(kFile));
  }
  CHECK(cache.asked_count() == asked + 2);
  CHECK(kernel.taken() == std::vector<std::string>{"20:8192+12288"});
}

TEST_CASE("what is handed out while the change is made may be missing in it: what is read of it is dropped again") {
  FakeKernel kernel;
  KernelCache cache(kernel.calls());
  const InodeNumber other{99};
  cache.prepare();
  {
    const KernelCache::Answer answer(&cache);
    answer.note_handed_out(kFile);
  }
  cache.before_read(kFile, 4 * kBlockSize, 2 * kBlockSize);
  cache.before_read(other, 4 * kBlockSize, 2 * kBlockSize);  // known before
  cache.forget(change_of({}));
  CHECK(kernel.taken() == std::vector<std::string>{"20:16384+8192"});
  std::atomic<bool> answered{false};
  std::thread reader([&] {
    cache.before_read(kFile, 0, kBlockSize);
    answered = true;
  });
  cache.before_read(other, 0, kBlockSize);
  CHECK(!answered);
  cache.finish();
  reader.join();
  cache.prepare();
  cache.before_read(kFile, 0, kBlockSize);  // known before this one
  cache.forget(change_of({}));
  cache.finish();
  CHECK(kernel.taken().empty());
}

TEST_CASE("what was handed out while a change was made that is late is dropped with it") {
  FakeKernel kernel;
  KernelCache cache(kernel.calls());
  kernel.block("21:-1+0");
  cache.prepare();
  {
    const KernelCache::Answer answer(&cache);
    answer.note_handed_out(kFile);
  }
  cache.before_read(kFile, 0, kBlockSize);
  cache.forget(change_of({{21, {}}}));
  cache.finish();
  CHECK(cache.late_count() == 1);
  CHECK(kernel.taken() == std::vector<std::string>{"21:-1+0"});
  kernel.unblock();
  CHECK(kernel.wait_for("20:0+4096"));
}

TEST_CASE("an ACL of the old view is dropped again, and later ones wait for the new view") {
  FakeKernel kernel;
  KernelCache cache(kernel.calls());
  const InodeNumber other{99};
  const InodeNumber handed_out{30};
  bool asked_meanwhile = false;
  kernel.on_call = [&](const std::string& call) {
    if (call != "21:-1+0" || std::exchange(asked_meanwhile, true)) return;
    cache.before_acl(kFile);
    cache.before_acl(other);
    cache.before_acl(handed_out);
  };
  cache.before_acl(kFile);  // what is on its way is not kept when it is dropped
  cache.prepare();
  {
    const KernelCache::Answer answer(&cache);
    answer.note_handed_out(handed_out);
  }
  cache.forget(change_of({{kFile.value, {}}, {21, {}}}));
  CHECK(kernel.taken() == std::vector<std::string>{"20:-1+0", "21:-1+0", "20:-1+0", "30:-1+0"});
  cache.before_acl(other);
  cache.before_read(kFile, 0, kBlockSize);  // has not changed
  std::atomic<bool> shown{false};
  std::atomic<int> begun{0};
  std::atomic<int> answered_before{0};
  std::vector<std::thread> askers;
  for (const InodeNumber inode : {kFile, handed_out}) {
    askers.emplace_back([&, inode] {
      ++begun;
      cache.before_acl(inode);
      if (!shown) ++answered_before;
    });
  }
  while (begun < 2) std::this_thread::yield();
  shown = true;
  cache.finish();
  for (std::thread& asker : askers) asker.join();
  CHECK(answered_before == 0);
  CHECK(kernel.taken().empty());
}

TEST_CASE("a read that has the page locked that is dropped again is answered") {
  FakeKernel kernel;
  KernelCache cache(kernel.calls());
  const std::string again = "20:4096+4096";
  cache.prepare();
  cache.before_read(kFile, kBlockSize, kBlockSize);
  int rounds = 0;
  kernel.on_call = [&](const std::string& call) {
    // As if the page were being read once more: dropping it would wait for this read.
    if (call == again && ++rounds == 2) cache.before_read(kFile, kBlockSize, kBlockSize);
  };
  cache.forget(change_of({{kFile.value, pages(1, 2)}}));
  CHECK(kernel.taken() == std::vector<std::string>{again, again, again});
  CHECK(cache.late_count() == 0);
  cache.finish();
}

TEST_CASE("an inode whose answer is on its way into the kernel is dropped when it has arrived") {
  FakeKernel kernel;
  KernelCache cache(kernel.calls());
  kernel.set_unknown(kFile, true);
  kernel.set_unknown(InodeNumber{21}, true);
  ViewChange change = change_of({{kFile.value, {}}, {21, {}}});
  change.is_known = [](InodeNumber number) { return number == kFile; };
  std::thread arrival([&] {
    CHECK(kernel.wait_for("20:-1+0", 3));
    kernel.set_unknown(kFile, false);
  });
  cache.prepare();
  cache.forget(std::move(change));
  arrival.join();
  CHECK(kernel.count("20:-1+0") >= 4);
  CHECK(kernel.count("21:-1+0") == 1);  // nobody has it
  cache.finish();
  CHECK(cache.late_count() == 0);
}

TEST_CASE("a change is late when an answer does not arrive in the kernel in time, and is dropped when it has arrived") {
  FakeKernel kernel;
  KernelCache cache(kernel.calls());
  kernel.set_unknown(kFile, true);
  cache.prepare();
  cache.forget(change_of({{kFile.value, {}}}));
  cache.finish();
  CHECK(cache.late_count() == 1);
  const std::size_t before = kernel.count("20:-1+0");
  kernel.set_unknown(kFile, false);
  CHECK(kernel.wait_for("20:-1+0", before + 1));
}

TEST_CASE("who holds a page delays a change for a bounded time once, and what is late is dropped all the same") {
  FakeKernel kernel;
  KernelCache cache(kernel.calls());
  kernel.block("20:0+4096");
  const auto change_view = [&](ViewChange change) {
    const auto began = std::chrono::steady_clock::now();
    cache.prepare();
    cache.before_read(kFile, 0, kBlockSize);  // of the old view, and not held
    cache.forget(std::move(change));
    cache.finish();
    return std::chrono::steady_clock::now() - began;
  };
  const auto first = change_view(change_of({{kFile.value, pages(0, 1)}, {21, {}}}));
  CHECK(first >= KernelCache::kWaitMax);
  CHECK(first < kPatience);
  CHECK(cache.late_count() == 1);
  CHECK(kernel.taken() == std::vector<std::string>{"20:0+4096"});
  std::chrono::nanoseconds others{0};
  for (std::uint64_t number = 30; number < 33; ++number) others += change_view(change_of({{number, {}}}));
  CHECK(others < KernelCache::kWaitMax);
  CHECK(cache.late_count() == 4);
  kernel.unblock();
  REQUIRE(kernel.wait_for("32:-1+0"));
  // The page twice: it was read from the old view meanwhile.
  CHECK(kernel.taken() == std::vector<std::string>{"21:-1+0", "20:0+4096", "30:-1+0", "31:-1+0", "32:-1+0"});
}

TEST_CASE("many changes that are late become one that is coarser") {
  FakeKernel kernel;
  KernelCache cache(kernel.calls());
  cache.set_drops_all_names(true);
  kernel.block("20:-1+0");
  for (int i = 0; i < 1000; ++i) {
    cache.prepare();
    cache.forget(change_of({{20 + static_cast<std::uint64_t>(i % 3), pages(1, 2)}, {kFile.value, {}}},
                           {{InodeNumber{5}, std::to_string(i), false}}));
    cache.finish();
  }
  kernel.unblock();
  REQUIRE(kernel.wait_for("all names"));
  CHECK(kernel.taken().size() < 60);
  CHECK(kernel.count("22:0+0") == 1);
}

TEST_CASE("listings have come in before all names are dropped") {
  FakeKernel kernel;
  KernelCache cache(kernel.calls());
  cache.set_drops_all_names(true);
  {
    KernelCache::Answer answer(&cache);
    answer.note_listed(InodeNumber{7});
    CHECK(answer.may_be_kept());
  }
  ViewChange some = change_of({}, {{InodeNumber{5}, "a", false}});
  ViewChange all = some;
  all.all_names = true;
  for (const ViewChange& change : {some, all, all}) {
    cache.prepare();
    KernelCache::Answer late(&cache);
    late.note_listed(InodeNumber{8});  // it is not kept anyway
    cache.forget(change);
    cache.finish();
  }
  const std::vector<std::string> wanted{"5/a", "5/a", "7/.tarn", "all names", "5/a", "all names"};
  CHECK(kernel.taken() == wanted);
}

TEST_CASE("when more directories were listed than are counted, listings are not kept until these have come in") {
  FakeKernel kernel;
  KernelCache cache(kernel.calls());
  cache.set_drops_all_names(true);
  const auto is_kept = [&](std::uint64_t directory) {
    KernelCache::Answer answer(&cache);
    answer.note_listed(InodeNumber{directory});
    return answer.may_be_kept();
  };
  std::uint64_t directory = 1000;
  while (is_kept(directory)) ++directory;
  CHECK(is_kept(1000));
  cache.prepare();
  cache.forget(change_of({}));
  cache.finish();
  CHECK(is_kept(directory));
  CHECK(kernel.taken().size() == directory - 1000);
}

TEST_CASE("the end waits for the call that is being made, and lets held reads go") {
  FakeKernel kernel;
  auto cache = std::make_unique<KernelCache>(kernel.calls());
  cache->prepare();
  cache->forget(change_of({{kFile.value, pages(0, 1)}}));
  std::thread reader([&] { cache->before_read(kFile, 0, kBlockSize); });
  cache->close();
  reader.join();
  cache->finish();
  cache->prepare();
  cache->forget(change_of({{kFile.value, pages(0, 1)}}));
  cache->finish();
  CHECK(kernel.taken() == std::vector<std::string>{"20:0+4096"});
}
