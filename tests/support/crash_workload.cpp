#include "tests/support/crash_workload.h"

#include <array>
#include <functional>

namespace tarnfs::testing {
namespace {

using Kind = OperationKind;

// A trim of all that is free would be most of a state.
constexpr std::uint64_t kTrimOffsetMax = 1000;
constexpr std::uint64_t kTrimBlocksMax = 200;
constexpr std::uint64_t kBigWriteBytes = (1U << 20) + 5000;  // its blocks may be written before the journal's record

std::string name_of(Kind kind) {
  static const std::map<Kind, std::string> names{
      {Kind::kCreate, "create"},
      {Kind::kMakeDirectory, "mkdir"},
      {Kind::kMakeUnnamed, "make unnamed"},
      {Kind::kOpen, "open"},
      {Kind::kRelease, "release"},
      {Kind::kWrite, "write"},
      {Kind::kAppend, "append"},
      {Kind::kTruncate, "truncate"},
      {Kind::kPunchHole, "punch hole"},
      {Kind::kExtend, "fallocate"},
      {Kind::kPreallocate, "preallocate"},
      {Kind::kZeroRange, "zero range"},
      {Kind::kCopyRange, "copy range"},
      {Kind::kRename, "rename"},
      {Kind::kRenameLeaving, "rename with whiteout"},
      {Kind::kExchange, "exchange"},
      {Kind::kLink, "link"},
      {Kind::kUnlink, "unlink"},
      {Kind::kRemoveDirectory, "rmdir"},
      {Kind::kSymlink, "symlink"},
      {Kind::kChangeMode, "chmod"},
      {Kind::kChangeOwner, "chown"},
      {Kind::kSetXattr, "setxattr"},
      {Kind::kRemoveXattr, "removexattr"},
      {Kind::kTrim, "trim"},
      {Kind::kGrow, "grow"},
      {Kind::kFsync, "fsync"},
      {Kind::kFdatasync, "fdatasync"},
      {Kind::kConsistencyPoint, "consistency point"},
  };
  return names.at(kind);
}

// One entry of the small set: what is done, and what a persistence call after it is for.
struct SmallOperation {
  std::vector<Operation> operations;
  std::string file;       // for fsync and fdatasync; empty: there is none
  std::string directory;  // for fsync
};

SmallOperation on(const std::string& file, std::vector<Operation> operations) {
  const std::size_t slash = file.rfind('/');
  return SmallOperation{std::move(operations), file, slash == std::string::npos ? "" : file.substr(0, slash)};
}

void add_data_operations(std::vector<SmallOperation>& set) {
  set.push_back(on("A/f", {{Kind::kWrite, "A/f", "", 0, 4096}}));
  set.push_back(on("A/f", {{Kind::kWrite, "A/f", "", 100, 5000}}));
  set.push_back(on("A/f", {{Kind::kAppend, "A/f", "", 0, 3000}}));
  set.push_back(on("A/f", {{Kind::kWrite, "A/f", "", 20000, 4096}}));
  set.push_back(on("B/g", {{Kind::kWrite, "B/g", "", 0, 12288}}));
  set.push_back(on("B/g", {{Kind::kWrite, "B/g", "", 50, 20}}));
  set.push_back(on("A/f", {{Kind::kTruncate, "A/f", "", 0, 1000}}));
  set.push_back(on("A/f", {{Kind::kTruncate, "A/f", "", 0, 0}}));
  set.push_back(on("B/g", {{Kind::kTruncate, "B/g", "", 0, 9000}}));
  set.push_back(on("A/f", {{Kind::kPunchHole, "A/f", "", 2000, 5000}}));
  set.push_back(on("B/g", {{Kind::kExtend, "B/g", "", 0, 6000}}));
  set.push_back(on("A/f", {{Kind::kPreallocate, "A/f", "", 10000, 600 * kBlockSize}}));
  set.push_back(on("B/g", {{Kind::kExtend, "B/g", "", 0, 9000}, {Kind::kWrite, "B/g", "", 4096, 4096}}));
  set.push_back(on("A/f", {{Kind::kZeroRange, "A/f", "", 3000, 20000}}));
  set.push_back(on("B/g", {{Kind::kPreallocate, "B/g", "", 4096, 20000}, {Kind::kPunchHole, "B/g", "", 8192, 8192}}));
  set.push_back(on("B/g", {{Kind::kWrite, "B/g", "", 0, kBigWriteBytes}}));
  set.push_back(on("B/g", {{Kind::kCopyRange, "A/f", "B/g", 0, 3 * kBlockSize}}));
  set.push_back(on("A/n", {{Kind::kCreate, "A/n"}, {Kind::kCopyRange, "A/f", "A/n", kBlockSize, 2 * kBlockSize}}));
  set.push_back(on("A/f", {{Kind::kCopyRange, "A/f", "B/g", 0, 3 * kBlockSize}, {Kind::kWrite, "A/f", "", 0, 9000}}));
}

void add_name_operations(std::vector<SmallOperation>& set) {
  set.push_back(on("A/n", {{Kind::kCreate, "A/n"}}));
  set.push_back(on("A/n", {{Kind::kCreate, "A/n"}, {Kind::kWrite, "A/n", "", 0, 5000}}));
  set.push_back(on("A/d", {{Kind::kMakeDirectory, "A/d"}}));
  set.push_back(on("A/s", {{Kind::kSymlink, "A/s", "../B/g"}}));
  set.push_back(on("A/s", {{Kind::kSymlink, "A/s", std::string(300, 's')}}));
  set.push_back(on("A/h", {{Kind::kRename, "A/f", "A/h"}}));
  set.push_back(on("B/g", {{Kind::kRename, "A/f", "B/g"}}));
  set.push_back(on("A/f", {{Kind::kRename, "B/g", "A/f"}}));
  set.push_back(on("B/e", {{Kind::kRename, "A/e", "B/e"}}));
  set.push_back(on("C", {{Kind::kRename, "B", "C"}}));
  set.push_back(on("A/e", {{Kind::kRename, "B", "A/e"}}));
  set.push_back(on("A/h", {{Kind::kRenameLeaving, "A/f", "A/h"}}));
  set.push_back(on("B/g", {{Kind::kRenameLeaving, "A/f", "B/g"}}));
  set.push_back(on("A/f", {{Kind::kExchange, "A/f", "B/g"}}));
  set.push_back(on("A", {{Kind::kExchange, "A", "B"}}));
  set.push_back(on("B/g", {{Kind::kExchange, "A/e", "B/g"}}));
  set.push_back(on("B/l", {{Kind::kLink, "A/f", "B/l"}}));
  set.push_back(on("B/g", {{Kind::kUnlink, "A/f"}}));
  set.push_back(on("A/f", {{Kind::kUnlink, "B/g"}}));
  set.push_back(on("A/f", {{Kind::kRemoveDirectory, "A/e"}}));
  // Unlinked while it is open, and written to after that.
  set.push_back(on("#h", {{Kind::kOpen, "A/f", "#h"}, {Kind::kUnlink, "A/f"}, {Kind::kWrite, "#h", "", 0, 5000}}));
  set.push_back(on("B/t", {{Kind::kMakeUnnamed, "#t"}, {Kind::kWrite, "#t", "", 0, 6000}, {Kind::kLink, "#t", "B/t"}}));
  // A copy whose source goes, and one that replaces its source.
  set.push_back(on("B/g", {{Kind::kCopyRange, "A/f", "B/g", 0, 3 * kBlockSize}, {Kind::kUnlink, "A/f"}}));
  set.push_back(on("A/f", {{Kind::kCreate, "A/n"},
                           {Kind::kCopyRange, "A/f", "A/n", 0, 3 * kBlockSize},
                           {Kind::kWrite, "A/n", "", 5000, 100},
                           {Kind::kRename, "A/n", "A/f"}}));
  // How a file is replaced as a whole, with and without an fsync before the rename.
  set.push_back(on("A/f", {{Kind::kCreate, "A/n"}, {Kind::kWrite, "A/n", "", 0, 6000}, {Kind::kRename, "A/n", "A/f"}}));
  set.push_back(on("A/f", {{Kind::kCreate, "A/n"},
                           {Kind::kWrite, "A/n", "", 0, 6000},
                           {Kind::kFsync, "A/n"},
                           {Kind::kRename, "A/n", "A/f"}}));
}

void add_metadata_operations(std::vector<SmallOperation>& set) {
  set.push_back(on("A/f", {{Kind::kChangeMode, "A/f", "", 0, 0600}}));
  set.push_back(on("A", {{Kind::kChangeMode, "A", "", 0, 0700}}));
  set.push_back(on("B/g", {{Kind::kChangeOwner, "B/g", "", 0, 1000}}));
  set.push_back(on("A/f", {{Kind::kSetXattr, "A/f", "user.x", 0, 20}}));
  set.push_back(on("B/g", {{Kind::kSetXattr, "B/g", "user.y", 0, 3000}}));
  set.push_back(on("A", {{Kind::kSetXattr, "A", "user.d", 0, 30}}));
  set.push_back(on("A/f", {{Kind::kRemoveXattr, "A/f", "user.x"}}));
}

const std::vector<SmallOperation>& small_operations() {
  static const std::vector<SmallOperation> set = [] {
    std::vector<SmallOperation> all;
    add_data_operations(all);
    add_name_operations(all);
    add_metadata_operations(all);
    return all;
  }();
  return set;
}

constexpr std::size_t kPersistenceVariants = 5;

void add_with_persistence(std::vector<Operation>& operations, std::size_t index) {
  const SmallOperation& chosen = small_operations()[index / kPersistenceVariants];
  operations.insert(operations.end(), chosen.operations.begin(), chosen.operations.end());
  switch (index % kPersistenceVariants) {
    case 0:
      break;
    case 1:
      operations.push_back({Kind::kFsync, chosen.file});
      break;
    case 2:
      operations.push_back({Kind::kFdatasync, chosen.file});
      break;
    case 3:
      operations.push_back({Kind::kFsync, chosen.directory});
      break;
    default:
      operations.push_back({Kind::kConsistencyPoint});
  }
}

std::string random_path(std::mt19937_64& random, bool directory) {
  static const std::array<std::string, 6> directories{"", "A/", "B/", "A/e/", "B/d/", "C/"};
  static const std::array<std::string, 6> files{"f", "g", "h", "n", "m", "k"};
  static const std::array<std::string, 5> names{"A", "B", "C", "e", "d"};
  const std::string& above = directories[random() % directories.size()];
  return directory ? above + names[random() % names.size()] : above + files[random() % files.size()];
}

std::string random_target(std::mt19937_64& random) {
  const unsigned kind = random() % 12;
  if (kind == 0) return "#h";
  if (kind == 1) return "#t";
  return random_path(random, kind == 2);
}

Operation random_name_operation(std::mt19937_64& random) {
  const bool directory = random() % 4 == 0;
  const std::string path = random_path(random, directory);
  const std::string other = random_path(random, directory);
  switch (random() % 12) {
    case 0:
    case 1:
      return {directory ? Kind::kMakeDirectory : Kind::kCreate, path};
    case 2:
      return {Kind::kSymlink, path, std::string(random() % 2 == 0 ? 10 : 200, 'l')};
    case 3:
      return {Kind::kLink, random() % 3 == 0 ? "#t" : path, other};
    case 4:
      return {directory ? Kind::kRemoveDirectory : Kind::kUnlink, path};
    case 5:
      return {Kind::kUnlink, path};
    case 6:
      return {Kind::kExchange, path, random_path(random, random() % 4 == 0)};
    case 7:
      return {Kind::kOpen, path, "#h"};
    case 8:
      return random() % 2 == 0 ? Operation{Kind::kRelease, random() % 2 == 0 ? "#h" : "#t"}
                               : Operation{Kind::kMakeUnnamed, "#t"};
    default:
      return {random() % 8 == 0 ? Kind::kRenameLeaving : Kind::kRename, path, other};
  }
}

Operation random_data_operation(std::mt19937_64& random) {
  const std::string path = random_target(random);
  const std::uint64_t offset = random() % 2 == 0 ? random() % 4 * kBlockSize : random() % 20000;
  const std::uint64_t length = random() % 2 == 0 ? (1 + random() % 3) * kBlockSize : 1 + random() % 9000;
  switch (random() % 15) {
    case 12:
      return {Kind::kPreallocate, path, "", offset, random() % 4 == 0 ? 300 * kBlockSize : length};
    case 13:
      return {Kind::kZeroRange, path, "", offset, length};
    case 0:
      return {Kind::kTruncate, path, "", 0, random() % 3 == 0 ? 0 : random() % 30000};
    case 1:
      return {Kind::kPunchHole, path, "", offset, length};
    case 2:
      return {Kind::kExtend, path, "", offset, length};
    case 3:
    case 4:
      return {Kind::kAppend, path, "", 0, length};
    case 5:
      if (random() % 8 == 0) return {Kind::kWrite, path, "", offset, kBigWriteBytes};
      return {Kind::kWrite, path, "", offset + 40000, length};
    case 6:
    case 7:
      return {Kind::kCopyRange, random_target(random), path, offset, length};
    default:
      return {Kind::kWrite, path, "", offset, length};
  }
}

Operation random_metadata_operation(std::mt19937_64& random) {
  const std::string path = random() % 3 == 0 ? random_path(random, true) : random_target(random);
  const std::string attribute = random() % 2 == 0 ? "user.x" : "user.y";
  switch (random() % 4) {
    case 0:
      return {Kind::kChangeMode, path, "", 0, random() % 0777};
    case 1:
      return {Kind::kChangeOwner, path, "", 0, random() % 2000};
    case 2:
      return {Kind::kRemoveXattr, path, attribute};
    default:
      return {Kind::kSetXattr, path, attribute, 0, 1 + random() % (random() % 4 == 0 ? 5000 : 100)};
  }
}

Operation random_persistence(std::mt19937_64& random) {
  switch (random() % 9) {
    case 8:
      return {Kind::kTrim, "", "", random() % kTrimOffsetMax, 1 + random() % kTrimBlocksMax};
    case 0:
      return {Kind::kConsistencyPoint};
    case 1:
      return {Kind::kFsync, random() % 3 == 0 ? "" : random_path(random, true)};
    case 2:
    case 3:
      return {Kind::kFdatasync, random_target(random)};
    default:
      return {Kind::kFsync, random_target(random)};
  }
}

}  // namespace

std::string describe(const Operation& operation) {
  std::string text = name_of(operation.kind) + " " + (operation.path.empty() ? "/" : operation.path);
  if (operation.kind == Kind::kConsistencyPoint) text = name_of(operation.kind);
  if (!operation.other.empty()) text += " " + operation.other.substr(0, 20);
  if (operation.offset != 0) text += " offset " + std::to_string(operation.offset);
  if (operation.length != 0) text += " length " + std::to_string(operation.length);
  return text;
}

std::vector<Operation> starting_operations() {
  std::vector<Operation> operations{{Kind::kCreate, "pad"},
                                    {Kind::kWrite, "pad", "", 0, 30 * kBlockSize},
                                    {Kind::kConsistencyPoint},
                                    {Kind::kMakeDirectory, "A"},
                                    {Kind::kMakeDirectory, "B"},
                                    {Kind::kMakeDirectory, "A/e"},
                                    {Kind::kCreate, "A/f"},
                                    {Kind::kSetXattr, "A/f", "user.x", 0, 10},
                                    {Kind::kCreate, "B/g"},
                                    {Kind::kConsistencyPoint},
                                    {Kind::kWrite, "B/g", "", 0, 100},
                                    {Kind::kConsistencyPoint}};
  for (std::uint64_t page = 0; page < 3; ++page) {
    operations.push_back({Kind::kWrite, "A/f", "", page * kBlockSize, page < 2 ? kBlockSize : kBlockSize / 2});
    operations.push_back({Kind::kConsistencyPoint});
    operations.push_back({Kind::kAppend, "pad", "", 0, 3 * kBlockSize});
    operations.push_back({Kind::kConsistencyPoint});
  }
  return operations;
}

std::size_t workload_count(const std::string& class_name) {
  const std::size_t one = small_operations().size() * kPersistenceVariants;
  if (class_name == "one") return one;
  return class_name == "two" ? one * one : 0;
}

Workload make_workload(const std::string& class_name, std::size_t index, std::uint64_t seed) {
  constexpr std::size_t kLongOperations = 80;
  Workload workload;
  workload.name = class_name + "." + std::to_string(index);
  const std::size_t one = workload_count("one");
  if (class_name == "one") {
    add_with_persistence(workload.operations, index % one);
  } else if (class_name == "two") {
    add_with_persistence(workload.operations, index / one % one);
    add_with_persistence(workload.operations, index % one);
  } else if (class_name == "three") {
    std::mt19937_64 random(mix_bits(seed ^ mix_bits(index)));
    for (int i = 0; i < 3; ++i) add_with_persistence(workload.operations, random() % one);
  } else {
    workload.random_operations = kLongOperations;
    workload.others_persist = class_name == "beside" || (class_name == "grow" && index % 4 == 3);
    workload.grows = class_name == "grow";
  }
  if (!workload.operations.empty()) workload.operations.push_back({Kind::kConsistencyPoint});
  return workload;
}

Operation random_operation(std::mt19937_64& random, bool grows) {
  if (grows && random() % 10 == 0) return {Kind::kGrow, "", "", 0, kGrowthBlocksMin + random() % 100};
  switch (random() % 10) {
    case 0:
    case 1:
    case 2:
      return random_name_operation(random);
    case 3:
    case 4:
    case 5:
    case 6:
      return random_data_operation(random);
    case 7:
      return random_metadata_operation(random);
    default:
      return random_persistence(random);
  }
}

}  // namespace tarnfs::testing
