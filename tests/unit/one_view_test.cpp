// A listing has entries of one view, also when it is cut short.
#include <doctest/doctest.h>

#include <vector>

#include "fs/fuse/one_view.h"

using namespace tarnfs;

namespace {

struct Viewed {
  std::uint64_t view() const { return now; }
  std::uint64_t now = 1;
};

}  // namespace

TEST_CASE("what was gathered is of one view, whether it came to its end, failed, or would have had to wait") {
  for (const Status& end : {Status(), Status(Error(ErrorCode::kIo)), Status(Error(ErrorCode::kWouldWait))}) {
    Viewed viewed;
    std::vector<std::uint64_t> views_of_entries;
    int rounds = 0;
    const Status status = in_one_view(viewed, [&]() -> Status {
      ++rounds;
      views_of_entries.clear();
      views_of_entries.push_back(viewed.now);
      if (rounds == 1) ++viewed.now;
      views_of_entries.push_back(viewed.now);
      return end;
    });
    CHECK(status.ok() == end.ok());
    CHECK(views_of_entries == std::vector<std::uint64_t>{2, 2});
    CHECK(rounds == 2);
  }
}
