#include "fs/check/block_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "common/checksum.h"

namespace tarnfs::check {
namespace {

constexpr std::uint64_t kSegmentBlocks = 32;
constexpr std::size_t kSegments = 64;
constexpr std::uint64_t kRunBlocks = 256;
constexpr std::uint64_t kRunGapMax = 8;  // reading this many blocks for nothing is cheaper than a second read
constexpr std::size_t kQueueMax = std::size_t{1} << 18;
constexpr std::uint64_t kProgressStep = 4096;

}  // namespace

std::string TreeOwner::name() const {
  if (number == kInodeFile) return "the inode file";
  if (number == kFreeMap) return "the free map";
  return "inode " + std::to_string(number);
}

BlockReader::BlockReader(BlockDevice& device, std::uint64_t size_blocks, ProblemLog& log,
                         std::function<void(std::uint64_t)> on_progress)
    : device_(device),
      size_blocks_(size_blocks),
      log_(log),
      on_progress_(std::move(on_progress)),
      segments_(kSegments),
      run_(kRunBlocks * kBlockSize) {}

Result<PageRef> BlockReader::read(Address address) {
  const std::uint64_t number = address.value / kSegmentBlocks;
  Segment& segment = segments_[number % kSegments];
  if (segment.number != number) {
    if (!segment.buffer) segment.buffer = std::make_unique<AlignedBuffer>(kSegmentBlocks * kBlockSize);
    const std::uint64_t first = number * kSegmentBlocks;
    const std::uint64_t count = std::min(kSegmentBlocks, size_blocks_ - first);
    const Status status = device_.read(Address{first}, segment.buffer->span().first(count * kBlockSize));
    segment.number = status.ok() ? number : ~std::uint64_t{0};
  }
  if (segment.number == number) {
    return PageRef::copy_of(
        segment.buffer->span().subspan(address.value % kSegmentBlocks * kBlockSize).first(kBlockSize));
  }
  PageRef page = PageRef::uninitialised();
  TARNFS_TRY(device_.read(address, page.mutable_bytes()));
  return page;
}

PageRef BlockReader::read_verified(const BlockPointer& pointer, TreeOwner owner, std::string_view what) {
  count_blocks(1);
  auto page = read(Address{pointer.address});
  if (!page.ok()) {
    report_unreadable(page.error(), Address{pointer.address}, owner, what);
    return {};
  }
  if (checksum_of(page->bytes()) != pointer.checksum) {
    log_.error(ProblemKind::kChecksum, owner.inode(), Address{pointer.address},
               fmt::format("{} of {} at block {} has a wrong checksum", what, owner.name(), pointer.address));
    return {};
  }
  return std::move(*page);
}

void BlockReader::verify_later(const BlockPointer& pointer, TreeOwner owner, std::uint64_t index) {
  queue_.push_back({pointer.address, pointer.checksum, owner.number, index});
  if (queue_.size() >= kQueueMax) finish();
}

void BlockReader::finish() {
  std::sort(queue_.begin(), queue_.end(), [](const Waiting& a, const Waiting& b) { return a.address < b.address; });
  for (std::size_t first = 0; first < queue_.size();) first = verify_run(first);
  queue_.clear();
}

// Reads the queued blocks from `first` on that lie close together, and returns the first that does not.
std::size_t BlockReader::verify_run(std::size_t first) {
  const std::uint64_t start = queue_[first].address;
  std::uint64_t end = start + 1;
  std::size_t last = first + 1;
  while (last < queue_.size() && queue_[last].address < start + kRunBlocks &&
         queue_[last].address <= end + kRunGapMax) {
    end = queue_[last].address + 1;
    ++last;
  }
  count_blocks(last - first);
  const auto bytes = run_.span().first((end - start) * kBlockSize);
  if (device_.read(Address{start}, bytes).ok()) {
    for (std::size_t i = first; i < last; ++i) {
      verify_one(queue_[i], bytes.subspan((queue_[i].address - start) * kBlockSize, kBlockSize));
    }
    return last;
  }
  const auto one = run_.span().first(kBlockSize);
  for (std::size_t i = first; i < last; ++i) {
    if (const Status status = device_.read(Address{queue_[i].address}, one); status.ok()) {
      verify_one(queue_[i], one);
    } else {
      report_unreadable(status.error(), Address{queue_[i].address}, TreeOwner{queue_[i].owner},
                        fmt::format("data block {}", queue_[i].index));
    }
  }
  return last;
}

void BlockReader::verify_one(const Waiting& waiting, std::span<const std::byte> bytes) {
  if (checksum_of(bytes) == waiting.checksum) return;
  const TreeOwner owner{waiting.owner};
  log_.error(ProblemKind::kChecksum, owner.inode(), Address{waiting.address},
             fmt::format("data block {} of {} at block {} has a wrong checksum", waiting.index, owner.name(),
                         waiting.address));
}

void BlockReader::report_unreadable(const Error& error, Address address, TreeOwner owner, std::string_view what) {
  log_.error(
      ProblemKind::kUnreadable, owner.inode(), address,
      fmt::format("{} of {} at block {} cannot be read: {}", what, owner.name(), address.value, error.describe()));
}

void BlockReader::count_blocks(std::uint64_t blocks) {
  blocks_read_ += blocks;
  if (blocks_read_ - blocks_told_ < kProgressStep) return;
  blocks_told_ = blocks_read_;
  if (on_progress_) on_progress_(blocks_read_);
}

}  // namespace tarnfs::check
