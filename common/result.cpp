#include "common/result.h"

#include <array>

namespace tarnfs {

std::string_view name_of(ErrorCode code) {
  static constexpr std::array<std::string_view, 29> kNames = {"i/o error",
                                                              "corrupt",
                                                              "no space left",
                                                              "not found",
                                                              "exists",
                                                              "not a directory",
                                                              "is a directory",
                                                              "not empty",
                                                              "invalid",
                                                              "read-only",
                                                              "not permitted",
                                                              "name too long",
                                                              "too many links",
                                                              "file too big",
                                                              "busy",
                                                              "stale",
                                                              "no such attribute",
                                                              "out of range",
                                                              "too big",
                                                              "not supported",
                                                              "incompatible version",
                                                              "refused",
                                                              "disconnected",
                                                              "timed out",
                                                              "canceled",
                                                              "needs a block",
                                                              "would wait",
                                                              "no data",
                                                              "usage"};
  return kNames.at(static_cast<std::size_t>(code));
}

std::string Error::describe() const {
  return message_.empty() ? std::string(name_of(code_)) : message_;
}

Error Error::in(std::string_view context) const {
  return Error(code_, std::string(context) + ": " + describe());
}

}  // namespace tarnfs
