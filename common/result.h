// Errors as values.
//
// Purpose: every function that can fail returns Result<T>. An Error says what failed, on what and what to do; only
// the FUSE front end turns its code into an errno.
//
// Invariants:
//   1. A Result holds either a value or an Error, never both.
//   2. An Error without a message is cheap: it allocates nothing, so that "no such name" costs nothing.
//
// Thread safety: values, no shared state.
// Errors: asserts when the wrong side is asked for; that is our own mistake.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace tarnfs {

// An assertion on our own mistakes: it stays on in releases. Never used on bytes from disk, peer or user.
#define TARNFS_ASSERT(condition)                                                                       \
  do {                                                                                                 \
    if (!(condition)) [[unlikely]] {                                                                   \
      std::fprintf(stderr, "tarnfs: assertion failed: %s at %s:%d\n", #condition, __FILE__, __LINE__); \
      std::abort();                                                                                    \
    }                                                                                                  \
  } while (false)

enum class ErrorCode {
  kIo,            // the device failed
  kCorrupt,       // bytes on disk or from a peer are not what they must be
  kNoSpace,       // no free block could be promised
  kNotFound,      // no such name, inode or state
  kExists,        // the name is taken
  kNotDirectory,  // a directory was needed
  kIsDirectory,   // a directory was not allowed
  kNotEmpty,      // the directory has entries
  kInvalid,       // an argument makes no sense
  kReadOnly,      // the volume takes no changes
  kNotPermitted,  // immutable, append-only and the like
  kNameTooLong,   // a name over 255 bytes
  kTooManyLinks,  // the link count is at its limit
  kFileTooBig,    // beyond the largest offset of a file
  kBusy,          // in use by another process or peer
  kStale,         // an inode that existed once
  kNoAttribute,   // no such extended attribute
  kRange,         // the caller's buffer is too small
  kTooBig,        // a value over its limit
  kUnsupported,   // not possible here
  kIncompatible,  // another format or protocol version
  kRefused,       // the peer said no, or must not be let in
  kDisconnected,  // the peer is gone
  kTimeout,       // nothing came in time
  kCanceled,      // we are shutting down
  kNeedsBlock,    // engine only: the operation must wait for a block that is not in memory
  kWouldWait,     // front end only: this thread must not wait (fs/engine/waiting.h)
  kNoData,        // beyond the last data (lseek SEEK_DATA, SEEK_HOLE)
  kUsage,         // the command line is wrong
};

class [[nodiscard]] Error {
 public:
  explicit Error(ErrorCode code, std::string message = {}) : code_(code), message_(std::move(message)) {}
  ErrorCode code() const { return code_; }
  // What failed, on what, why, and what to do; may be empty for errors that are part of normal work.
  const std::string& message() const { return message_; }
  // The message, or the name of the code where there is none.
  std::string describe() const;
  // The same error with `context` and a colon before its message.
  Error in(std::string_view context) const;

 private:
  ErrorCode code_;
  std::string message_;
};

std::string_view name_of(ErrorCode code);

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}
  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & {
    TARNFS_ASSERT(ok());
    return *std::get_if<0>(&state_);
  }
  const T& value() const& {
    TARNFS_ASSERT(ok());
    return *std::get_if<0>(&state_);
  }
  T&& value() && {
    TARNFS_ASSERT(ok());
    return std::move(*std::get_if<0>(&state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const Error& error() const {
    TARNFS_ASSERT(!ok());
    return *std::get_if<1>(&state_);
  }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}
  bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Error& error() const {
    TARNFS_ASSERT(!ok());
    return *error_;
  }

 private:
  std::optional<Error> error_;
};

using Status = Result<void>;

// Returns the error of `expression` (a Result) from the calling function, if it has one.
#define TARNFS_TRY(expression)                                                                \
  do {                                                                                        \
    if (auto tarnfs_status = (expression); !tarnfs_status.ok()) return tarnfs_status.error(); \
  } while (false)

#define TARNFS_CONCAT_INNER(a, b) a##b
#define TARNFS_CONCAT(a, b) TARNFS_CONCAT_INNER(a, b)

// Declares `variable` with the value of `expression` (a Result), or returns its error from the calling function.
#define TARNFS_ASSIGN(variable, expression) \
  TARNFS_ASSIGN_INNER(TARNFS_CONCAT(tarnfs_result_, __LINE__), variable, expression)
// NOLINTBEGIN(bugprone-macro-parentheses): what it declares cannot stand in parentheses.
#define TARNFS_ASSIGN_INNER(result, variable, expression) \
  auto result = (expression);                             \
  if (!result.ok()) return result.error();                \
  variable = std::move(result).value()
// NOLINTEND(bugprone-macro-parentheses)

}  // namespace tarnfs
