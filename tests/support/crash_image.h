// The content of a simulated disk as a value that is cheap to copy and to compare.
//
// Purpose: thousands of crash states differ from one another in a few blocks; a copy shares all the others.
//
// Invariants:
//   1. `base_` never changes; what a copy puts goes to its own `changed_`.
//   2. digest() depends on the blocks alone, not on the order in which they were put.
//
// Thread safety: a value; copies share immutable memory, so each may live in its own thread.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "common/checksum.h"
#include "common/page.h"
#include "tests/support/simulated_clock.h"

namespace tarnfs::testing {

struct ImageBlock {
  PageRef page;              // empty: never written, all zero
  std::uint64_t digest = 0;  // of the page's bytes; 0 when empty

  static ImageBlock copy_of(std::span<const std::byte> bytes) {
    return ImageBlock{PageRef::copy_of(bytes), checksum_of(bytes)};
  }
};

class CrashImage {
 public:
  explicit CrashImage(std::uint64_t size_blocks)
      : base_(std::make_shared<const std::vector<ImageBlock>>(static_cast<std::size_t>(size_blocks))) {}

  std::uint64_t size_blocks() const { return base_->size(); }
  const ImageBlock& at(std::uint64_t address) const {
    const auto found = changed_.find(address);
    return found != changed_.end() ? found->second : (*base_)[address];
  }
  void put(std::uint64_t address, const ImageBlock& block) {
    digest_ ^= contribution(address, at(address)) ^ contribution(address, block);
    changed_[address] = block;
  }
  // A longer disk; what is new was never written.
  void extend(std::uint64_t size_blocks) {
    compact();
    auto base = std::make_shared<std::vector<ImageBlock>>(*base_);
    base->resize(static_cast<std::size_t>(size_blocks));
    base_ = std::move(base);
  }
  // Makes later copies cheap: one copy of the table now.
  void compact() {
    if (changed_.empty()) return;
    auto base = std::make_shared<std::vector<ImageBlock>>(*base_);
    for (const auto& [address, block] : changed_) (*base)[address] = block;
    base_ = std::move(base);
    changed_.clear();
  }
  std::uint64_t digest() const { return digest_; }

 private:
  static std::uint64_t contribution(std::uint64_t address, const ImageBlock& block) {
    return block.page ? mix_bits(block.digest ^ mix_bits(address)) : 0;
  }

  std::shared_ptr<const std::vector<ImageBlock>> base_;
  std::unordered_map<std::uint64_t, ImageBlock> changed_;
  std::uint64_t digest_ = 0;
};

}  // namespace tarnfs::testing
