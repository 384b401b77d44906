// Directories of keys in a temporary place, as two machines would have them.
//
// Thread safety: none.
#pragma once

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "mirror/channel/key_directory.h"

namespace tarnfs::testing {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tarnfs-keys-XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline void write_file(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path) << text;
  std::filesystem::permissions(path, std::filesystem::perms(0644));
}

// One machine's keys.
class Keys {
 public:
  Keys(const TemporaryDirectory& top, const std::string& name) : path_(top.path() / name) {
    const auto made = make_key_directory(path_.string());
    REQUIRE_MESSAGE(made.ok(), (made.ok() ? "" : made.error().describe()));
  }

  std::string directory() const { return path_.string(); }
  std::filesystem::path file(const std::string& name) const { return path_ / name; }
  std::filesystem::path peer(const std::string& name) const { return path_ / "peers" / name; }
  // Lets the other machine in.
  void trust(const Keys& other, const std::string& name) const {
    std::filesystem::copy_file(other.file("public.key"), peer(name));
  }
  void revoke(const std::string& name) const { REQUIRE(std::filesystem::remove(peer(name))); }

 private:
  std::filesystem::path path_;
};

}  // namespace tarnfs::testing
