// What is done to a volume before its power is cut: operations as values, sequences of them, and who runs them.
//
// Purpose: all short sequences of a small set of operations on two files and two directories, each followed by a call
// that persists or none; a sample of longer ones; and long random runs.
//
// Invariants:
//   1. A workload follows from its name ("two.1234") and the seed alone.
//   2. The runner tells the model every operation that succeeded, with the events of the device around it.
//   3. What is written says which operation wrote it, so that no two versions of a file are alike by chance.
//
// Thread safety: a runner is one thread's. What other threads persist is told to the model afterwards.
// Errors: the runner returns what the volume answered; an operation that makes no sense now is not run.
#pragma once

#include <map>
#include <random>
#include <string>
#include <vector>

#include "fs/engine/file_system.h"
#include "tests/support/model_file_system.h"
#include "tests/support/recording_block_device.h"

namespace tarnfs::testing {

enum class OperationKind {
  kCreate,           // path
  kMakeDirectory,    // path
  kMakeUnnamed,      // a file without a name, held as `path` ("#t"), in the root directory
  kOpen,             // path, held as `other`
  kRelease,          // path ("#h")
  kWrite,            // path, offset, length
  kAppend,           // path, length
  kTruncate,         // path, length
  kPunchHole,        // path, offset, length
  kExtend,           // path, offset, length: fallocate
  kPreallocate,      // path, offset, length: the same, and the size stays
  kZeroRange,        // path, offset, length
  kCopyRange,        // path, other: a file, offset of both, length
  kRename,           // path, other
  kRenameLeaving,    // path, other: a whiteout is made as path
  kExchange,         // path, other
  kLink,             // path (or "#h"), other
  kUnlink,           // path
  kRemoveDirectory,  // path
  kSymlink,          // path, other: the target
  kChangeMode,       // path, length: the permissions
  kChangeOwner,      // path, length: the owner
  kSetXattr,         // path, other: the name, length: of the value
  kRemoveXattr,      // path, other: the name
  kTrim,             // offset, length: blocks of the volume
  kGrow,             // length: by so many blocks, as far as the image goes
  kFsync,            // path: a file or a directory
  kFdatasync,        // path
  kConsistencyPoint,
};

struct Operation {
  OperationKind kind = OperationKind::kConsistencyPoint;
  std::string path;
  std::string other;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

std::string describe(const Operation& operation);

struct Workload {
  std::string name;                   // "two.1234"
  std::vector<Operation> operations;  // empty: random ones, chosen while it runs
  std::size_t random_operations = 0;
  bool grows = false;           // a tenth of the random operations make the volume larger
  bool others_persist = false;  // two other threads take consistency points and fsync, all the time
};

// Makes what every workload starts on: A/f (two and a half pages, an attribute), B/g (100 bytes), and the directory
// A/e. Between their blocks are those of a file "pad" that is to be removed.
std::vector<Operation> starting_operations();

// How many workloads of a class there are ("one", "two"); 0: any number ("three", "long", "beside", "grow").
std::size_t workload_count(const std::string& class_name);
Workload make_workload(const std::string& class_name, std::size_t index, std::uint64_t seed);
// A random operation; it may make no sense now.
Operation random_operation(std::mt19937_64& random, bool grows);

class WorkloadRunner {
 public:
  enum class Outcome { kDone, kNoSense, kFailed };

  // `stamp` goes into all that is written.
  WorkloadRunner(FileSystem& volume, ModelFileSystem& model, RecordingBlockDevice& device, std::string stamp)
      : volume_(volume), model_(model), device_(device), stamp_(std::move(stamp)) {}

  // Would it succeed on a healthy volume?
  bool makes_sense(const Operation& operation) const;
  Outcome run(const Operation& operation);
  // By a name, or what is held as "#h".
  std::optional<std::uint64_t> inode_of(const std::string& path) const;
  // Of the last operation that failed.
  const Error& error() const { return error_; }

 private:
  struct Place {
    std::uint64_t directory = 0;
    std::string name;
  };
  std::optional<Place> place_of(const std::string& path) const;
  bool is_file(const std::string& path) const;
  bool can_rename(const Operation& operation) const;
  std::string text_to_write(std::uint64_t length) const;
  Status apply(const Operation& operation);
  Status apply_to_names(const Operation& operation);
  Status apply_to_inode(const Operation& operation);
  Status make(const Operation& operation, std::uint32_t mode);
  Status make_unnamed(const Operation& operation);
  Status open(const Operation& operation);
  Status link(const Operation& operation);
  Status remove(const Operation& operation);
  Status rename(const Operation& operation);
  Status write(std::uint64_t inode, std::uint64_t offset, std::uint64_t length);
  Status resize(std::uint64_t inode, std::uint64_t size);
  Status fallocate(const Operation& operation, std::uint64_t inode);
  Status copy_range(const Operation& operation, std::uint64_t from, std::uint64_t to);
  Status change_metadata(const Operation& operation, std::uint64_t inode);
  Outcome persist(const Operation& operation);
  Status grow(std::uint64_t blocks);

  FileSystem& volume_;
  ModelFileSystem& model_;
  RecordingBlockDevice& device_;
  const std::string stamp_;
  std::size_t operation_count_ = 0;
  std::map<std::string, std::uint64_t> held_;  // "#h" to an inode with a lookup count
  Error error_{ErrorCode::kInvalid};
};

}  // namespace tarnfs::testing
