#include <doctest/doctest.h>

#include <cerrno>

#include "fs/fuse/errno_map.h"

using namespace tarnfs;

TEST_CASE("every code has an errno that a caller can use") {
  for (int i = 0; i <= static_cast<int>(ErrorCode::kUsage); ++i) {
    const auto code = static_cast<ErrorCode>(i);
    const std::string name(name_of(code));
    CAPTURE(name);
    CHECK(errno_of(code) > 0);
    CHECK(errno_of(code) < 134);
    // ENOSYS would switch the operation off for good, ENODEV ends the session, ENOENT is for names.
    CHECK(errno_of(code) != ENOSYS);
    CHECK(errno_of(code) != ENODEV);
    if (code != ErrorCode::kNotFound) CHECK(errno_of(code) != ENOENT);
  }
}

TEST_CASE("the codes that programs look at") {
  CHECK(name_of(ErrorCode::kNoData) == "no data");
  CHECK(name_of(ErrorCode::kUsage) == "usage");
  CHECK(errno_of(ErrorCode::kNotFound) == ENOENT);
  CHECK(errno_of(ErrorCode::kExists) == EEXIST);
  CHECK(errno_of(ErrorCode::kNotEmpty) == ENOTEMPTY);
  CHECK(errno_of(ErrorCode::kNoSpace) == ENOSPC);
  CHECK(errno_of(ErrorCode::kReadOnly) == EROFS);
  CHECK(errno_of(ErrorCode::kStale) == ESTALE);
  CHECK(errno_of(ErrorCode::kNoAttribute) == ENODATA);
  CHECK(errno_of(ErrorCode::kRange) == ERANGE);
  CHECK(errno_of(ErrorCode::kTooBig) == E2BIG);
  CHECK(errno_of(ErrorCode::kNoData) == ENXIO);
  CHECK(errno_of(ErrorCode::kUnsupported) == EOPNOTSUPP);
}
