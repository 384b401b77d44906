// What a file system may look like after a crash: an independent and simple model.
//
// Purpose: it is told every operation and every persistence call with the events of the device between which they ran,
// and judges what is seen after a cut of the power.
//
// Invariants (what is legal at a cut):
//   1. The names are those after the first k operations on names, for one k: not fewer than were done before the last
//      acknowledged persistence call of any kind began, not more than had begun at the cut.
//   2. Content with size, and apart from that mode, owner and extended attributes, of every inode are one version of
//      its history each, whole: not older than at the begin of the last acknowledged consistency point or fsync of that
//      inode (for content: or fdatasync), not newer than begun at the cut.
//   3. A file that was renamed over another one within the k operations has a content not older than at that rename.
//   4. Inode numbers stay, link counts follow from the names.
//
// Thread safety: none; one thread tells, and the model is only read after that.
// Errors: judge() returns what is wrong in words.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/support/observation.h"
#include "tests/support/recording_block_device.h"

namespace tarnfs::testing {

// A file's content, and where it has space.
struct Content {
  SharedText text;
  std::optional<FilePages> pages;  // nothing: not known
};

enum class Persistence { kConsistencyPoint, kFsync, kFdatasync };

class ModelFileSystem {
 public:
  // Begins with what a volume showed when it was durable.
  explicit ModelFileSystem(const Observation& start);

  // The present state.
  const Names& names() const { return names_; }
  std::optional<std::uint64_t> find(std::string_view path) const;
  std::optional<std::uint64_t> child(std::uint64_t directory, const std::string& name) const;
  const std::string& content(std::uint64_t inode) const { return *inodes_.at(inode).contents.back().value.text; }
  const std::optional<FilePages>& pages(std::uint64_t inode) const {
    return inodes_.at(inode).contents.back().value.pages;
  }
  const Metadata& metadata(std::uint64_t inode) const { return inodes_.at(inode).metadatas.back().value; }
  bool is_directory(std::uint64_t inode) const;
  bool has_entries(std::uint64_t directory) const;
  // Is `ancestor` `directory` itself or above it?
  bool is_at_or_above(std::uint64_t ancestor, std::uint64_t directory) const;
  std::string steps_text() const;

  // One operation: a step, within it its effects, and its end. One that failed changed nothing.
  void begin_step(std::string text, std::size_t event);
  void add_inode(std::uint64_t inode, Metadata metadata, std::string content);
  void set_name(std::uint64_t directory, const std::string& name, std::uint64_t inode);
  void remove_name(std::uint64_t directory, const std::string& name);
  void set_content(std::uint64_t inode, std::string content, std::optional<FilePages> pages);
  void set_metadata(std::uint64_t inode, Metadata metadata);
  void note_replacing(std::uint64_t inode);
  void end_step(std::size_t event);
  // A persistence call that was acknowledged; `inode` of a consistency point is 0. May be told later, from another
  // thread's notes.
  void persisted(Persistence kind, std::uint64_t inode, std::size_t begin_event, std::size_t end_event);

  // What is wrong with `seen` after a cut at `cut`; empty when it is legal.
  std::string judge(const Observation& seen, std::size_t cut) const;

 private:
  template <class T>
  struct Version {
    std::size_t step = 0;  // 0: there from the start
    T value;
  };
  struct Inode {
    std::vector<Version<Content>> contents;
    std::vector<Version<Metadata>> metadatas;
  };
  struct Step {
    std::string text;
    std::size_t begin_event = 0;
    std::size_t end_event = kNoEvent;
  };
  struct NameOperation {
    std::size_t step = 0;
    Names after;
    std::uint64_t replacing_inode = 0;  // 0: no rename over another file
  };
  // Of an acknowledged call. Step 0, the start, is always persistent.
  struct Promise {
    std::size_t end_event = 0;
    std::uint64_t inode = 0;    // 0: of all inodes
    std::size_t done_step = 0;  // it and those before it are persistent
    bool with_metadata = true;
  };
  struct Bounds;

  std::size_t steps_done_before(std::size_t event) const;
  Bounds bounds_at(std::size_t cut) const;
  const Names& names_after(std::size_t count) const;
  std::string judge_contents(const Observation& seen, const Bounds& bounds, std::size_t count) const;
  std::string judge_inode(std::uint64_t number, const ObservedInode& seen, const Bounds& bounds,
                          std::size_t content_floor) const;
  template <class T, class Same>
  std::string judge_version(const std::vector<Version<T>>& versions, std::size_t floor, std::size_t begun,
                            const Same& same_as_seen) const;
  std::string explain_names(const Observation& seen, const Bounds& bounds) const;

  Names start_names_;
  Names names_;
  std::map<std::uint64_t, Inode> inodes_;
  std::vector<Step> steps_;  // the first one is step 1
  std::vector<NameOperation> name_operations_;
  std::vector<Promise> promises_;
  bool names_changed_ = false;         // by the step that runs
  std::uint64_t replacing_inode_ = 0;  // by the step that runs
};

}  // namespace tarnfs::testing
