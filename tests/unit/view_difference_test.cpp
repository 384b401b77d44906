// What a new state changes of the one before: exactly that, and only of what is known.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <map>
#include <optional>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "fs/engine/view_difference.h"
#include "fs/tree/tree_difference.h"
#include "tests/support/seed.h"
#include "tests/support/test_volume.h"

using namespace tarnfs;
using namespace tarnfs::testing;

namespace {

class CountingSource final : public BlockSource {
 public:
  explicit CountingSource(BlockDevice& device) : device_(device) {}
  Result<PageRef> get(const BlockPointer& pointer) override {
    ++reads;
    return read_block(device_, pointer);
  }
  std::uint64_t reads = 0;

 private:
  BlockDevice& device_;
};

// A volume whose states are kept, so that two of them can be compared.
class States : public TestVolume {
 public:
  States() : pin_(volume->pin_newest_root().pin) {}
  ~States() { volume->unpin(pin_); }

  // Ends a state and begins the next one.
  RootBlock next() {
    REQUIRE(volume->consistency_point().ok());
    return volume->newest_root();
  }
  Result<ViewChange> compare(const RootBlock& before, const RootBlock& after, const ViewDifferenceLimits& limits = {}) {
    CountingSource source(*device);
    auto change = view_difference(before, after, source, is_known, limits);
    reads = source.reads;
    return change;
  }

  std::function<bool(InodeNumber)> is_known = [](InodeNumber number) {
    return number == kRootDirectory || number >= kFirstFreeInode;
  };
  std::uint64_t reads = 0;

 private:
  PinId pin_;
};

using Ranges = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

// By inode: nothing when it is not in the change.
std::optional<Ranges> pages_of(const ViewChange& change, InodeNumber number) {
  for (const ViewChange::Inode& inode : change.inodes) {
    if (inode.number != number) continue;
    return Ranges(inode.pages.ranges().begin(), inode.pages.ranges().end());
  }
  return std::nullopt;
}

// "directory/name", and "+" before names that are new.
std::set<std::string> names_of(const ViewChange& change) {
  std::set<std::string> names;
  for (const ViewChange::Name& name : change.names) {
    names.insert((name.is_new ? "+" : "") + std::to_string(name.directory.value) + "/" + name.name);
  }
  return names;
}

std::string in(InodeNumber directory, const std::string& name) {
  return std::to_string(directory.value) + "/" + name;
}

}  // namespace

TEST_CASE("equal states differ in nothing, and nothing is read") {
  States states;
  states.make(kRootDirectory, "file");
  const RootBlock root = states.next();
  const auto change = states.compare(root, root);
  REQUIRE(change.ok());
  CHECK(change->inodes.empty());
  CHECK(change->names.empty());
  CHECK(states.reads == 0);
}

TEST_CASE("a changed block of a large file is one page, and its data is not read") {
  States states;
  const InodeNumber file = states.make(kRootDirectory, "file");
  const InodeNumber other = states.make(kRootDirectory, "other");
  REQUIRE(states.write(file, 0, std::string(40 << 20, 'x')).ok());
  REQUIRE(states.write(other, 0, "other").ok());
  const RootBlock before = states.next();
  REQUIRE(states.write(file, 7777 * kBlockSize + 5, "y").ok());
  const auto change = states.compare(before, states.next());
  REQUIRE(change.ok());
  CHECK(pages_of(*change, file) == Ranges{{7777, 7778}});
  CHECK(change->inodes.size() == 1);
  CHECK(change->names.empty());
  CHECK(states.reads < 12);
}

TEST_CASE("attributes, and content that gets longer, shorter, or a hole") {
  States states;
  std::map<std::string, InodeNumber> files;
  for (const std::string name : {"chmod", "grow", "shrink", "punch", "append", "xattr", "untouched"}) {
    files[name] = states.make(kRootDirectory, name);
    REQUIRE(states.write(files[name], 0, std::string(100 * kBlockSize, 'x')).ok());
  }
  Volume& volume = *states.volume;
  const RootBlock before = states.next();
  REQUIRE(volume.change_attributes(files["chmod"], {.mode = 0600}).ok());
  REQUIRE(volume.change_attributes(files["grow"], {.size_bytes = 1000 * kBlockSize}).ok());
  REQUIRE(volume.change_attributes(files["shrink"], {.size_bytes = 50 * kBlockSize + 1}).ok());
  REQUIRE(
      volume.fallocate(files["punch"], 10 * kBlockSize, 20 * kBlockSize, {.keep_size = true, .punch_hole = true}).ok());
  REQUIRE(states.write(files["append"], 100 * kBlockSize, "more").ok());
  REQUIRE(volume.set_xattr(files["xattr"], "user.x", std::as_bytes(std::span("value", 5)), XattrMode::kCreate).ok());
  const auto change = states.compare(before, states.next());
  REQUIRE(change.ok());
  CHECK(pages_of(*change, files["chmod"]) == Ranges{});
  CHECK(pages_of(*change, files["grow"]) == Ranges{{100, kEndOfFile}});
  CHECK(pages_of(*change, files["shrink"]) == Ranges{{50, kEndOfFile}});
  CHECK(pages_of(*change, files["punch"]) == Ranges{{10, 30}});
  CHECK(pages_of(*change, files["append"]) == Ranges{{100, kEndOfFile}});
  CHECK(pages_of(*change, files["xattr"]) == Ranges{});
  CHECK(pages_of(*change, files["untouched"]) == std::nullopt);
  CHECK(pages_of(*change, kRootDirectory) == std::nullopt);
  CHECK(change->names.empty());
}

TEST_CASE("other attributes of an inode that has some already are told of the inode") {
  States states;
  const InodeNumber file = states.make(kRootDirectory, "file");
  const auto set = [&](std::string_view value) {
    return states.volume->set_xattr(file, "user.x", std::as_bytes(std::span(value)), XattrMode::kCreateOrReplace);
  };
  REQUIRE(set("one").ok());
  const RootBlock before = states.next();
  REQUIRE(set("two").ok());
  const auto change = states.compare(before, states.next());
  REQUIRE(change.ok());
  CHECK(pages_of(*change, file) == Ranges{});
  for (const ViewChange::Inode& inode : change->inodes) CHECK(inode.number == file);
}

TEST_CASE("names that come, go, move, are exchanged, and lead elsewhere") {
  States states;
  Volume& volume = *states.volume;
  const InodeNumber a = states.make(kRootDirectory, "a", S_IFDIR | 0755);
  const InodeNumber b = states.make(kRootDirectory, "b", S_IFDIR | 0755);
  for (const std::string name : {"gone", "moved", "replaced", "linked", "stays", "left", "right"}) states.make(a, name);
  const InodeNumber linked = volume.lookup(a, "linked")->inode;
  const RootBlock before = states.next();
  REQUIRE(volume.unlink(a, "gone").ok());
  REQUIRE(volume.rename(a, "moved", b, "here", RenameMode::kReplace).ok());
  states.make(a, "temporary");
  REQUIRE(volume.rename(a, "temporary", a, "replaced", RenameMode::kReplace).ok());
  REQUIRE(volume.link(linked, b, "second").ok());
  REQUIRE(volume.rename(a, "left", a, "right", RenameMode::kExchange).ok());
  states.make(b, "new");
  states.make(b, "came and went");
  REQUIRE(volume.unlink(b, "came and went").ok());
  const auto change = states.compare(before, states.next());
  REQUIRE(change.ok());
  CHECK(names_of(*change) == std::set<std::string>{in(a, "gone"), in(a, "moved"), in(a, "replaced"), in(a, "left"),
                                                   in(a, "right"), "+" + in(b, "here"), "+" + in(b, "second"),
                                                   "+" + in(b, "new")});
  CHECK(pages_of(*change, linked) == Ranges{});  // its link count
  CHECK(pages_of(*change, a).has_value());
  CHECK(pages_of(*change, b).has_value());
}

TEST_CASE("a directory that is gone has lost its names; a file that is gone is told by its name alone") {
  States states;
  Volume& volume = *states.volume;
  const InodeNumber directory = states.make(kRootDirectory, "directory", S_IFDIR | 0755);
  const InodeNumber file = states.make(directory, "file");
  REQUIRE(states.write(file, 0, "content").ok());
  const RootBlock before = states.next();
  REQUIRE(volume.unlink(directory, "file").ok());
  REQUIRE(volume.remove_directory(kRootDirectory, "directory").ok());
  volume.forget(file, 1);
  volume.forget(directory, 1);
  const auto change = states.compare(before, states.next());
  REQUIRE(change.ok());
  CHECK(names_of(*change) == std::set<std::string>{in(kRootDirectory, "directory"), in(directory, "file")});
  CHECK(!pages_of(*change, file));
  CHECK(!pages_of(*change, directory));
}

TEST_CASE("what nobody knows is not told") {
  States states;
  const InodeNumber known = states.make(kRootDirectory, "known", S_IFDIR | 0755);
  const InodeNumber unknown = states.make(kRootDirectory, "unknown", S_IFDIR | 0755);
  const InodeNumber seen = states.make(known, "seen");
  const InodeNumber unseen = states.make(known, "unseen");
  const RootBlock before = states.next();
  for (const InodeNumber file : {seen, unseen}) REQUIRE(states.write(file, 0, "content").ok());
  REQUIRE(states.volume->unlink(known, "seen").ok());
  REQUIRE(states.volume->unlink(known, "unseen").ok());
  states.make(unknown, "new");
  states.is_known = [&](InodeNumber number) { return number == kRootDirectory || number == known || number == seen; };
  const auto change = states.compare(before, states.next());
  REQUIRE(change.ok());
  CHECK(names_of(*change) == std::set<std::string>{in(known, "seen")});
  CHECK(!pages_of(*change, unknown));
  CHECK(!pages_of(*change, unseen));
  CHECK(pages_of(*change, known).has_value());
}

TEST_CASE("before the first state there was an empty root directory") {
  States states;
  const InodeNumber directory = states.make(kRootDirectory, "directory", S_IFDIR | 0755);
  states.make(directory, "file");
  RootBlock nothing;
  nothing.cp = 0;
  states.is_known = [](InodeNumber number) { return number == kRootDirectory; };
  const auto change = states.compare(nothing, states.next());
  REQUIRE(change.ok());
  CHECK(names_of(*change) == std::set<std::string>{"+" + in(kRootDirectory, "directory")});
  CHECK(pages_of(*change, kRootDirectory).has_value());
}

TEST_CASE("a directory of many leaves is compared in the order of its keys") {
  std::mt19937_64 random(printed_seed());
  States states;
  const InodeNumber directory = states.make(kRootDirectory, "directory", S_IFDIR | 0755);
  std::set<std::string> present;
  const auto add = [&](const std::string& name) {
    if (present.insert(name).second) states.make(directory, name);
  };
  for (int i = 0; i < 3000; ++i) add(std::to_string(random() % 100000));
  RootBlock before = states.next();
  for (int round = 0; round < 8; ++round) {
    const std::set<std::string> old_names = present;
    for (std::uint64_t i = random() % 400; i > 0; --i) add(std::to_string(random() % 100000));
    // In some rounds so many go that leaves are merged.
    for (std::uint64_t i = random() % (round % 3 == 2 ? 2500 : 300); i > 0 && !present.empty(); --i) {
      const auto victim = std::next(present.begin(), static_cast<std::ptrdiff_t>(random() % present.size()));
      REQUIRE(states.volume->unlink(directory, *victim).ok());
      present.erase(victim);
    }
    const RootBlock after = states.next();
    const auto change = states.compare(before, after);
    REQUIRE(change.ok());
    std::set<std::string> found;
    for (const ViewChange::Name& name : change->names) {
      REQUIRE(name.directory == directory);
      found.insert(name.name);
      // A name that went and came again leads to another inode.
      CHECK(name.is_new == !old_names.contains(name.name));
    }
    for (const std::string& name : old_names) CHECK((present.contains(name) || found.contains(name)));
    for (const std::string& name : present) CHECK((old_names.contains(name) || found.contains(name)));
    before = after;
  }
}

TEST_CASE("a file in too many pieces has changed as a whole, and a limit ends the walk") {
  States states;
  const InodeNumber file = states.make(kRootDirectory, "file");
  REQUIRE(states.write(file, 0, std::string(8 << 20, 'x')).ok());
  const RootBlock before = states.next();
  for (std::uint64_t page = 0; page < 2000; page += 4) REQUIRE(states.write(file, page * kBlockSize, "y").ok());
  for (int i = 0; i < 300; ++i) states.make(kRootDirectory, "name " + std::to_string(i));
  const RootBlock after = states.next();
  const auto change = states.compare(before, after);
  REQUIRE(change.ok());
  CHECK(pages_of(*change, file) == Ranges{{0, kEndOfFile}});
  const auto finer = states.compare(before, after, {.ranges_max = 500});
  REQUIRE(finer.ok());
  CHECK(pages_of(*finer, file)->size() == 500);
  CHECK(states.compare(before, after, {.blocks_max = 5}).error().code() == ErrorCode::kCanceled);
  CHECK(states.compare(before, after, {.names_bytes_max = 1000}).error().code() == ErrorCode::kCanceled);
}

TEST_CASE("trees of different heights are compared place by place") {
  States states;
  const InodeNumber file = states.make(kRootDirectory, "file");
  const InodeNumber other = states.make(kRootDirectory, "other");
  for (const std::uint64_t page : {0, 2, 3}) REQUIRE(states.write(file, page * kBlockSize, "x").ok());
  REQUIRE(states.write(other, 100000 * kBlockSize, "end").ok());
  const RootBlock low = states.next();
  // The tree gets two levels of nodes, and what was in it stays where it is.
  REQUIRE(states.write(file, 600 * kBlockSize, "y").ok());
  REQUIRE(states.volume->change_attributes(file, {.size_bytes = 3 * kBlockSize + 1}).ok());
  REQUIRE(states.volume->change_attributes(other, {.size_bytes = 0}).ok());
  REQUIRE(states.write(other, 0, "start").ok());
  const RootBlock high = states.next();
  const auto change = states.compare(low, high);
  REQUIRE(change.ok());
  REQUIRE(pages_of(*change, other).has_value());
  CHECK(pages_of(*change, other)->front().first == 0);
  // As pure trees.
  TreeRoot small;
  TreeRoot grown;
  const auto block = [](std::uint64_t address) { return BlockPointer{address, 1, 1, 0, 0}; };
  small.pointers = {block(100), block(101), BlockPointer{}, block(103)};
  TreeNode node{};
  node[0] = block(100);
  node[1] = block(999);
  node[3] = block(103);
  node[77] = block(177);
  class OneNode final : public BlockSource {
   public:
    explicit OneNode(const TreeNode& node) : page_(page_of(node)) {}
    Result<PageRef> get(const BlockPointer& pointer) override {
      REQUIRE(pointer.address == 500);
      return page_;
    }

   private:
    PageRef page_;
  } source(node);
  grown.height = 1;
  grown.pointers[0] = block(500);
  for (const bool grows : {true, false}) {
    std::set<std::uint64_t> indexes;
    const auto visit = [&](const TreeDifference& place) -> Result<bool> {
      CHECK(place.level == 0);
      indexes.insert(place.index);
      return true;
    };
    REQUIRE(visit_differences(grows ? small : grown, grows ? grown : small, source, visit).ok());
    CHECK(indexes == std::set<std::uint64_t>{1, 77});
  }
}
