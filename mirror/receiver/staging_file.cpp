#include "mirror/receiver/staging_file.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "common/checksum.h"
#include "common/failpoint.h"
#include "common/staging_place.h"

namespace tarnfs {
namespace {

constexpr std::uint32_t kStagingVersion = 2;
constexpr std::uint32_t kStagingVersionWithoutBase = 1;
constexpr std::uint64_t kFirstStaged = 2;
constexpr std::size_t kBlocksPerCopy = 256;
constexpr std::size_t kEntriesPerBlock = kBlockSize / 16;

struct CommitRecord {
  std::uint64_t magic = kStagingMagic;
  std::uint32_t version = kStagingVersion;
  std::uint32_t reserved = 0;
  std::array<std::uint8_t, 16> volume{};
  std::uint64_t root_checksum = 0;   // of all 4096 bytes of the root block
  std::uint64_t count = 0;           // staged blocks
  std::uint64_t index_checksum = 0;  // chained over the index blocks
  std::uint64_t base_cp = 0;         // of the root that the image shows
  std::uint64_t base_checksum = 0;   // in its checksum field
  std::array<std::uint8_t, kBlockSize - 72 - 8> reserved2{};
  std::uint64_t checksum = 0;  // of the bytes before it
};
static_assert(offsetof(CommitRecord, volume) == kStagingVolumeOffset);
static_assert(sizeof(CommitRecord) == kBlockSize && offsetof(CommitRecord, checksum) == kBlockSize - 8);

std::uint64_t index_blocks_of(std::uint64_t count) {
  return (count + kEntriesPerBlock - 1) / kEntriesPerBlock;
}

// Room for every block of the volume twice: a block that comes again gets a new place.
std::uint64_t staging_size_of(std::uint64_t size_blocks) {
  return kFirstStaged + 2 * (size_blocks + index_blocks_of(size_blocks));
}

std::uint64_t seal_of(const CommitRecord& record) {
  return checksum_of(std::as_bytes(std::span(&record, 1)).first(offsetof(CommitRecord, checksum)));
}

std::uint64_t chain(std::uint64_t before, const PageRef& page) {
  const std::array<std::uint64_t, 2> link{before, checksum_of(page.bytes())};
  return checksum_of(std::as_bytes(std::span(link)));
}

Status write_one(BlockDevice& device, std::uint64_t block, const PageRef& page) {
  return device.write(Address{block}, std::span(&page, 1));
}

Result<PageRef> read_one(BlockDevice& device, std::uint64_t block) {
  PageRef page = PageRef::uninitialised();
  TARNFS_TRY(device.read(Address{block}, page.mutable_bytes()));
  return page;
}

}  // namespace

Status write_in_place(BlockDevice& device, std::vector<BlockWrite>& blocks) {
  // Stable: of two contents for one address the later one stays the later one.
  std::stable_sort(blocks.begin(), blocks.end(),
                   [](const BlockWrite& a, const BlockWrite& b) { return a.address < b.address; });
  std::vector<PageRef> run;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    run.push_back(blocks[i].page);
    if (i + 1 < blocks.size() && blocks[i + 1].address.value == blocks[i].address.value + 1) continue;
    TARNFS_TRY(device.write(Address{blocks[i].address.value + 1 - run.size()}, run));
    run.clear();
  }
  return {};
}

void StagingFile::clear() {
  device_.reset();
  index_.clear();
  blocks_.clear();
}

Result<bool> StagingFile::recover(const Superblock& superblock) {
  clear();
  auto opened = storage_.open_staging();
  if (!opened.ok() && opened.error().code() == ErrorCode::kNotFound) return false;
  if (!opened.ok()) return opened.error();
  device_ = *std::move(opened);
  TARNFS_ASSIGN(const bool committed, load(superblock));
  if (committed) return true;
  TARNFS_TRY(drop());
  return false;
}

Result<bool> StagingFile::load(const Superblock& superblock) {
  if (device_->size_blocks() <= kFirstStaged) return false;
  TARNFS_ASSIGN(const PageRef first, read_one(*device_, 0));
  CommitRecord record;
  std::memcpy(static_cast<void*>(&record), first.data(), kBlockSize);
  if (record.magic != kStagingMagic || record.checksum != seal_of(record)) return false;
  if (record.version != kStagingVersion && record.version != kStagingVersionWithoutBase) {
    return Error(ErrorCode::kIncompatible,
                 device_->name() + " was written by a newer release of tarnfs; start that one");
  }
  if (record.volume != superblock.volume) {
    return Error(ErrorCode::kRefused, device_->name() +
                                          " was written for an image of another volume, which needs it; " +
                                          "put it beside that one, or remove it when that is gone");
  }
  const Error damaged(ErrorCode::kCorrupt,
                      device_->name() + " is committed but damaged; remove it and the image to copy the volume anew");
  TARNFS_ASSIGN(const PageRef root_page, read_one(*device_, 1));
  auto root = check_root_block(root_page.bytes());
  if (!root.ok() || root->volume != superblock.volume || checksum_of(root_page.bytes()) != record.root_checksum) {
    return damaged;
  }
  if (root->size_blocks < superblock.size_blocks) return damaged;
  if (record.count > device_->size_blocks() - kFirstStaged) return damaged;
  std::uint64_t checksum = 0;
  for (std::uint64_t i = 0; i < index_blocks_of(record.count); ++i) {
    TARNFS_ASSIGN(const PageRef page, read_one(*device_, kFirstStaged + record.count + i));
    checksum = chain(checksum, page);
    std::array<IndexEntry, kEntriesPerBlock> entries;
    std::memcpy(entries.data(), page.data(), kBlockSize);
    const std::size_t used = std::min<std::uint64_t>(kEntriesPerBlock, record.count - index_.size());
    index_.insert(index_.end(), entries.begin(), entries.begin() + static_cast<std::ptrdiff_t>(used));
  }
  if (checksum != record.index_checksum) return damaged;
  for (std::uint64_t i = 0; i < index_.size(); ++i) {
    if (!is_data_address(index_[i].address, root->size_blocks)) return damaged;
    blocks_[index_[i].address] = Address{kFirstStaged + i};
  }
  root_ = *root;
  base_.reset();
  if (record.version != kStagingVersionWithoutBase) {
    base_.emplace();
    base_->cp = Cp{record.base_cp};
    base_->root_checksum = record.base_checksum;
  }
  return true;
}

Status StagingFile::create(std::uint64_t size_blocks) {
  TARNFS_ASSIGN(device_, storage_.create_staging(staging_size_of(size_blocks)));
  // An old commit record must not meet new blocks.
  TARNFS_TRY(write_one(*device_, 0, PageRef::zeroed()));
  return device_->flush();
}

Status StagingFile::add(std::uint64_t size_blocks, std::span<const BlockWrite> blocks) {
  if (!device_) TARNFS_TRY(create(size_blocks));
  const std::uint64_t place = kFirstStaged + index_.size();
  const std::uint64_t count = index_.size() + blocks.size();
  if (kFirstStaged + count + index_blocks_of(count) > device_->size_blocks()) {
    return Error(ErrorCode::kCorrupt, "the peer sent more blocks than the volume has");
  }
  std::vector<PageRef> pages;
  for (const BlockWrite& block : blocks) pages.push_back(block.page);
  TARNFS_TRY(device_->write(Address{place}, pages));
  for (const BlockWrite& block : blocks) {
    blocks_[block.address] = Address{kFirstStaged + index_.size()};
    index_.push_back({block.address, block.checksum});
  }
  return {};
}

Status StagingFile::commit(const RootBlock& root, const StateName& base) {
  if (!device_) TARNFS_TRY(create(root.size_blocks));
  CommitRecord record;
  record.volume = root.volume;
  record.base_cp = base.cp.value;
  record.base_checksum = base.root_checksum;
  record.count = index_.size();
  const PageRef root_page = page_of(root);
  record.root_checksum = checksum_of(root_page.bytes());
  TARNFS_TRY(write_one(*device_, 1, root_page));
  for (std::uint64_t i = 0; i < index_blocks_of(record.count); ++i) {
    const auto all = std::as_bytes(std::span(index_));
    const auto rest = all.subspan(i * kBlockSize);
    const PageRef page = PageRef::copy_of(rest.first(std::min(rest.size(), kBlockSize)));
    record.index_checksum = chain(record.index_checksum, page);
    TARNFS_TRY(write_one(*device_, kFirstStaged + record.count + i, page));
  }
  TARNFS_TRY(device_->flush());
  TARNFS_FAILPOINT("mirror: staging file written");
  record.checksum = seal_of(record);
  TARNFS_TRY(write_one(*device_, 0, page_of(record)));
  TARNFS_TRY(device_->flush());
  root_ = root;
  base_ = base;
  return {};
}

Status StagingFile::copy_to(BlockDevice* image) {
  std::vector<BlockWrite> batch;
  for (std::uint64_t i = 0; i < index_.size(); ++i) {
    const Address place{kFirstStaged + i};
    if (blocks_.at(index_[i].address) != place) continue;  // staged again later
    TARNFS_ASSIGN(PageRef page, read_one(*device_, place.value));
    if (checksum_of(page.bytes()) != index_[i].checksum) {
      return Error(ErrorCode::kCorrupt, device_->name() + ": the staged block for address " +
                                            std::to_string(index_[i].address.value) +
                                            " is damaged; remove it and the image to copy the volume anew");
    }
    if (image == nullptr) continue;
    batch.push_back({index_[i].address, index_[i].checksum, std::move(page)});
    if (batch.size() < kBlocksPerCopy) continue;
    TARNFS_TRY(write_in_place(*image, batch));
    TARNFS_FAILPOINT("mirror: some staged blocks copied");
    batch.clear();
  }
  if (image == nullptr) return {};
  return write_in_place(*image, batch);
}

Status StagingFile::drop_left() {
  clear();
  auto opened = storage_.open_staging();
  if (!opened.ok() && opened.error().code() == ErrorCode::kNotFound) return {};
  if (!opened.ok()) return opened.error();
  device_ = *std::move(opened);
  return drop();
}

Status StagingFile::drop() {
  if (!device_) return {};
  if (device_->size_blocks() > 0) {
    TARNFS_TRY(write_one(*device_, 0, PageRef::zeroed()));
    TARNFS_TRY(device_->flush());
  }
  clear();
  return storage_.remove_staging();
}

}  // namespace tarnfs
