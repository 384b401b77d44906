// What the names say against what the inodes say: link counts, orphans, loops, attribute inodes.
#include <fmt/format.h>

#include <algorithm>

#include "fs/check/check_state.h"

namespace tarnfs::check {
namespace {

class LinkCheck {
 public:
  explicit LinkCheck(CheckState& state) : state_(state) {}

  void mark_orphans();
  void check_inode(std::uint64_t number, const InodeSlot& slot);

 private:
  void check_directory(std::uint64_t number, const InodeSlot& slot);
  void check_file(std::uint64_t number, const InodeSlot& slot);
  void check_reserved(std::uint64_t number, const InodeSlot& slot);
  void error(ProblemKind kind, std::uint64_t number, std::string text) {
    state_.log.error(kind, InodeNumber{number}, std::nullopt, std::move(text));
  }

  CheckState& state_;
};

void LinkCheck::mark_orphans() {
  state_.report.counters.orphans = state_.orphans.size();
  for (const std::uint64_t number : state_.orphans) {
    const InodeSlot slot = state_.inodes.find(number);
    if (!slot) {
      if (state_.lost_inodes.contains(number)) continue;
      error(ProblemKind::kOrphan, number, fmt::format("the orphan file lists inode {}, which is free", number));
    } else if (slot.has(kIsOrphan)) {
      error(ProblemKind::kOrphan, number, fmt::format("the orphan file lists inode {} twice", number));
    } else if (slot.link_count() != 0) {
      error(ProblemKind::kOrphan, number,
            fmt::format("the orphan file lists inode {}, which has {} links", number, slot.link_count()));
    } else {
      slot.state() |= kIsOrphan;
    }
  }
}

void LinkCheck::check_inode(std::uint64_t number, const InodeSlot& slot) {
  const bool reserved = number < kFirstFreeInode.value && number != kRootDirectory.value;
  if (reserved || slot.has(kIsAttributes)) return check_reserved(number, slot);
  const bool named = slot.type() == kTypeDirectory ? slot.has(kIsNamed) : slot.found_count() != 0;
  if (slot.link_count() == 0 && !named && !slot.has(kIsOrphan) && state_.orphans_complete) {
    error(ProblemKind::kOrphan, number,
          fmt::format("inode {} has no links, but the orphan file does not list it", number));
  }
  slot.type() == kTypeDirectory ? check_directory(number, slot) : check_file(number, slot);
}

void LinkCheck::check_reserved(std::uint64_t number, const InodeSlot& slot) {
  if (slot.link_count() == 1) return;
  if (slot.has(kIsAttributes)) {
    error(ProblemKind::kAttributes, number,
          fmt::format("attribute inode {} has the link count {}, not 1", number, slot.link_count()));
  } else if (number == kOrphanFile.value) {
    error(ProblemKind::kOrphan, number, fmt::format("the orphan file has the link count {}", slot.link_count()));
  } else if (number == kShareFile.value) {
    error(ProblemKind::kShareMap, number, fmt::format("the share map has the link count {}", slot.link_count()));
  }
}

void LinkCheck::check_directory(std::uint64_t number, const InodeSlot& slot) {
  const bool named = slot.has(kIsNamed) || number == kRootDirectory.value;
  const std::uint64_t subdirectories = slot.found_count();
  if (slot.link_count() == 0) {
    if (!named && subdirectories == 0) return;
    return error(ProblemKind::kLinkCount, number,
                 fmt::format("directory {} has no links, but {}", number,
                             named ? "a name" : fmt::format("{} subdirectories", subdirectories)));
  }
  const std::uint64_t expected = subdirectories + 2;
  // In a directory that could not be read whole there may be more.
  if (slot.link_count() < expected || (slot.link_count() > expected && !slot.has(kIsUnreadable))) {
    // An entry to an inode that could not be read may be a directory.
    if (slot.link_count() < expected || state_.lost_inodes.empty()) {
      error(ProblemKind::kLinkCount, number,
            fmt::format("directory {} has the link count {}, but {} subdirectories", number, slot.link_count(),
                        subdirectories));
    }
  }
  if (!named && state_.names_complete) {
    error(ProblemKind::kUnreachable, number, fmt::format("directory {} has no name", number));
  }
}

void LinkCheck::check_file(std::uint64_t number, const InodeSlot& slot) {
  const std::uint32_t found = slot.found_count();
  if (found == slot.link_count()) return;
  if (found < slot.link_count() && !state_.names_complete) return;
  if (found == 0) {
    return error(ProblemKind::kUnreachable, number,
                 fmt::format("inode {} has the link count {}, but no name", number, slot.link_count()));
  }
  error(ProblemKind::kLinkCount, number,
        fmt::format("inode {} has the link count {}, but {} names", number, slot.link_count(), found));
}

// Finds directories that are their own ancestors: follows the names upwards, each directory once.
class LoopCheck {
 public:
  explicit LoopCheck(CheckState& state)
      : state_(state), directories_(state.inodes.directories()), mark_(directories_.size(), 0) {
    std::sort(state_.found_parents.begin(), state_.found_parents.end());
  }

  void run() {
    std::vector<std::size_t> path;
    for (std::size_t start = 0; start < directories_.size(); ++start) {
      std::size_t at = start;
      while (at < directories_.size() && mark_[at] == kUnseen) {
        mark_[at] = kOnPath;
        path.push_back(at);
        at = parent_of(at);
      }
      if (at < directories_.size() && mark_[at] == kOnPath) {
        state_.log.error(ProblemKind::kDirectoryLoop, InodeNumber{directories_[at].number}, std::nullopt,
                         fmt::format("directory {} is its own ancestor", directories_[at].number));
      }
      for (const std::size_t seen : path) mark_[seen] = kSeen;
      path.clear();
    }
  }

 private:
  static constexpr std::uint8_t kUnseen = 0;
  static constexpr std::uint8_t kOnPath = 1;
  static constexpr std::uint8_t kSeen = 2;

  // The directory that names this one; the number of directories when it has no name.
  std::size_t parent_of(std::size_t position) const {
    const std::uint64_t number = directories_[position].number;
    const InodeSlot slot = state_.inodes.find(number);
    if (!slot || !slot.has(kIsNamed)) return directories_.size();
    std::uint64_t parent = directories_[position].parent;
    const auto found = std::lower_bound(state_.found_parents.begin(), state_.found_parents.end(), number,
                                        [](const auto& pair, std::uint64_t wanted) { return pair.first < wanted; });
    if (found != state_.found_parents.end() && found->first == number) parent = found->second;
    return state_.inodes.find_directory(parent);
  }

  CheckState& state_;
  const std::vector<DirectoryInfo>& directories_;
  std::vector<std::uint8_t> mark_;
};

void check_attribute_links(CheckState& state) {
  auto& claims = state.attribute_claims;
  auto& inodes = state.attribute_inodes;
  std::sort(claims.begin(), claims.end());
  const auto error = [&](std::uint64_t number, std::string text) {
    state.log.error(ProblemKind::kAttributes, InodeNumber{number}, std::nullopt, std::move(text));
  };
  for (std::size_t i = 0; i < claims.size(); ++i) {
    const auto& [attributes, owner] = claims[i];
    const auto found = std::lower_bound(inodes.begin(), inodes.end(), AttributeLink{attributes, 0});
    if (i > 0 && claims[i - 1].attributes == attributes) {
      error(owner,
            fmt::format("inodes {} and {} both name attribute inode {}", claims[i - 1].owner, owner, attributes));
    } else if (found == inodes.end() || found->attributes != attributes) {
      if (state.lost_inodes.contains(attributes)) continue;
      error(owner, fmt::format("inode {} names attribute inode {}, which is none", owner, attributes));
    } else if (found->owner != owner) {
      error(owner, fmt::format("inode {} names attribute inode {}, which belongs to inode {}", owner, attributes,
                               found->owner));
    }
  }
  for (const auto& [attributes, owner] : inodes) {
    const auto claim = std::lower_bound(claims.begin(), claims.end(), AttributeLink{attributes, 0});
    if (claim != claims.end() && claim->attributes == attributes) continue;
    if (state.lost_inodes.contains(owner)) continue;
    error(attributes, fmt::format("attribute inode {} belongs to inode {}, which does not name it", attributes, owner));
  }
}

}  // namespace

void check_links(CheckState& state) {
  state.phase = "links";
  LinkCheck links(state);
  links.mark_orphans();
  state.inodes.for_each([&](std::uint64_t number, const InodeSlot& slot) { links.check_inode(number, slot); });
  const InodeSlot root = state.inodes.find(kRootDirectory.value);
  const std::size_t position = state.inodes.find_directory(kRootDirectory.value);
  if (root && position < state.inodes.directories().size() &&
      state.inodes.directories()[position].parent != kRootDirectory.value) {
    state.log.error(ProblemKind::kParent, kRootDirectory, std::nullopt, "the root directory does not name itself");
  }
  LoopCheck(state).run();
  check_attribute_links(state);
}

}  // namespace tarnfs::check
