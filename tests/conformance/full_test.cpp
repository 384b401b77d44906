// ENOSPC: what a volume of a few MiB says when it is full of names, of data, of attributes; and that it goes on after.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/conformance/ground.h"

namespace tarnfs::conformance {
namespace {

TEST_SUITE_BEGIN("small");

// More than fit.
constexpr int kNamesMax = 400'000;

// Makes until it fails; all are removed again.
void fill(const std::function<long(const std::string&)>& make_one) {
  make(Kind::kDirectory, "full", 0777);
  int made = 0;
  long answer = 0;
  while (made < kNamesMax && answer >= 0) {
    answer = make_one("full/" + std::to_string(made));
    if (answer >= 0) ++made;
  }
  fails(ENOSPC, answer);
  equal(made > 100, true);
  equal(names_in("full").size(), made);
  const Times times({"full"});
  answer = make_one("full/" + std::to_string(made));
  fails_with_one_of({0, ENOSPC}, answer);
  if (answer < 0) times.expect_untouched();
  for (const std::string& name : names_in("full")) {
    const std::string path = "full/" + name;
    const bool directory = S_ISDIR(attributes(path).st_mode);
    REQUIRE((directory ? ::rmdir(path.c_str()) : ::unlink(path.c_str())) == 0);
  }
  ok(::rmdir("full"));
}

TEST_CASE_FIXTURE(Place, "ENOSPC: names of every type") {
  for_each_kind([](Kind kind) {
    fill([&](const std::string& name) -> long {
      const std::string path = name + long_name(200);
      if (kind == Kind::kDirectory) return ::mkdir(path.c_str(), 0755);
      if (kind == Kind::kSymlink) return ::symlink(long_name(1000).c_str(), path.c_str());
      if (kind == Kind::kRegular) return open_and_close(path, O_CREAT | O_EXCL | O_WRONLY);
      return ::mknod(path.c_str(), type_of(kind) | 0644U, 0);
    });
  });
}

TEST_CASE_FIXTURE(Place, "ENOSPC: links of one file") {
  make(Kind::kRegular, "file");
  make(Kind::kDirectory, "links");
  int made = 0;
  while (made < kNamesMax && ::link("file", ("links/" + std::to_string(made) + long_name(240)).c_str()) == 0) ++made;
  fails_with_one_of({ENOSPC, EMLINK}, made < kNamesMax ? -1 : 0);
  equal(links_of("file"), made + 1);
}

// A short write, then none: the kernel may have room for what the volume has not.
TEST_CASE_FIXTURE(Place, "ENOSPC: data, at the latest when it is to be durable") {
  const std::string chunk(65536, 'x');
  {
    const Open file("file", O_CREAT | O_WRONLY);
    long answer = 0;
    for (int count = 0; count < 10000 && answer >= 0; ++count) {
      answer = ::write(file.number(), chunk.data(), chunk.size());
      if (answer >= 0) answer = ::fsync(file.number());
    }
    fails(ENOSPC, answer);
  }
  ok(::unlink("file"));
  write_file("after", chunk);
  const Open after("after", O_RDONLY);
  ok(::fsync(after.number()));
  equal(read_file("after") == chunk, true);
}

TEST_CASE_FIXTURE(Place, "ENOSPC: attributes") {
  const std::string value(3000, 'x');
  make(Kind::kDirectory, "files");
  long answer = 0;
  int made = 0;
  for (; made < kNamesMax && answer >= 0; ++made) {
    const std::string path = "files/" + std::to_string(made);
    answer = open_and_close(path, O_CREAT | O_WRONLY);
    if (answer >= 0) answer = ::lsetxattr(path.c_str(), "user.one", value.data(), value.size(), 0);
  }
  fails(ENOSPC, answer);
}

TEST_SUITE_END();

}  // namespace
}  // namespace tarnfs::conformance
