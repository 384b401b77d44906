// The directory tree: against a model, with equal hashes, with pages that are not there yet, and with damaged pages.
#include "fs/tree/directory.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <array>
#include <chrono>
#include <cstring>
#include <functional>
#include <iterator>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "fs/tree/directory_node.h"
#include "fs/tree/directory_tree.h"
#include "tests/support/seed.h"

using namespace tarnfs;

namespace {

constexpr std::uint64_t kSeed = 0x5eed;

// The pages of a directory in memory. Checks that an operation reads nothing once it has written, and lets every n-th
// read fail on demand.
class MemoryPages final : public DirectoryPages {
 public:
  Result<PageRef> read(std::uint64_t index) override {
    if (written_) FAIL("a read after a write");
    if (index >= pages_.size()) FAIL("a read beyond the end");
    if (reads_until_failure > 0 && --reads_until_failure == 0) return Error(ErrorCode::kNeedsBlock);
    if (!pages_[index]) return Error(ErrorCode::kCorrupt, "a hole");
    return pages_[index];
  }
  void write(std::uint64_t index, PageRef page) override {
    if (index >= pages_.size() || !page) FAIL("a write beyond the end or of no page");
    written_ = true;
    ++writes_;
    pages_[index] = std::move(page);
  }
  void remove(std::uint64_t index) override {
    if (index >= pages_.size()) FAIL("a hole beyond the end");
    written_ = true;
    pages_[index] = PageRef();
  }
  std::uint64_t page_count() const override { return pages_.size(); }
  void set_page_count(std::uint64_t count) override {
    written_ = true;
    if (count < pages_.size()) {
      CHECK(count == 0);
      for (const PageRef& page : pages_) CHECK_FALSE(page);
    }
    pages_.resize(count);
  }

  void begin_operation() {
    written_ = false;
    writes_ = 0;
  }
  bool written() const { return written_; }
  unsigned writes() const { return writes_; }
  std::uint64_t pages_in_use() const {
    std::uint64_t count = 0;
    for (const PageRef& page : pages_) count += page ? 1 : 0;
    return count;
  }
  MemoryPages copy() const {
    MemoryPages other;
    other.pages_ = pages_;
    return other;
  }
  PageRef& page(std::uint64_t index) { return pages_[index]; }

  unsigned reads_until_failure = 0;

 private:
  std::vector<PageRef> pages_;
  bool written_ = false;
  unsigned writes_ = 0;
};

struct ModelEntry {
  std::uint64_t inode = 0;
  std::uint32_t type = 0;
  std::uint64_t cookie = 0;
};
using Model = std::map<std::string, ModelEntry>;
using Hash = std::function<std::uint64_t(std::string_view)>;

std::uint64_t usual_hash(std::string_view name) {
  return name_hash_of(name, kSeed);
}
std::uint64_t narrow_hash(std::string_view name) {
  return usual_hash(name) % 61 + 1;
}

// Checks what directory_format.h promises of a tree; returns the number of entries.
std::size_t check_tree(MemoryPages& pages, const Hash& hash) {
  pages.begin_operation();
  if (pages.page_count() == 0) return 0;
  struct Todo {
    std::uint64_t index, low, high;
    int level;
  };
  std::vector<Todo> todo{{0, 0, kDirectoryKeyEnd, -1}};
  std::set<std::uint64_t> seen;
  std::size_t entries = 0;
  while (!todo.empty()) {
    const Todo now = todo.back();
    todo.pop_back();
    REQUIRE(seen.insert(now.index).second);
    const PageRef page = pages.read(now.index).value();
    REQUIRE(valid_directory_page(page.bytes()));
    const DirectoryPageHeader header = directory_header_of(page.bytes());
    if (now.level < 0) {
      REQUIRE(header.level < directory_height_max(pages.page_count()));
      if (header.type == kDirectoryIndex) REQUIRE(header.count > 1);
    } else {
      REQUIRE(header.level == now.level);
    }
    if (header.type == kDirectoryLeaf) {
      const LeafView view(page.bytes());
      std::size_t live_bytes = 0;
      std::uint64_t previous = 0;
      for (unsigned slot = 0; slot < view.count(); ++slot) {
        LeafEntry entry;
        REQUIRE(view.entry(slot, entry));
        REQUIRE(entry.key > previous);
        REQUIRE(entry.key >= now.low);
        REQUIRE(entry.key < now.high);
        REQUIRE((entry.key >> kSequenceBits) == hash(entry.name));
        previous = entry.key;
        live_bytes += entry.name.size() + sizeof(LeafRecord);
      }
      REQUIRE(live_bytes == header.heap_live_bytes);
      entries += view.count();
      continue;
    }
    const IndexView view(page.bytes());
    REQUIRE(view.slot(0).key == 0);
    for (unsigned slot = 0; slot < view.count(); ++slot) {
      const std::uint64_t low = slot == 0 ? now.low : view.slot(slot).key;
      const std::uint64_t high = slot + 1 == view.count() ? now.high : view.slot(slot + 1).key;
      REQUIRE(low < high);
      todo.push_back({view.slot(slot).child, low, high, header.level - 1});
    }
  }
  REQUIRE(seen.size() == pages.pages_in_use());
  return entries;
}

std::string random_name(std::mt19937_64& random, std::size_t bytes_max) {
  std::string name(1 + random() % bytes_max, 'x');
  for (char& c : name) c = static_cast<char>('a' + random() % 26);
  return name;
}

// Runs random operations on a tree and a model side by side.
class ModelRun {
 public:
  ModelRun(std::uint64_t seed, Hash hash, std::size_t name_bytes_max, unsigned fail_every)
      : random_(seed), hash_(std::move(hash)), name_bytes_max_(name_bytes_max), fail_every_(fail_every) {}

  // Runs the operation until no read fails, each time one read later.
  template <class Operation>
  auto retried(Operation operation) {
    for (unsigned attempt = 1;; ++attempt) {
      pages_.begin_operation();
      pages_.reads_until_failure = fail_every_ == 0 ? 0 : attempt * fail_every_;
      auto result = operation();
      if (!result.ok() && result.error().code() == ErrorCode::kNeedsBlock) {
        CHECK_FALSE(pages_.written());
        continue;
      }
      pages_.reads_until_failure = 0;
      REQUIRE(result.ok());
      return std::move(result).value();
    }
  }

  // `insert_percent` of the operations insert, the rest is mostly removes.
  void run(unsigned operations, unsigned insert_percent) {
    for (unsigned i = 0; i < operations; ++i) {
      const unsigned dice = random_() % 100;
      if (dice < insert_percent) {
        insert();
      } else if (dice < insert_percent + 5) {
        replace();
      } else {
        remove();
      }
      if (i % 16 == 0) find_absent();
      if (i % 512 == 0) check();
    }
    check();
  }

  void remove_all() {
    for (unsigned i = 0; !model_.empty(); ++i) {
      remove();
      if (i % 256 == 0) CHECK(check_tree(pages_, hash_) == model_.size());
    }
    CHECK(pages_.page_count() == 0);
    CHECK(pages_.pages_in_use() == 0);
  }

  // As rm -r does it: leaf after leaf, so that leaves become empty beside full ones. `backwards` from the last cookie.
  void remove_all_in_order(bool backwards) {
    std::map<std::uint64_t, std::string> by_cookie;
    for (const auto& [name, entry] : model_) by_cookie[entry.cookie] = name;
    for (unsigned i = 0; !by_cookie.empty(); ++i) {
      const auto position = backwards ? std::prev(by_cookie.end()) : by_cookie.begin();
      remove(model_.find(position->second));
      by_cookie.erase(position);
      if (i % 64 == 0) CHECK(check_tree(pages_, hash_) == model_.size());
    }
    CHECK(pages_.page_count() == 0);
  }

  void check() {
    CHECK(check_tree(pages_, hash_) == model_.size());
    auto counts = list_in_pieces();
    CHECK(counts == model_.size());
    for (const auto& [name, entry] : model_) {
      pages_.begin_operation();
      const auto found = retried([&, &key = name] { return DirectoryTree(pages_).find(hash_(key), key); });
      REQUIRE(found.has_value());
      REQUIRE(found->inode.value == entry.inode);
      REQUIRE(found->type == entry.type);
      REQUIRE(found->cookie == entry.cookie);
    }
  }

  MemoryPages& pages() { return pages_; }
  Model& model() { return model_; }

 private:
  ModelEntry random_entry() {
    constexpr std::array<std::uint32_t, 7> kTypes{S_IFIFO, S_IFCHR, S_IFDIR, S_IFBLK, S_IFREG, S_IFLNK, S_IFSOCK};
    return {.inode = 1 + random_() % 1000000, .type = kTypes[random_() % kTypes.size()]};
  }
  Model::iterator random_position() {
    auto position = model_.lower_bound(random_name(random_, 8));
    return position == model_.end() ? model_.begin() : position;
  }

  void insert() {
    const std::string name = random_name(random_, name_bytes_max_);
    ModelEntry entry = random_entry();
    const std::uint64_t page_count = pages_.page_count();
    if (model_.contains(name)) {
      pages_.begin_operation();
      const auto result = DirectoryTree(pages_).insert(hash_(name), name, InodeNumber{entry.inode}, entry.type);
      CHECK(result.error().code() == ErrorCode::kExists);
      return;
    }
    entry.cookie = retried([&] {
                     return DirectoryTree(pages_).insert(hash_(name), name, InodeNumber{entry.inode}, entry.type);
                   }).cookie;
    CHECK(pages_.writes() <= directory_pages_written_max(page_count));
    CHECK(entry.cookie >= 128);
    CHECK((entry.cookie >> kSequenceBits) == hash_(name));
    model_[name] = entry;
  }
  void replace() {
    if (model_.empty()) return;
    auto position = random_position();
    ModelEntry entry = random_entry();
    entry.cookie = position->second.cookie;
    const auto before = retried([&] {
      return DirectoryTree(pages_).replace(hash_(position->first), position->first, InodeNumber{entry.inode},
                                           entry.type);
    });
    CHECK(before.inode.value == position->second.inode);
    position->second = entry;
  }
  void remove() {
    if (!model_.empty()) remove(random_position());
  }
  void remove(Model::iterator position) {
    const std::uint64_t page_count = pages_.page_count();
    const auto before = retried([&] { return DirectoryTree(pages_).remove(hash_(position->first), position->first); });
    CHECK(pages_.writes() <= directory_pages_written_max(page_count));
    CHECK(before.inode.value == position->second.inode);
    CHECK(before.cookie == position->second.cookie);
    model_.erase(position);
  }
  void find_absent() {
    const std::string name = random_name(random_, name_bytes_max_) + "!";
    if (name.size() > kDirectoryNameMaxBytes) return;
    CHECK_FALSE(retried([&] { return DirectoryTree(pages_).find(hash_(name), name); }).has_value());
    pages_.begin_operation();
    const auto removed = DirectoryTree(pages_).remove(hash_(name), name);
    CHECK(removed.error().code() == ErrorCode::kNotFound);
  }
  // Lists with a stop after every few entries; each entry must come once, in the order of its cookies.
  std::size_t list_in_pieces() {
    std::uint64_t cookie = 0;
    std::size_t total = 0;
    while (true) {
      unsigned wanted = 1 + random_() % 300;
      const std::size_t before = total;
      pages_.begin_operation();
      pages_.reads_until_failure = fail_every_ == 0 ? 0 : 8;
      const Status status =
          DirectoryTree(pages_).list(cookie, [&](std::string_view name, const DirectoryRecord& record) {
            const auto position = model_.find(std::string(name));
            REQUIRE(position != model_.end());
            REQUIRE(position->second.cookie == record.cookie);
            REQUIRE(position->second.inode == record.inode.value);
            REQUIRE(record.cookie > cookie);
            cookie = record.cookie;
            ++total;
            return --wanted > 0;
          });
      pages_.reads_until_failure = 0;
      if (!status.ok()) {
        REQUIRE(status.error().code() == ErrorCode::kNeedsBlock);
      } else if (total == before) {
        return total;
      }
    }
  }

  std::mt19937_64 random_;
  Hash hash_;
  std::size_t name_bytes_max_;
  unsigned fail_every_;
  MemoryPages pages_;
  Model model_;
};

void fill(MemoryPages& pages, unsigned count) {
  for (unsigned i = 0; i < count; ++i) {
    pages.begin_operation();
    REQUIRE(insert_entry(pages, kSeed, fmt::format("file number {}", i), InodeNumber{i + 16}, S_IFREG).ok());
  }
}

}  // namespace

TEST_CASE("an empty directory has no pages and no names") {
  MemoryPages pages;
  CHECK_FALSE(find_entry(pages, kSeed, "a")->has_value());
  CHECK(remove_entry(pages, kSeed, "a").error().code() == ErrorCode::kNotFound);
  CHECK(replace_entry(pages, kSeed, "a", InodeNumber{20}, S_IFREG).error().code() == ErrorCode::kNotFound);
  CHECK(list_entries(pages, 0, [](std::string_view, const DirectoryRecord&) { return true; }).ok());
  CHECK(pages.page_count() == 0);
}

TEST_CASE("names of no byte and of more than 255 are refused, those of 255 are not") {
  MemoryPages pages;
  CHECK(find_entry(pages, kSeed, "").error().code() == ErrorCode::kInvalid);
  CHECK(insert_entry(pages, kSeed, std::string(256, 'n'), InodeNumber{20}, S_IFREG).error().code() ==
        ErrorCode::kNameTooLong);
  REQUIRE(insert_entry(pages, kSeed, std::string(255, 'n'), InodeNumber{20}, S_IFDIR).ok());
  pages.begin_operation();
  const auto found = find_entry(pages, kSeed, std::string(255, 'n')).value();
  REQUIRE(found.has_value());
  CHECK(found->inode == InodeNumber{20});
  CHECK(found->type == S_IFDIR);
}

TEST_CASE("random operations give what the model gives") {
  const std::uint64_t seed = testing::printed_seed();
  for (const std::size_t name_bytes_max : {std::size_t{12}, std::size_t{255}}) {
    ModelRun run(seed, usual_hash, name_bytes_max, 0);
    run.run(6000, 90);
    run.run(6000, 45);
    run.run(4000, 10);
    run.run(2000, 80);
    run.remove_all();
    run.run(500, 90);
  }
}

TEST_CASE("a three-level tree grows and shrinks") {
  ModelRun run(testing::printed_seed(), usual_hash, 255, 0);
  for (int i = 0; i < 8; ++i) {
    std::mt19937_64 random(static_cast<std::uint64_t>(i));
    for (unsigned n = 0; n < 1000; ++n) {
      const std::string name = fmt::format("{:0>250}", std::to_string(i * 1000 + static_cast<int>(n)));
      run.pages().begin_operation();
      const auto record = DirectoryTree(run.pages()).insert(usual_hash(name), name, InodeNumber{n + 1}, S_IFREG);
      run.model()[name] = {.inode = n + 1, .type = S_IFREG, .cookie = record->cookie};
    }
  }
  run.check();
  run.pages().begin_operation();
  CHECK(directory_header_of(run.pages().read(0)->bytes()).level == 2);
  run.remove_all();
}

TEST_CASE("entries removed in the order of the listing, or backwards, leave no page behind") {
  const std::uint64_t seed = testing::printed_seed();
  for (const unsigned fail_every : {0U, 1U}) {
    for (const std::size_t name_bytes_max : {std::size_t{12}, std::size_t{255}}) {
      ModelRun run(seed, usual_hash, name_bytes_max, fail_every);
      run.run(4000, 95);
      run.remove_all_in_order(false);
      run.run(4000, 95);
      run.remove_all_in_order(true);
    }
  }
}

TEST_CASE("names of equal hash live side by side") {
  const std::uint64_t seed = testing::printed_seed();
  for (const std::size_t name_bytes_max : {std::size_t{6}, std::size_t{255}}) {
    ModelRun run(seed, narrow_hash, name_bytes_max, 0);
    run.run(4500, 75);
    run.run(3000, 40);
    run.remove_all();
  }
}

TEST_CASE("the 129th name of one hash is refused, and a sequence that became free is taken again") {
  MemoryPages pages;
  const auto name_of = [](unsigned i) { return fmt::format("{:0>255}", i); };
  const auto insert = [&](std::uint64_t hash, unsigned i) {
    pages.begin_operation();
    return DirectoryTree(pages).insert(hash, name_of(i), InodeNumber{i + 1}, S_IFREG);
  };
  for (unsigned i = 0; i < 128; ++i) CHECK(insert(7, i)->cookie == (7 << 7) + i);
  CHECK(insert(7, 128).error().code() == ErrorCode::kNoSpace);
  CHECK(insert(7, 100).error().code() == ErrorCode::kExists);
  for (unsigned i = 200; i < 203; ++i) CHECK(insert(6, i).ok());
  for (unsigned i = 300; i < 303; ++i) CHECK(insert(8, i).ok());
  for (const unsigned i : {90U, 0U, 127U}) {
    pages.begin_operation();
    REQUIRE(DirectoryTree(pages).remove(7, name_of(i)).ok());
    CHECK(insert(7, 128 + i)->cookie == (7 << 7) + i);
    pages.begin_operation();
    CHECK(DirectoryTree(pages).find(7, name_of(128 + i)).value()->inode == InodeNumber{128 + i + 1});
  }
}

TEST_CASE("an operation whose read fails has written nothing, and succeeds when it is run again") {
  const std::uint64_t seed = testing::printed_seed();
  for (const unsigned fail_every : {1U, 2U, 3U}) {
    ModelRun run(seed, fail_every == 2 ? Hash(narrow_hash) : Hash(usual_hash), 255, fail_every);
    run.run(2500, 85);
    run.run(2500, 30);
    run.remove_all();
  }
}

TEST_CASE("a listing shows once what is there all the time while other entries come and go") {
  MemoryPages pages;
  fill(pages, 3000);
  std::set<std::string> seen;
  std::uint64_t cookie = 0;
  unsigned come = 0;
  while (true) {
    unsigned wanted = 100;
    std::vector<std::string> gone;
    pages.begin_operation();
    REQUIRE(list_entries(pages, cookie, [&](std::string_view name, const DirectoryRecord& record) {
              CHECK(seen.insert(std::string(name)).second);
              cookie = record.cookie;
              gone.emplace_back(name);
              return --wanted > 0;
            }).ok());
    if (wanted == 100) break;
    for (const std::string& name : gone) {
      pages.begin_operation();
      REQUIRE(remove_entry(pages, kSeed, name).ok());
    }
    for (unsigned i = 0; i < 50; ++i) {
      pages.begin_operation();
      REQUIRE(insert_entry(pages, kSeed, fmt::format("new {}", come++), InodeNumber{16}, S_IFREG).ok());
    }
  }
  for (unsigned i = 0; i < 3000; ++i) CHECK(seen.contains(fmt::format("file number {}", i)));
}

TEST_CASE("a damaged page gives an error, never more") {
  std::mt19937_64 random(testing::printed_seed());
  MemoryPages whole;
  fill(whole, 6000);
  for (unsigned round = 0; round < 400; ++round) {
    MemoryPages pages = whole.copy();
    const unsigned flips = 1 + random() % 6;
    for (unsigned i = 0; i < flips; ++i) {
      const std::uint64_t index = random() % 3 == 0 ? 0 : random() % pages.page_count();
      if (!pages.page(index)) continue;
      pages.page(index).make_unique();
      const std::size_t range = random() % 2 == 0 ? 64 : kBlockSize;  // header and first slots as often as the rest
      pages.page(index).mutable_bytes()[random() % range] = static_cast<std::byte>(random());
    }
    for (unsigned i = 0; i < 300; ++i) {
      const std::string old_name = fmt::format("file number {}", random() % 6000);
      pages.begin_operation();
      Status status;
      switch (random() % 4) {
        case 0:
          if (auto result = find_entry(pages, kSeed, old_name); !result.ok()) status = result.error();
          break;
        case 1:
          if (auto result = insert_entry(pages, kSeed, random_name(random, 255), InodeNumber{20}, S_IFREG);
              !result.ok()) {
            status = result.error();
          }
          break;
        case 2:
          if (auto result = remove_entry(pages, kSeed, old_name); !result.ok()) status = result.error();
          break;
        default:
          if (auto result = replace_entry(pages, kSeed, old_name, InodeNumber{21}, S_IFDIR); !result.ok()) {
            status = result.error();
          }
      }
      if (status.ok()) continue;
      CHECK_FALSE(pages.written());
      const ErrorCode code = status.error().code();
      const bool expected = code == ErrorCode::kCorrupt || code == ErrorCode::kNotFound || code == ErrorCode::kExists;
      CHECK(expected);
    }
    std::uint64_t last = 0;
    pages.begin_operation();
    const Status listed = list_entries(pages, 0, [&](std::string_view, const DirectoryRecord& record) {
      CHECK(record.cookie > last);
      last = record.cookie;
      return true;
    });
    const bool expected = listed.ok() || listed.error().code() == ErrorCode::kCorrupt;
    CHECK(expected);
  }
}

TEST_CASE("pages of nothing but random bytes behind a right header give an error, never more") {
  std::mt19937_64 random(testing::printed_seed());
  MemoryPages whole;
  fill(whole, 3000);
  for (unsigned round = 0; round < 300; ++round) {
    MemoryPages pages = whole.copy();
    const std::uint64_t index = round % pages.page_count();
    pages.page(index).make_unique();
    auto bytes = pages.page(index).mutable_bytes();
    for (std::size_t i = sizeof(DirectoryPageHeader); i < kBlockSize; ++i) bytes[i] = static_cast<std::byte>(random());
    for (unsigned i = 0; i < 1000; ++i) {
      const std::string name = fmt::format("file number {}", random() % 3000);
      pages.begin_operation();
      if (random() % 2 == 0) {
        const auto removed = remove_entry(pages, kSeed, name);
        if (!removed.ok()) CHECK_FALSE(pages.written());
      } else {
        const auto inserted = insert_entry(pages, kSeed, name + "x", InodeNumber{20}, S_IFREG);
        if (!inserted.ok()) CHECK_FALSE(pages.written());
      }
    }
  }
}

TEST_CASE("damage that a check names") {
  MemoryPages whole;
  fill(whole, 25000);  // three levels
  const auto outcome = [&](auto damage) {
    MemoryPages pages = whole.copy();
    pages.page(0).make_unique();
    damage(pages);
    const Status status = list_entries(pages, 0, [](std::string_view, const DirectoryRecord&) { return true; });
    REQUIRE_FALSE(status.ok());
    CHECK(status.error().message().find("directory page") != std::string::npos);
    return status.error().code();
  };
  const auto set_child = [](MemoryPages& pages, std::uint64_t child) {
    std::memcpy(pages.page(0).mutable_bytes().data() + IndexView::slot_offset(1) + offsetof(IndexSlot, child), &child,
                sizeof child);
  };
  CHECK(outcome([](MemoryPages& pages) { pages.page(0) = PageRef::zeroed(); }) == ErrorCode::kCorrupt);
  CHECK(outcome([&](MemoryPages& pages) { set_child(pages, 0); }) == ErrorCode::kCorrupt);
  CHECK(outcome([&](MemoryPages& pages) { set_child(pages, ~std::uint64_t{0}); }) == ErrorCode::kCorrupt);
  CHECK(outcome([&](MemoryPages& pages) { set_child(pages, 1); }) == ErrorCode::kCorrupt);
  CHECK(outcome([](MemoryPages& pages) {
          pages.page(0).mutable_bytes()[offsetof(DirectoryPageHeader, level)] = std::byte{1};
        }) == ErrorCode::kCorrupt);
  CHECK(outcome([](MemoryPages& pages) {
          pages.page(0).mutable_bytes()[offsetof(DirectoryPageHeader, level)] = std::byte{3};
        }) == ErrorCode::kCorrupt);
}

TEST_CASE("200,000 entries are fast") {
  constexpr unsigned kCount = 200000;
  MemoryPages pages;
  std::vector<std::string> names;
  for (unsigned i = 0; i < kCount; ++i) names.push_back(fmt::format("some file {}.txt", i));
  const auto timed = [&](const char* what, auto operation) {
    const auto start = std::chrono::steady_clock::now();
    for (unsigned i = 0; i < kCount; ++i) {
      pages.begin_operation();
      operation(i);
    }
    const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - start;
    fmt::print("{}: {:.0f} ns each\n", what, spent.count() / kCount);
  };
  timed("insert", [&](unsigned i) {
    if (!insert_entry(pages, kSeed, names[i], InodeNumber{i + 16}, S_IFREG).ok()) FAIL("insert");
  });
  fmt::print("{} pages, height {}\n", pages.pages_in_use(), directory_header_of(pages.page(0).bytes()).level + 1);
  CHECK(pages.pages_in_use() < kCount / 40);
  timed("find", [&](unsigned i) {
    if (find_entry(pages, kSeed, names[(i * 7919ULL) % kCount]).value()->inode.value == 0) FAIL("find");
  });
  timed("find a name that is not there", [&](unsigned i) {
    if (find_entry(pages, kSeed + 1, names[i]).value().has_value()) FAIL("find");
  });
  unsigned listed = 0;
  const auto start = std::chrono::steady_clock::now();
  pages.begin_operation();
  REQUIRE(list_entries(pages, 0, [&](std::string_view, const DirectoryRecord&) {
            ++listed;
            return true;
          }).ok());
  const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - start;
  fmt::print("list: {:.0f} ns each\n", spent.count() / kCount);
  CHECK(listed == kCount);
  CHECK(check_tree(pages, usual_hash) == kCount);
  timed("remove", [&](unsigned i) {
    if (!remove_entry(pages, kSeed, names[i]).ok()) FAIL("remove");
  });
  CHECK(pages.page_count() == 0);
}
