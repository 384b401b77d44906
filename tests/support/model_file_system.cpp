#include "tests/support/model_file_system.h"

#include <sys/stat.h>

#include <algorithm>

namespace tarnfs::testing {
namespace {

std::string text_of(const Metadata& metadata) {
  std::string text = "mode " + std::to_string(metadata.mode) + ", owner " + std::to_string(metadata.uid) + ":" +
                     std::to_string(metadata.gid);
  for (const auto& [name, value] : metadata.xattrs) text.append(", ").append(name).append("=").append(value);
  return text;
}

std::string text_of(const SharedText& content) {
  constexpr std::size_t kShownBytes = 24;
  std::string start = content->substr(0, kShownBytes);
  std::replace(start.begin(), start.end(), '\0', '.');
  return std::to_string(content->size()) + " bytes, '" + start + "'";
}

std::string text_of(const Content& content) {
  std::string text = text_of(content.text);
  if (content.pages) text += ", space for " + std::to_string(content.pages->count()) + " pages";
  return text;
}

// The blocks are those of the pages, and few more for the nodes above them.
bool has_space(const Content& version, const ObservedInode& seen) {
  constexpr std::uint64_t kNodesMax = 16;
  if (!version.pages || !S_ISREG(seen.metadata.mode)) return true;
  const std::uint64_t count = version.pages->count();
  return seen.block_count >= count && seen.block_count <= count + kNodesMax;
}

std::uint32_t links_expected(const Names& names, std::uint64_t inode, const std::map<std::uint64_t, ObservedInode>& all,
                             bool directory) {
  std::uint32_t links = directory ? 2 : 0;
  for (const auto& [key, child] : names) {
    if (!directory && child == inode) ++links;
    if (directory && key.directory == inode && S_ISDIR(all.at(child).metadata.mode)) ++links;
  }
  return links;
}

}  // namespace

struct ModelFileSystem::Bounds {
  std::size_t begun = 0;       // the last step that had begun
  std::size_t names_step = 0;  // promised
  std::size_t all_step = 0;    // promised of all inodes
  std::map<std::uint64_t, std::size_t> content_steps;
  std::map<std::uint64_t, std::size_t> metadata_steps;
  std::size_t names_min = 0;  // how many operations on names
  std::size_t names_max = 0;

  std::size_t floor(const std::map<std::uint64_t, std::size_t>& steps, std::uint64_t inode) const {
    const auto found = steps.find(inode);
    return found == steps.end() ? all_step : std::max(all_step, found->second);
  }
};

ModelFileSystem::ModelFileSystem(const Observation& start) : start_names_(start.names), names_(start.names) {
  for (const auto& [number, seen] : start.inodes) {
    Inode inode;
    inode.contents.push_back({0, Content{seen.content, seen.pages}});
    inode.metadatas.push_back({0, seen.metadata});
    inodes_.emplace(number, std::move(inode));
  }
}

std::optional<std::uint64_t> ModelFileSystem::child(std::uint64_t directory, const std::string& name) const {
  const auto found = names_.find(NameKey{directory, name});
  return found == names_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<std::uint64_t> ModelFileSystem::find(std::string_view path) const {
  std::optional<std::uint64_t> inode = kRootDirectory.value;
  while (inode && !path.empty()) {
    const std::size_t end = std::min(path.find('/'), path.size());
    inode = child(*inode, std::string(path.substr(0, end)));
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return inode;
}

bool ModelFileSystem::is_directory(std::uint64_t inode) const {
  return S_ISDIR(metadata(inode).mode);
}

bool ModelFileSystem::has_entries(std::uint64_t directory) const {
  const auto first = names_.lower_bound(NameKey{directory, ""});
  return first != names_.end() && first->first.directory == directory;
}

bool ModelFileSystem::is_at_or_above(std::uint64_t ancestor, std::uint64_t directory) const {
  while (directory != ancestor && directory != kRootDirectory.value) {
    const auto name = std::find_if(names_.begin(), names_.end(), [&](const auto& n) { return n.second == directory; });
    if (name == names_.end()) return false;
    directory = name->first.directory;
  }
  return directory == ancestor;
}

std::string ModelFileSystem::steps_text() const {
  std::string text;
  std::size_t number = 0;
  for (const Step& step : steps_) {
    text += "  " + std::to_string(++number) + ": " + step.text + " [events " + std::to_string(step.begin_event) + ".." +
            (step.end_event == kNoEvent ? "" : std::to_string(step.end_event)) + "]\n";
  }
  return text;
}

void ModelFileSystem::begin_step(std::string text, std::size_t event) {
  steps_.push_back(Step{std::move(text), event, kNoEvent});
  names_changed_ = false;
  replacing_inode_ = 0;
}

void ModelFileSystem::add_inode(std::uint64_t inode, Metadata metadata, std::string content) {
  Inode added;
  added.metadatas.push_back({steps_.size(), std::move(metadata)});
  added.contents.push_back(
      {steps_.size(), Content{std::make_shared<const std::string>(std::move(content)), FilePages()}});
  inodes_.insert_or_assign(inode, std::move(added));
}

void ModelFileSystem::set_name(std::uint64_t directory, const std::string& name, std::uint64_t inode) {
  names_[NameKey{directory, name}] = inode;
  names_changed_ = true;
}

void ModelFileSystem::remove_name(std::uint64_t directory, const std::string& name) {
  TARNFS_ASSERT(names_.erase(NameKey{directory, name}) == 1);
  names_changed_ = true;
}

void ModelFileSystem::set_content(std::uint64_t inode, std::string content, std::optional<FilePages> pages) {
  inodes_.at(inode).contents.push_back(
      {steps_.size(), Content{std::make_shared<const std::string>(std::move(content)), std::move(pages)}});
}

void ModelFileSystem::set_metadata(std::uint64_t inode, Metadata metadata) {
  inodes_.at(inode).metadatas.push_back({steps_.size(), std::move(metadata)});
}

void ModelFileSystem::note_replacing(std::uint64_t inode) {
  replacing_inode_ = inode;
}

void ModelFileSystem::end_step(std::size_t event) {
  steps_.back().end_event = event;
  if (names_changed_) name_operations_.push_back(NameOperation{steps_.size(), names_, replacing_inode_});
}

// Operations follow one another, so what was done before an event is the first so many steps.
std::size_t ModelFileSystem::steps_done_before(std::size_t event) const {
  const auto later =
      std::partition_point(steps_.begin(), steps_.end(), [event](const Step& step) { return step.end_event < event; });
  return static_cast<std::size_t>(later - steps_.begin());
}

void ModelFileSystem::persisted(Persistence kind, std::uint64_t inode, std::size_t begin_event, std::size_t end_event) {
  promises_.push_back(Promise{end_event, inode, steps_done_before(begin_event), kind != Persistence::kFdatasync});
}

ModelFileSystem::Bounds ModelFileSystem::bounds_at(std::size_t cut) const {
  Bounds bounds;
  for (const Step& step : steps_) bounds.begun += step.begin_event < cut ? 1 : 0;
  for (const Promise& promise : promises_) {
    if (promise.end_event >= cut) continue;
    bounds.names_step = std::max(bounds.names_step, promise.done_step);
    const auto raise = [&](std::size_t& step) { step = std::max(step, promise.done_step); };
    if (promise.inode == 0) {
      raise(bounds.all_step);
    } else {
      raise(bounds.content_steps[promise.inode]);
      if (promise.with_metadata) raise(bounds.metadata_steps[promise.inode]);
    }
  }
  for (const NameOperation& operation : name_operations_) {
    bounds.names_min += operation.step <= bounds.names_step ? 1 : 0;
    bounds.names_max += operation.step <= bounds.begun ? 1 : 0;
  }
  return bounds;
}

const Names& ModelFileSystem::names_after(std::size_t count) const {
  return count == 0 ? start_names_ : name_operations_[count - 1].after;
}

std::string ModelFileSystem::judge(const Observation& seen, std::size_t cut) const {
  const Bounds bounds = bounds_at(cut);
  std::string problem;
  for (std::size_t count = bounds.names_min; count <= bounds.names_max; ++count) {
    if (names_after(count) != seen.names) continue;
    problem = judge_contents(seen, bounds, count);
    if (problem.empty()) return {};
  }
  return problem.empty() ? explain_names(seen, bounds) : problem;
}

std::string ModelFileSystem::judge_contents(const Observation& seen, const Bounds& bounds, std::size_t count) const {
  std::map<std::uint64_t, std::size_t> renamed_over;
  for (std::size_t i = 0; i < count; ++i) {
    const NameOperation& operation = name_operations_[i];
    if (operation.replacing_inode != 0) renamed_over[operation.replacing_inode] = operation.step;
  }
  for (const auto& [number, inode] : seen.inodes) {
    std::size_t content_floor = bounds.floor(bounds.content_steps, number);
    if (const auto found = renamed_over.find(number); found != renamed_over.end()) {
      content_floor = std::max(content_floor, found->second);
    }
    std::string problem = judge_inode(number, inode, bounds, content_floor);
    const std::uint32_t links = links_expected(seen.names, number, seen.inodes, S_ISDIR(inode.metadata.mode));
    if (problem.empty() && inode.link_count != links) {
      problem = "the link count is " + std::to_string(inode.link_count) + " instead of " + std::to_string(links);
    }
    if (!problem.empty()) return path_of(seen.names, number) + " (inode " + std::to_string(number) + "): " + problem;
  }
  return {};
}

std::string ModelFileSystem::judge_inode(std::uint64_t number, const ObservedInode& seen, const Bounds& bounds,
                                         std::size_t content_floor) const {
  const auto found = inodes_.find(number);
  if (found == inodes_.end()) return "there never was such an inode";
  const std::string content =
      judge_version(found->second.contents, content_floor, bounds.begun, [&](const Content& version) {
        const bool same = version.text == seen.content || *version.text == *seen.content;
        return same && has_space(version, seen);
      });
  if (!content.empty()) {
    return "the content (" + text_of(seen.content) + ", " + std::to_string(seen.block_count) + " blocks) " + content;
  }
  const std::string metadata =
      judge_version(found->second.metadatas, bounds.floor(bounds.metadata_steps, number), bounds.begun,
                    [&](const Metadata& version) { return version == seen.metadata; });
  return metadata.empty() ? "" : "the metadata (" + text_of(seen.metadata) + ") " + metadata;
}

// Is it a version between the last one that is not younger than step `floor` and those that had begun?
template <class T, class Same>
std::string ModelFileSystem::judge_version(const std::vector<Version<T>>& versions, std::size_t floor,
                                           std::size_t begun, const Same& same_as_seen) const {
  std::size_t first = 0;
  while (first + 1 < versions.size() && versions[first + 1].step <= floor) ++first;
  std::size_t end = first + 1;
  while (end < versions.size() && versions[end].step <= begun) ++end;
  for (std::size_t i = first; i < end; ++i) {
    if (same_as_seen(versions[i].value)) return {};
  }
  std::string text = "is not one of those after step " + std::to_string(versions[first].step);
  for (std::size_t i = first; i < end; ++i) {
    text +=
        (i == first ? ": " : " | ") + text_of(versions[i].value) + " (step " + std::to_string(versions[i].step) + ")";
  }
  for (std::size_t i = 0; i < versions.size(); ++i) {
    if (same_as_seen(versions[i].value)) text += "; it is the one of step " + std::to_string(versions[i].step);
  }
  return text;
}

std::string ModelFileSystem::explain_names(const Observation& seen, const Bounds& bounds) const {
  std::string text = "the names are not legal:" + tarnfs::testing::describe(seen.names) + "\n";
  for (std::size_t count = 0; count <= name_operations_.size(); ++count) {
    if (names_after(count) != seen.names) continue;
    text += "  they are those after " + std::to_string(count) + " operations on names\n";
  }
  text += "  legal: those after " + std::to_string(bounds.names_min) + " to " + std::to_string(bounds.names_max) +
          " operations on names, from" + tarnfs::testing::describe(names_after(bounds.names_min)) + "\n  to" +
          tarnfs::testing::describe(names_after(bounds.names_max));
  return text;
}

}  // namespace tarnfs::testing
