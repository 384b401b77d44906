// Sets of extended attributes: limits, modes, the bytes, and damage in them.
#include "fs/engine/xattr_set.h"
#include "tests/support/seed.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cstring>
#include <map>
#include <random>

using namespace tarnfs;

namespace {

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

ErrorCode code_of(const Status& status) {
  REQUIRE_FALSE(status.ok());
  return status.error().code();
}

ErrorCode code_of_parse(std::span<const std::byte> bytes) {
  const auto result = XattrSet::parse(bytes);
  REQUIRE_FALSE(result.ok());
  return result.error().code();
}

XattrSet sample() {
  XattrSet set;
  REQUIRE(set.set("user.b", bytes_of("value of b"), XattrMode::kCreate).ok());
  REQUIRE(set.set("user.a", bytes_of(""), XattrMode::kCreate).ok());
  REQUIRE(set.set("security.capability", bytes_of(std::string_view("\0\1\2", 3)), XattrMode::kCreate).ok());
  return set;
}

}  // namespace

TEST_CASE("attributes are set, told and removed") {
  XattrSet set = sample();
  CHECK(set.get("user.b").value() == "value of b");
  CHECK(set.get("user.a").value().empty());
  CHECK(set.get("user.c").error().code() == ErrorCode::kNoAttribute);
  CHECK(set.names() == std::vector<std::string>{"security.capability", "user.a", "user.b"});
  CHECK(set.remove("user.b").ok());
  CHECK(code_of(set.remove("user.b")) == ErrorCode::kNoAttribute);
  CHECK(set.remove("user.a").ok());
  CHECK(set.remove("security.capability").ok());
  CHECK(set.empty());
  CHECK(set.serialised_bytes() == sizeof(XattrHeader));
}

TEST_CASE("create and replace insist") {
  XattrSet set = sample();
  CHECK(code_of(set.set("user.b", bytes_of("x"), XattrMode::kCreate)) == ErrorCode::kExists);
  CHECK(code_of(set.set("user.c", bytes_of("x"), XattrMode::kReplace)) == ErrorCode::kNoAttribute);
  CHECK(set.set("user.b", bytes_of("x"), XattrMode::kReplace).ok());
  CHECK(set.set("user.b", bytes_of("y"), XattrMode::kCreateOrReplace).ok());
  CHECK(set.get("user.b").value() == "y");
  CHECK(set.count() == 3);
}

TEST_CASE("limits of name, value and set") {
  XattrSet set;
  CHECK(code_of(set.set("", {}, XattrMode::kCreate)) == ErrorCode::kInvalid);
  CHECK(code_of(set.set(std::string_view("user.\0", 6), {}, XattrMode::kCreate)) == ErrorCode::kInvalid);
  CHECK(code_of(set.set(std::string(256, 'n'), {}, XattrMode::kCreate)) == ErrorCode::kRange);
  CHECK(code_of(set.set("user.a", bytes_of(std::string(65537, 'v')), XattrMode::kCreate)) == ErrorCode::kTooBig);
  CHECK(set.empty());
  const std::string value(65536, 'v');
  REQUIRE(set.set(std::string(255, 'n'), bytes_of(value), XattrMode::kCreate).ok());
  for (int i = 0; i < 14; ++i) REQUIRE(set.set(fmt::format("user.{}", i), bytes_of(value), XattrMode::kCreate).ok());
  CHECK(code_of(set.set("user.last", bytes_of(value), XattrMode::kCreate)) == ErrorCode::kNoSpace);
  const std::size_t left = kXattrSetMaxBytes - (set.serialised_bytes() - sizeof(XattrHeader) - std::size_t{15} * 8) - 9;
  CHECK(code_of(set.set("user.last", bytes_of(value.substr(0, left + 1)), XattrMode::kCreate)) == ErrorCode::kNoSpace);
  REQUIRE(set.set("user.last", bytes_of(value.substr(0, left)), XattrMode::kCreate).ok());
  CHECK(code_of(set.set("user.last", bytes_of(value.substr(0, left + 1)), XattrMode::kReplace)) == ErrorCode::kNoSpace);
  CHECK(set.get("user.last")->size() == left);
  const auto bytes = set.serialise();
  CHECK(XattrSet::parse(bytes)->serialise() == bytes);
}

TEST_CASE("the names always fit into one listxattr") {
  XattrSet set;
  for (int i = 0; i < 256; ++i) {
    REQUIRE(set.set(fmt::format("user.{:0>250}", i), {}, XattrMode::kCreate).ok());
  }
  CHECK(code_of(set.set("user.a", {}, XattrMode::kCreate)) == ErrorCode::kNoSpace);
  REQUIRE(set.remove(fmt::format("user.{:0>250}", 7)).ok());
  CHECK(set.set("user.a", {}, XattrMode::kCreate).ok());
}

TEST_CASE("the bytes are those of the format") {
  XattrSet set;
  REQUIRE(set.set("user.b", bytes_of("xyz"), XattrMode::kCreate).ok());
  REQUIRE(set.set("user.a", bytes_of(""), XattrMode::kCreate).ok());
  const std::string_view expected(
      "TXAT\2\0\0\0\57\0\0\0\0\0\0\0"
      "\0\0\0\0\6\0\0\0user.a"
      "\3\0\0\0\6\0\0\0user.bxyz",
      47);
  const auto bytes = set.serialise();
  CHECK(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()) == expected);
  CHECK(bytes.size() == set.serialised_bytes());
}

TEST_CASE("random changes give what a map gives, through the bytes too") {
  std::mt19937_64 random(testing::printed_seed());
  XattrSet set;
  std::map<std::string, std::string> model;
  for (int i = 0; i < 5000; ++i) {
    const std::string name = fmt::format("user.{}", random() % 60);
    if (random() % 3 == 0) {
      CHECK(set.remove(name).ok() == (model.erase(name) == 1));
    } else {
      const std::string value(random() % 3000, static_cast<char>(random()));
      REQUIRE(set.set(name, bytes_of(value), XattrMode::kCreateOrReplace).ok());
      model[name] = value;
    }
    if (i % 50 == 0) {
      auto parsed = XattrSet::parse(set.serialise());
      REQUIRE(parsed.ok());
      set = std::move(parsed).value();
    }
    REQUIRE(set.count() == model.size());
  }
  for (const auto& [name, value] : model) CHECK(set.get(name).value() == value);
}

TEST_CASE("damaged bytes are told") {
  const auto good = sample().serialise();
  for (std::size_t size = 0; size < good.size(); ++size) {
    CHECK(code_of_parse(std::span(good).first(size)) == ErrorCode::kCorrupt);
  }
  auto longer = good;
  longer.push_back(std::byte{0});
  CHECK(code_of_parse(longer) == ErrorCode::kCorrupt);
  const auto with = [&](std::size_t offset, std::uint8_t value) {
    auto bytes = good;
    bytes[offset] = static_cast<std::byte>(value);
    return code_of_parse(bytes);
  };
  CHECK(with(0, 'X') == ErrorCode::kCorrupt);   // magic
  CHECK(with(4, 2) == ErrorCode::kCorrupt);     // count too small
  CHECK(with(4, 4) == ErrorCode::kCorrupt);     // count too large
  CHECK(with(7, 255) == ErrorCode::kCorrupt);   // count far too large
  CHECK(with(12, 1) == ErrorCode::kCorrupt);    // reserved
  CHECK(with(19, 255) == ErrorCode::kCorrupt);  // size of the first value
  CHECK(with(20, 0) == ErrorCode::kCorrupt);    // size of the first name
  CHECK(with(21, 1) == ErrorCode::kCorrupt);    // reserved
  CHECK(with(24, 'z') == ErrorCode::kCorrupt);  // the first name is behind the second
  CHECK(with(25, 0) == ErrorCode::kCorrupt);    // NUL in a name
}

TEST_CASE("random damage is either told or gives a set that is whole") {
  std::mt19937_64 random(99);
  const auto good = sample().serialise();
  for (int i = 0; i < 20000; ++i) {
    auto bytes = good;
    for (unsigned flips = 1 + random() % 3; flips > 0; --flips) {
      bytes[random() % bytes.size()] = static_cast<std::byte>(random());
    }
    const auto parsed = XattrSet::parse(bytes);
    if (parsed.ok()) {
      CHECK(parsed->serialise() == bytes);
    } else {
      CHECK(parsed.error().code() == ErrorCode::kCorrupt);
    }
  }
}
