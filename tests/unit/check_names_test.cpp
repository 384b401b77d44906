// The checker on directories, links, orphans and attributes: every planted damage is found as exactly what it is.
#include <doctest/doctest.h>

#include <algorithm>

#include "fs/check/checker.h"
#include "fs/tree/directory_node.h"
#include "tests/support/check_volume_builder.h"

using namespace tarnfs;
using tarnfs::testing::BuilderEntry;
using tarnfs::testing::BuilderInode;
using tarnfs::testing::CheckVolumeBuilder;

namespace {

struct Sample : CheckVolumeBuilder {
  Sample() { add_sample(); }

  std::string found() {
    auto report = check_volume(build(), {});
    REQUIRE(report.ok());
    std::string kinds;
    for (const Problem& problem : report->problems) {
      INFO(problem.text);
      CHECK(!problem.text.empty());
      if (!kinds.empty()) kinds += ' ';
      kinds += name_of(problem.kind);
    }
    return kinds;
  }

  // What is found when a page of a directory was changed.
  std::string found_with_page(std::uint64_t directory, std::uint64_t index,
                              const std::function<void(std::span<std::byte, kBlockSize>)>& change) {
    on_directory = [=](std::uint64_t number, BuilderInode& inode) {
      if (number != directory) return;
      PageRef& page = inode.pages.at(index);
      page.make_unique();
      change(page.mutable_bytes());
    };
    return found();
  }

  BuilderEntry& entry(std::uint64_t directory, const std::string& name) {
    auto& entries = inodes.at(directory).entries;
    return *std::find_if(entries.begin(), entries.end(), [&](const BuilderEntry& e) { return e.name == name; });
  }
};

template <class T>
void change_at(std::span<std::byte, kBlockSize> page, std::size_t offset, const std::function<void(T&)>& change) {
  T value;
  std::memcpy(&value, page.data() + offset, sizeof value);
  change(value);
  std::memcpy(page.data() + offset, &value, sizeof value);
}

}  // namespace

TEST_CASE("wrong link counts of files and directories") {
  Sample file;
  file.inodes.at(16).record.link_count = 3;
  CHECK(file.found() == "link_count");
  Sample directory;
  directory.inodes.at(18).record.link_count = 2;
  CHECK(directory.found() == "link_count");
  Sample root;
  root.inodes.at(1).record.link_count = 9;
  CHECK(root.found() == "link_count");
}

TEST_CASE("entries that name what they must not") {
  Sample free;
  free.inodes.at(19).entries.push_back({"gone", 60, S_IFREG});
  CHECK(free.found() == "entry_target");
  Sample type;
  type.entry(19, "fifo").type = S_IFREG;
  CHECK(type.found() == "entry_type");
  Sample attributes;
  attributes.inodes.at(19).entries.push_back({"attributes", 24, S_IFREG});
  CHECK(attributes.found() == "entry_target");
  Sample orphan_file;
  orphan_file.inodes.at(19).entries.push_back({"orphans", 2, S_IFREG});
  CHECK(orphan_file.found() == "entry_target");
  Sample root;
  root.inodes.at(19).entries.push_back({"top", 1, S_IFDIR});
  CHECK(root.found() == "entry_target");
}

TEST_CASE("names that cannot be") {
  for (const std::string& name : {std::string("a/b"), std::string("."), std::string(".."), std::string("a\0b", 3)}) {
    Sample sample;
    sample.entry(19, "fifo").name = name;
    CHECK(sample.found() == "entry_name");
  }
}

TEST_CASE("a wrong count of entries") {
  Sample sample;
  sample.on_directory = [](std::uint64_t number, BuilderInode& inode) {
    if (number == 18) ++inode.record.entry_count;
  };
  CHECK(sample.found() == "entry_count");
}

TEST_CASE("wrong parents and second names of directories") {
  Sample parent;
  parent.inodes.at(19).record.parent = 1;
  CHECK(parent.found() == "parent");
  Sample root;
  root.inodes.at(1).record.parent = 18;
  CHECK(root.found() == "parent");
  Sample second;
  second.inodes.at(32).entries.push_back({"again", 19, S_IFDIR});
  CHECK(second.found() == "parent");
}

TEST_CASE("directories that are their own ancestors") {
  Sample pair;
  pair.add(40, S_IFDIR | 0755, 2).record.parent = 41;
  pair.add_directory(41, 40, "down");
  ++pair.inodes.at(41).record.link_count;
  pair.inodes.at(41).entries.push_back({"up", 40, S_IFDIR});
  pair.add_named(42, S_IFREG | 0600, 41, "file");
  CHECK(pair.found() == "directory_loop");
  Sample self;
  self.add_directory(40, 40, "");
  ++self.inodes.at(40).record.link_count;
  self.inodes.at(40).entries.push_back({"me", 40, S_IFDIR});
  CHECK(self.found() == "directory_loop");
}

TEST_CASE("inodes and directories without a name") {
  Sample file;
  file.add(40, S_IFREG | 0600, 1);
  CHECK(file.found() == "unreachable");
  Sample directory;
  directory.add(40, S_IFDIR | 0755, 2).record.parent = 1;
  directory.add_named(41, S_IFREG | 0600, 40, "below");
  CHECK(directory.found() == "unreachable");
}

TEST_CASE("orphans") {
  Sample missing;
  missing.add(40, S_IFREG | 0600, 0);
  CHECK(missing.found() == "orphan");
  Sample directory;
  directory.add(40, S_IFDIR | 0700, 0).record.parent = 1;
  CHECK(directory.found() == "orphan");
  const auto found_with_list = [](std::vector<std::uint64_t> listed) {
    Sample sample;
    sample.inodes.at(2).pages[0] = PageRef::copy_of(std::as_bytes(std::span(listed)));
    sample.inodes.at(2).record.size_bytes = listed.size() * sizeof listed[0];
    return sample.found();
  };
  CHECK(found_with_list({25, 25}) == "orphan");
  CHECK(found_with_list({25, 60}) == "orphan");
  CHECK(found_with_list({25, 16}) == "orphan");
  CHECK(found_with_list({25, 0}) == "orphan");
  Sample named;
  named.inodes.at(19).entries.push_back({"alive", 25, S_IFREG});
  CHECK(named.found() == "link_count");
  Sample size;
  size.inodes.at(2).record.size_bytes = 12;
  CHECK(size.found() == "orphan");
}

TEST_CASE("attribute inodes and their owners") {
  Sample unclaimed;
  unclaimed.inodes.at(16).record.xattr_inode = 0;
  CHECK(unclaimed.found() == "attributes");
  Sample missing;
  missing.inodes.at(17).record.xattr_inode = 60;
  CHECK(missing.found() == "attributes");
  Sample wrong;
  wrong.inodes.at(17).record.xattr_inode = 22;
  CHECK(wrong.found() == "attributes");
  Sample shared;
  shared.inodes.at(17).record.xattr_inode = 24;
  CHECK(shared.found() == "attributes");
  Sample owner;
  owner.inodes.at(24).record.parent = 17;
  CHECK(owner.found() == "attributes");
  Sample links;
  links.inodes.at(24).record.link_count = 2;
  CHECK(links.found() == "attributes");
}

TEST_CASE("names that were hashed with another seed") {
  Sample sample;
  sample.seed_of_names = 78;
  const std::string kinds = sample.found();
  CHECK(kinds.starts_with("directory"));
  CHECK(kinds.find("link_count") == std::string::npos);
}

TEST_CASE("damaged pages of directories") {
  using Page = std::span<std::byte, kBlockSize>;
  CHECK(Sample().found_with_page(18, 0, [](Page page) { page[0] = std::byte{0}; }) == "directory");
  CHECK(Sample().found_with_page(18, 0, [](Page page) { page[12] = std::byte{1}; }) == "directory");
  // The count of slots.
  CHECK(Sample().found_with_page(18, 0, [](Page page) {
    change_at<std::uint16_t>(page, 6, [](std::uint16_t& count) { count = 60000; });
  }) == "directory");
  CHECK(Sample().found_with_page(18, 0, [](Page page) {
    change_at<std::uint16_t>(page, 10, [](std::uint16_t& live) { ++live; });
  }) == "directory");
  // A record that lies outside, and two that overlap.
  CHECK(Sample().found_with_page(18, 0, [](Page page) {
    change_at<LeafSlot>(page, LeafView::slot_offset(0), [](LeafSlot& slot) { slot.record_offset = 4095; });
  }) == "directory");
  CHECK(Sample()
            .found_with_page(19, 0,
                             [](Page page) {
                               change_at<LeafSlot>(page, LeafView::slot_offset(0),
                                                   [](LeafSlot& slot) { slot.name_bytes += 1; });
                             })
            .starts_with("directory"));
  // Keys out of order: the hash does not fit either.
  CHECK(Sample().found_with_page(19, 0, [](Page page) {
    change_at<LeafSlot>(page, LeafView::slot_offset(1), [](LeafSlot& slot) { slot.key = 200; });
  }) == "directory directory");
}

TEST_CASE("damaged index pages of directories") {
  using Page = std::span<std::byte, kBlockSize>;
  const auto found_with_slot = [](unsigned slot, const std::function<void(IndexSlot&)>& change) {
    return Sample().found_with_page(
        32, 0, [&](Page page) { change_at<IndexSlot>(page, IndexView::slot_offset(slot), change); });
  };
  CHECK(found_with_slot(0, [](IndexSlot& slot) { slot.key = 1; }) == "directory");
  CHECK(found_with_slot(1, [](IndexSlot& slot) { slot.child = 0; }) == "directory");
  CHECK(found_with_slot(1, [](IndexSlot& slot) { slot.child = 99; }) == "directory");
  CHECK(found_with_slot(1, [](IndexSlot& slot) { slot.key = kDirectoryKeyEnd; }) == "directory");
  // One child twice, so that another is left out.
  CHECK(found_with_slot(1, [](IndexSlot& slot) { slot.child = 1; }).starts_with("directory"));
  // The bound between two leaves moves up: keys of the right one are below it.
  CHECK(found_with_slot(1, [](IndexSlot& slot) { slot.key += std::uint64_t{1} << 57; }).starts_with("directory"));
}

TEST_CASE("pages that are no part of a directory's tree, and an empty directory with pages") {
  Sample stray;
  stray.on_directory = [](std::uint64_t number, BuilderInode& inode) {
    if (number != 18) return;
    inode.pages[1] = CheckVolumeBuilder::page_filled_with(3);
    inode.record.size_bytes += kBlockSize;
  };
  CHECK(stray.found() == "directory");
  Sample beyond;
  beyond.on_directory = [](std::uint64_t number, BuilderInode& inode) {
    if (number == 18) inode.pages[1] = CheckVolumeBuilder::page_filled_with(3);
  };
  CHECK(beyond.found() == "tree_shape directory");
  Sample empty;
  empty.on_directory = [](std::uint64_t number, BuilderInode& inode) {
    if (number == 18) inode.pages.clear();
  };
  CHECK(empty.found() == "directory");
}

TEST_CASE("one name twice in a directory") {
  Sample sample;
  sample.on_directory = [&](std::uint64_t number, BuilderInode& inode) {
    if (number != 19) return;
    LeafEntry entry;
    PageRef& page = inode.pages.at(0);
    REQUIRE(LeafView(page.bytes()).entry(0, entry));
    const std::string name(entry.name);
    entry.name = name;
    entry.key += 1;
    page.make_unique();
    const LeafEdit edit{LeafEdit::Kind::kInsert, 1, entry};
    REQUIRE(outcome_of(page.bytes(), edit) == NodeOutcome::kDone);
    apply_edit(page.mutable_bytes(), edit);
    ++inode.record.entry_count;
    ++sample.inodes.at(entry.inode).record.link_count;
  };
  CHECK(sample.found() == "entry_name");
}
