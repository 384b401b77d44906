// Plain values to bytes and back, little-endian, without padding between them.
//
// Purpose: records of variable length on disk. Only trivially copyable types whose bytes are all meaningful are put.
//
// Invariants:
//   1. A ByteDecoder never reads beyond its bytes: after the first value that does not fit it is failed, and everything
//      read from then on is zero or empty.
//
// Thread safety: values of one thread.
// Ownership: what the decoder returns are views into its bytes.
// Errors: ByteDecoder::ok().
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

namespace tarnfs {

class ByteEncoder {
 public:
  explicit ByteEncoder(std::vector<std::byte>& out) : out_(out) {}

  template <class T>
  requires(std::is_trivially_copyable_v<T>) void put(const T& value) {
    const auto bytes = std::as_bytes(std::span<const T, 1>(&value, 1));
    out_.insert(out_.end(), bytes.begin(), bytes.end());
  }
  void put_bytes(std::span<const std::byte> bytes) { out_.insert(out_.end(), bytes.begin(), bytes.end()); }
  void put_text(std::string_view text) { put_bytes(std::as_bytes(std::span(text))); }
  std::size_t size_bytes() const { return out_.size(); }
  // Zeros until the size is a multiple of `alignment_bytes`.
  void align(std::size_t alignment_bytes) {
    out_.resize((out_.size() + alignment_bytes - 1) / alignment_bytes * alignment_bytes);
  }
  // Replaces what stands at `offset`.
  template <class T>
  requires(std::is_trivially_copyable_v<T>) void put_at(std::size_t offset, const T& value) {
    std::memcpy(out_.data() + offset, &value, sizeof value);
  }

 private:
  std::vector<std::byte>& out_;
};

class ByteDecoder {
 public:
  explicit ByteDecoder(std::span<const std::byte> bytes) : rest_(bytes) {}

  template <class T>
  requires(std::is_trivially_copyable_v<T>) T get() {
    T value{};
    const auto bytes = get_bytes(sizeof value);
    if (bytes.size() == sizeof value) std::memcpy(static_cast<void*>(&value), bytes.data(), sizeof value);
    return value;
  }
  std::span<const std::byte> get_bytes(std::size_t count) {
    if (count > rest_.size()) {
      failed_ = true;
      rest_ = {};
      return {};
    }
    const auto bytes = rest_.first(count);
    rest_ = rest_.subspan(count);
    return bytes;
  }
  std::string_view get_text(std::size_t count) {
    const auto bytes = get_bytes(count);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  bool ok() const { return !failed_; }
  std::size_t left_bytes() const { return rest_.size(); }

 private:
  std::span<const std::byte> rest_;
  bool failed_ = false;
};

}  // namespace tarnfs
