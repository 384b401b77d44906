// What the conformance test's files share: expectations of system calls, other users, files of every type, a place.
//
// Purpose: a check is one line: fails(EEXIST, ::mkdir("name", 0755)) or ok(...). The program runs on any mounted file
// system; it tests what a Linux file system owes its users by POSIX and the manual pages of section 2.
//
// Invariants:
//   1. The program is root with all capabilities, and single-threaded.
//   2. A test case that uses Place runs in a new empty directory of mode 0777, with a umask of 0, and leaves nothing.
//
// Thread safety: none; one thread.
// Ownership: Place owns its directory, Open its descriptor, Child its process.
// Errors: a check that does not hold is doctest's; what the test itself needs and does not get is a failed REQUIRE.
#pragma once

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <array>
#include <cerrno>
#include <functional>
#include <initializer_list>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace tarnfs::conformance {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kAddressSanitizer = true;
#elif defined(__has_feature)
inline constexpr bool kAddressSanitizer = __has_feature(address_sanitizer);
#else
inline constexpr bool kAddressSanitizer = false;
#endif

// Where the test runs, from the command line.
struct Arguments {
  std::string directory;  // on the file system that is tested, empty
  std::string elsewhere;  // on another file system
};
const Arguments& arguments();
void set_arguments(Arguments arguments);

// Whether the long versions are asked for: TARNFS_TEST_FULL.
bool full_size();

// How many expectations were compared so far: each of the functions below makes one, Times three for a file.
long checks_made();

// "ENOENT", "0" for success.
std::string errno_text(int number);

// The answer of a system call, which is negative when it failed, and then errno says why. The line of the caller is
// part of the message.
void fails(int wanted, long answer, const char* file = __builtin_FILE(), int line = __builtin_LINE());
void ok(long answer, const char* file = __builtin_FILE(), int line = __builtin_LINE());
// One of several: where Linux's own file systems differ, or POSIX leaves it open.
void fails_with_one_of(std::initializer_list<int> wanted, long answer, const char* file = __builtin_FILE(),
                       int line = __builtin_LINE());
void equal_numbers(long long actual, long long wanted, const char* file, int line);
template <class Actual, class Wanted>
requires(std::is_integral_v<Actual>&& std::is_integral_v<Wanted>) void equal(Actual actual, Wanted wanted,
                                                                             const char* file = __builtin_FILE(),
                                                                             int line = __builtin_LINE()) {
  equal_numbers(static_cast<long long>(actual), static_cast<long long>(wanted), file, line);
}
void equal(const std::string& actual, const std::string& wanted, const char* file = __builtin_FILE(),
           int line = __builtin_LINE());

// open(2) and close(2): 0, or -1 with open's errno.
long open_and_close(const std::string& path, int flags, mode_t mode = 0644);

class Open {
 public:
  Open(const std::string& path, int flags, mode_t mode = 0644);
  ~Open();
  Open(const Open&) = delete;
  Open& operator=(const Open&) = delete;
  int number() const { return number_; }

 private:
  const int number_;
};

// Users.
struct User {
  uid_t uid;
  gid_t gid;
  std::vector<gid_t> groups{};  // supplementary
};
inline const User kRoot{0, 0};
inline const User kOwner{41001, 41001};
inline const User kGroupMate{41002, 41001};               // has the owner's group
inline const User kSecondMate{41003, 41003, {7, 41001}};  // has it among others
inline const User kStranger{41004, 41004, {8}};

// Acts as that user while it lives: effective ids and supplementary groups, and so the capabilities.
class As {
 public:
  explicit As(const User& user);
  ~As();
  As(const As&) = delete;
  As& operator=(const As&) = delete;
};

template <class Call>
long as(const User& user, const Call& call) {
  const As scope(user);
  return call();
}

// Times: whether each has been set since the last look, without waiting longer than for the next tick of the clock.
struct Touched {
  bool accessed = false;
  bool modified = false;
  bool changed = false;
};
inline constexpr Touched kNothing{};
inline constexpr Touched kChanged{false, false, true};
inline constexpr Touched kContent{false, true, true};  // what happens to a file that is written, or a directory

class Times {
 public:
  // Notes the times of the files, and returns when whatever is set from now on will be later.
  explicit Times(const std::vector<std::string>& paths);
  // Compares; the files are looked for where they were, or at `now_at`.
  void expect(const std::string& path, Touched wanted, const char* file = __builtin_FILE(),
              int line = __builtin_LINE()) const;
  void expect_moved(const std::string& path, const std::string& now_at, Touched wanted,
                    const char* file = __builtin_FILE(), int line = __builtin_LINE()) const;
  void expect_untouched(const char* file = __builtin_FILE(), int line = __builtin_LINE()) const;

 private:
  std::map<std::string, struct stat> before_;
};

// Files of every type.
enum class Kind { kRegular, kDirectory, kFifo, kBlock, kCharacter, kSocket, kSymlink };
inline constexpr std::array<Kind, 7> kKinds = {Kind::kRegular,   Kind::kDirectory, Kind::kFifo,   Kind::kBlock,
                                               Kind::kCharacter, Kind::kSocket,    Kind::kSymlink};
std::string name_of(Kind kind);
mode_t type_of(Kind kind);
// Makes it; a symlink leads nowhere. `mode` counts for all but symlinks.
void make(Kind kind, const std::string& path, mode_t mode = 0644);
void make(Kind kind, const std::string& path, mode_t mode, const User& owner);
long remove(Kind kind, const std::string& path);
// Calls `check` once for each type that is not left out, with the type's name in the messages.
void for_each_kind(const std::function<void(Kind)>& check);
void for_kinds(std::initializer_list<Kind> kinds, const std::function<void(Kind)>& check);

// Attributes.
struct stat attributes(const std::string& path);  // of a symlink itself
bool exists(const std::string& path);
mode_t mode_of(const std::string& path);  // 07777
nlink_t links_of(const std::string& path);
void write_file(const std::string& path, const std::string& content);
std::string read_file(const std::string& path);
std::vector<std::string> names_in(const std::string& directory);  // sorted, without "." and ".."

// A name of so many bytes.
std::string long_name(std::size_t bytes);
// A path of so many bytes in all that means `name`, "./././name".
std::string long_path(std::size_t bytes, const std::string& name);

// A child that waits.
class Child {
 public:
  // Starts the program and returns when it has been executed; it waits for the end of its standard input.
  explicit Child(const std::string& program);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

 private:
  pid_t process_ = -1;
  int input_ = -1;
};

class Place {
 public:
  Place();
  ~Place();
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace tarnfs::conformance
