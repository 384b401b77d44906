#include "fs/check/share_check.h"

#include <fmt/format.h>

#include "common/checksum.h"

namespace tarnfs::check {

void ShareCheck::add_page(std::uint64_t index, const SharePage& counts) {
  auto page = std::make_unique<Page>();
  page->expected = counts;
  pages_[index] = std::move(page);
}

std::uint32_t ShareCheck::fingerprint_of(const BlockPointer& pointer) {
  const auto folded = static_cast<std::uint32_t>(checksum_of(std::as_bytes(std::span(&pointer, 1))));
  return folded == 0 ? 1 : folded;
}

void ShareCheck::note_first(const BlockPointer& pointer) {
  const auto page = pages_.find(pointer.address / kSharesPerPage);
  if (page == pages_.end()) return;
  page->second->fingerprints[pointer.address % kSharesPerPage] = fingerprint_of(pointer);
}

ShareCheck::Further ShareCheck::note_further(const BlockPointer& pointer, TreeOwner owner) {
  const std::uint64_t index = pointer.address / kSharesPerPage;
  const std::uint64_t slot = pointer.address % kSharesPerPage;
  if (lost_.contains(index)) return Further::kUnknown;
  const auto found = pages_.find(index);
  if (found == pages_.end()) return Further::kUnexpected;
  Page& page = *found->second;
  // With a count of 0 the block has one owner, as every block that is not in the map.
  if (page.expected[slot] == 0 || page.fingerprints[slot] == 0) return Further::kUnexpected;
  if (page.fingerprints[slot] != fingerprint_of(pointer)) {
    log_.error(
        ProblemKind::kShareMap, owner.inode(), Address{pointer.address},
        fmt::format("{} shares block {}, but its pointer is not the one of the others", owner.name(), pointer.address));
  }
  if (page.found[slot] < kSharesMax) {
    ++page.found[slot];
  } else {
    log_.error(ProblemKind::kShareMap, owner.inode(), Address{pointer.address},
               fmt::format("block {} has more references than can be counted", pointer.address));
  }
  return Further::kCounted;
}

void ShareCheck::finish(bool complete) {
  for (const auto& [index, page] : pages_) compare(index, *page, complete);
}

// Neighbours with the same finding are told together.
void ShareCheck::compare(std::uint64_t index, const Page& page, bool complete) {
  const auto is_wrong = [&](std::size_t slot) {
    return page.found[slot] > page.expected[slot] || (complete && page.found[slot] < page.expected[slot]);
  };
  const auto are_alike = [&](std::size_t slot, std::size_t other) {
    return page.expected[slot] == page.expected[other] && page.found[slot] == page.found[other];
  };
  for (std::size_t first = 0; first < kSharesPerPage;) {
    std::size_t end = first + 1;
    if (is_wrong(first)) {
      while (end < kSharesPerPage && are_alike(first, end)) ++end;
      report(index * kSharesPerPage + first, end - first, page.expected[first], page.found[first]);
    }
    first = end;
  }
}

void ShareCheck::report(std::uint64_t first, std::uint64_t count, std::uint16_t expected, std::uint32_t found) {
  const std::string blocks = count == 1 ? fmt::format("block {} has", first)
                                        : fmt::format("blocks {} to {} have each", first, first + count - 1);
  log_.error(ProblemKind::kShareMap, std::nullopt, Address{first},
             fmt::format("{} {} references beyond the first, but the share map says {}", blocks, found, expected));
}

}  // namespace tarnfs::check
