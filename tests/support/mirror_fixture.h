// A primary without an engine, a mirror's target without a file system, and a disk that can lose power.
//
// Purpose: unit tests of replication. A state is a set of blocks at addresses; what a tree of pointers is to the
// engine, the book of states is here.
//
// Thread safety: StateBook, FakePrimary and FakeTarget may be used by any thread.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "common/checksum.h"
#include "common/format.h"
#include "common/mutex.h"
#include "common/replication.h"
#include "mirror/receiver/mirror_storage.h"
#include "tests/support/direct_memory.h"
#include "tests/support/memory_block_device.h"

namespace tarnfs::testing {

inline constexpr std::uint64_t kVolumeBlocks = 1024;

inline Superblock make_superblock(std::uint8_t volume) {
  Superblock superblock;
  superblock.size_blocks = kVolumeBlocks;
  superblock.volume.fill(volume);
  std::memcpy(superblock.label.data(), "test", 4);
  seal(superblock);
  return superblock;
}

// A page that no other seed gives, and that LZ4 can or cannot make smaller.
inline PageRef make_page(std::uint64_t seed, bool compressible = true) {
  PageRef page = PageRef::zeroed();
  std::mt19937_64 random(seed);
  const std::size_t filled = compressible ? 512 : kBlockSize;
  for (std::size_t i = 0; i < filled; i += 8) {
    const std::uint64_t word = random();
    std::memcpy(page.mutable_bytes().data() + i, &word, 8);
  }
  return page;
}

struct StateBlock {
  PageRef page;
  std::uint64_t checksum = 0;
  Cp birth;
};
using State = std::map<Address, StateBlock>;

// All states of a volume by their roots' checksums: what the trees under the roots would say.
class StateBook {
 public:
  void add(const RootBlock& root, State state) {
    MutexLock lock(mutex_);
    states_[root.checksum] = std::make_shared<const State>(std::move(state));
  }
  std::shared_ptr<const State> find(std::uint64_t root_checksum) const {
    MutexLock lock(mutex_);
    const auto found = states_.find(root_checksum);
    return found == states_.end() ? nullptr : found->second;
  }

 private:
  mutable Mutex mutex_;
  std::map<std::uint64_t, std::shared_ptr<const State>> states_ TARNFS_GUARDED_BY(mutex_);
};

// Reads every block of a state as a file system would.
inline Status check_state(BlockDevice& device, const State& state) {
  for (const auto& [address, block] : state) {
    BlockPointer pointer;
    pointer.address = address.value;
    pointer.birth_cp = block.birth.value;
    pointer.checksum = block.checksum;
    TARNFS_TRY(read_block(device, pointer));
  }
  return {};
}

class FakePrimary final : public ReplicationSource {
 public:
  explicit FakePrimary(std::uint8_t volume = 1) : superblock_(make_superblock(volume)) {
    root_.volume = superblock_.volume;
    root_.epoch.fill(static_cast<std::uint8_t>(volume + 100));
    root_.size_blocks = kVolumeBlocks;
    publish();
  }

  void set_feed(ChangeFeed* feed) { feed_ = feed; }
  StateBook& book() { return book_; }

  // Changes for the next cp.
  void put(std::uint64_t address, std::uint64_t seed, bool compressible = true) {
    StateBlock block;
    block.page = make_page(seed, compressible);
    block.checksum = checksum_of(block.page.bytes());
    block.birth = Cp{root_.cp + 1};
    next_[Address{address}] = block;
    const BlockWrite write{Address{address}, block.checksum, block.page};
    written_.push_back(write);
    if (feed_ != nullptr) feed_->on_blocks(block.birth, std::span(&write, 1));
  }
  void remove(std::uint64_t address) { next_.erase(Address{address}); }
  // What was put since the last cp.
  std::vector<BlockWrite> written() const { return written_; }

  Cp commit() {
    publish();
    if (feed_ != nullptr) feed_->on_published(newest_root());
    return Cp{newest_root().cp};
  }
  // A new reign, as after a promotion: the old one ended at `last`.
  void begin_epoch(std::uint8_t epoch, Cp last) {
    MutexLock lock(mutex_);
    if (root_.history_count == kHistoryMax) {
      std::move(root_.history.begin() + 1, root_.history.end(), root_.history.begin());
      --root_.history_count;
    }
    auto& entry = root_.history.at(root_.history_count++);
    entry.epoch = root_.epoch;
    entry.last_cp = last.value;
    root_.epoch.fill(epoch);
  }

  // What a copy of its image has; no size is restored.
  struct ImageCopy {
    RootBlock root;
    State state;
    std::map<Cp, std::uint64_t> root_checksums;
  };
  ImageCopy copy_image() const {
    MutexLock lock(mutex_);
    return {root_, next_, root_checksums_};
  }
  // Nothing was put since the last cp.
  void restore(const ImageCopy& copy) {
    MutexLock lock(mutex_);
    root_ = copy.root;
    next_ = copy.state;
    root_checksums_ = copy.root_checksums;
  }

  // The next root is of a larger volume.
  void grow(std::uint64_t size_blocks) {
    MutexLock lock(mutex_);
    growing_to_blocks_ = size_blocks;
  }

  Superblock superblock() const override {
    MutexLock lock(mutex_);
    return superblock_;
  }
  RootBlock newest_root() const override {
    MutexLock lock(mutex_);
    return root_;
  }
  std::optional<std::uint64_t> root_checksum(Cp cp) override {
    MutexLock lock(mutex_);
    const auto found = root_checksums_.find(cp);
    return found == root_checksums_.end() ? std::nullopt : std::optional(found->second);
  }
  PinnedRoot pin_newest_root() override {
    MutexLock lock(mutex_);
    pins_[++last_pin_] = Cp{root_.cp};
    return {root_, last_pin_};
  }
  PinId pin_root(Cp cp) override {
    MutexLock lock(mutex_);
    pins_[++last_pin_] = cp;
    return last_pin_;
  }
  void move_pin(PinId pin, Cp cp) override {
    MutexLock lock(mutex_);
    TARNFS_ASSERT(pins_.at(pin) <= cp);
    pins_[pin] = cp;
  }
  void unpin(PinId pin) override {
    MutexLock lock(mutex_);
    TARNFS_ASSERT(pins_.erase(pin) == 1);
  }
  std::uint64_t held_bytes(PinId pin) override {
    MutexLock lock(mutex_);
    return pins_.contains(pin) ? (root_.cp - pins_.at(pin).value) * kHeldBytesPerCp : 0;
  }
  // What held_bytes() says for each cp that a pin is behind.
  static constexpr std::uint64_t kHeldBytesPerCp = 5 * kBlockSize;
  // Tells that the pins of `cp` are lost.
  void lose_pins(Cp cp, PinLoss why) {
    std::vector<LostPin> lost;
    {
      MutexLock lock(mutex_);
      for (const auto& [pin, pinned] : pins_) {
        if (pinned == cp) lost.push_back({pin, cp, why, (root_.cp - cp.value) * kHeldBytesPerCp, 0});
      }
    }
    for (const LostPin& pin : lost) feed_->on_pin_lost(pin);
  }
  Status walk_changed(const RootBlock& root, Cp since, const std::function<Status(const BlockWrite&)>& visit) override {
    const auto state = book_.find(root.checksum);
    {
      MutexLock lock(mutex_);
      ++walks_;
    }
    for (const auto& [address, block] : *state) {
      if (block.birth <= since) continue;
      TARNFS_TRY(visit({address, block.checksum, block.page}));
    }
    return {};
  }

  Status list_changed(const RootBlock& root, Cp since,
                      const std::function<Status(const BlockPointer&)>& visit) override {
    const auto state = book_.find(root.checksum);
    for (const auto& [address, block] : *state) {
      if (block.birth <= since) continue;
      BlockPointer pointer;
      pointer.address = address.value;
      pointer.birth_cp = block.birth.value;
      pointer.checksum = block.checksum;
      TARNFS_TRY(visit(pointer));
    }
    return {};
  }
  Result<BlockWrite> read_listed(const RootBlock& root, const BlockPointer& block) override {
    const auto state = book_.find(root.checksum);
    return BlockWrite{Address{block.address}, block.checksum, state->at(Address{block.address}).page};
  }

  std::vector<Cp> pins() const {
    MutexLock lock(mutex_);
    std::vector<Cp> cps;
    for (const auto& [pin, cp] : pins_) cps.push_back(cp);
    return cps;
  }
  std::uint64_t walks() const {
    MutexLock lock(mutex_);
    return walks_;
  }

 private:
  // A root says what it leads to.
  static std::uint64_t digest_of(const State& state) {
    std::uint64_t digest = 0;
    for (const auto& [address, block] : state) {
      const std::array<std::uint64_t, 3> link{digest, address.value, block.checksum};
      digest = checksum_of(std::as_bytes(std::span(link)));
    }
    return digest;
  }
  void publish() {
    RootBlock root;
    std::uint64_t growing_to_blocks = 0;
    {
      MutexLock lock(mutex_);
      root = root_;
      growing_to_blocks = std::exchange(growing_to_blocks_, 0);
    }
    root.previous_checksum = root.checksum;
    ++root.cp;
    if (growing_to_blocks != 0) root.size_blocks = growing_to_blocks;
    root.used_blocks = next_.size();
    root.allocation_cursor = digest_of(next_);
    seal(root);
    book_.add(root, next_);
    written_.clear();
    MutexLock lock(mutex_);
    root_ = root;
    root_checksums_[Cp{root.cp}] = root.checksum;
    if (root.cp > kRootSlots) root_checksums_.erase(Cp{root.cp - kRootSlots});
    superblock_ = grown(superblock_, root.size_blocks);
  }

  Superblock superblock_;
  StateBook book_;
  ChangeFeed* feed_ = nullptr;
  State next_;                       // of the test's thread
  std::vector<BlockWrite> written_;  // of the test's thread

  mutable Mutex mutex_;
  RootBlock root_;
  std::uint64_t growing_to_blocks_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::map<Cp, std::uint64_t> root_checksums_ TARNFS_GUARDED_BY(mutex_);
  std::map<PinId, Cp> pins_ TARNFS_GUARDED_BY(mutex_);
  PinId last_pin_ TARNFS_GUARDED_BY(mutex_) = 0;
  std::uint64_t walks_ TARNFS_GUARDED_BY(mutex_) = 0;
};

// Shows a state by checking that all its blocks can be read.
class FakeTarget final : public MirrorTarget {
 public:
  FakeTarget(const StateBook& book, BlockDevice& device) : book_(book), device_(device) {}

  Status adopt(const RootBlock& root) override {
    const auto state = book_.find(root.checksum);
    if (!state) return Error(ErrorCode::kCorrupt, "a root that the primary never had");
    // Both views must be whole at this moment: readers of the old one are still at work.
    if (const auto old = shown()) TARNFS_TRY(check_state(device_, *old));
    TARNFS_TRY(check_state(device_, *state));
    MutexLock lock(mutex_);
    shown_ = state;
    root_ = root;
    return {};
  }
  Result<bool> in_use(Address address) override {
    MutexLock lock(mutex_);
    ++asked_[address];
    return shown_ && shown_->contains(address);
  }
  Result<bool> in_use_by(const RootBlock& root, Address address) override {
    const auto state = book_.find(root.checksum);
    return state && state->contains(address);
  }

  std::shared_ptr<const State> shown() const {
    MutexLock lock(mutex_);
    return shown_;
  }
  std::optional<RootBlock> root() const {
    MutexLock lock(mutex_);
    return root_;
  }
  // What a reader of the mirror sees now.
  Status check() const {
    const auto state = shown();
    return state ? check_state(device_, *state) : Status{};
  }

 private:
  const StateBook& book_;
  BlockDevice& device_;
  mutable Mutex mutex_;
  std::shared_ptr<const State> shown_ TARNFS_GUARDED_BY(mutex_);
  std::optional<RootBlock> root_ TARNFS_GUARDED_BY(mutex_);
  std::map<Address, std::uint64_t> asked_ TARNFS_GUARDED_BY(mutex_);
};

// The mirror's two files on one disk, with a log of all that is written, in order.
class RecordingDisk {
 public:
  enum class File { kImage, kStaging };
  enum class Kind { kCreate, kGrow, kWrite, kFlush, kRemove };
  struct Operation {
    File file;
    Kind kind;
    Address first;
    std::vector<PageRef> pages;
    std::uint64_t size_blocks = 0;
  };
  using Blocks = std::map<std::uint64_t, PageRef>;
  struct Content {
    std::uint64_t size_blocks = 0;
    Blocks blocks;
  };
  using Files = std::map<File, Content>;

  RecordingDisk() = default;
  explicit RecordingDisk(const Files& files) : files_(files) {}

  std::vector<Operation> log() const {
    MutexLock lock(mutex_);
    return log_;
  }
  // Every operation that changes something, from the n-th on (0: the next), fails with `code`.
  void fail_from(std::optional<std::uint64_t> n, ErrorCode code = ErrorCode::kIo) {
    MutexLock lock(mutex_);
    fail_from_ = n;
    fail_code_ = code;
  }
  PageRef content(File file, Address address) const {
    MutexLock lock(mutex_);
    return files_.at(file).blocks.at(address.value);
  }
  bool exists(File file) const {
    MutexLock lock(mutex_);
    return files_.contains(file);
  }
  Files files() const {
    MutexLock lock(mutex_);
    return files_;
  }
  std::set<File> locked() const {
    MutexLock lock(mutex_);
    return locked_;
  }

  // The files after a loss of power behind the first `count` operations of `log`: what was not flushed then survives
  // whole, torn in sectors, or not at all.
  static Files after_power_loss(const Files& before, const std::vector<Operation>& log, std::size_t count,
                                std::mt19937_64& random) {
    Files files = before;
    std::map<File, std::vector<Operation>> unsynced;
    for (std::size_t i = 0; i < count; ++i) {
      const Operation& operation = log[i];
      switch (operation.kind) {
        case Kind::kCreate:
          files[operation.file].size_blocks = operation.size_blocks;
          break;
        case Kind::kRemove:
          files.erase(operation.file);
          unsynced.erase(operation.file);
          break;
        case Kind::kGrow:
        case Kind::kWrite:
          unsynced[operation.file].push_back(operation);
          break;
        case Kind::kFlush:
          for (const Operation& done : unsynced[operation.file]) {
            if (done.kind == Kind::kGrow) files[operation.file].size_blocks = done.size_blocks;
            if (done.kind == Kind::kWrite) store(files[operation.file].blocks, done);
          }
          unsynced.erase(operation.file);
          break;
      }
    }
    for (const auto& [file, writes] : unsynced) {
      for (const Operation& write : writes) {
        if (write.kind == Kind::kWrite) store_some(files[file].blocks, write, random);
        if (write.kind == Kind::kGrow && random() % 2 == 0) files[file].size_blocks = write.size_blocks;
      }
    }
    return files;
  }

  Result<std::shared_ptr<BlockDevice>> open(File file) {
    MutexLock lock(mutex_);
    if (!files_.contains(file)) return Error(ErrorCode::kNotFound, "no such file");
    return handle(file);
  }
  Result<std::shared_ptr<BlockDevice>> create(File file, std::uint64_t size_blocks) {
    MutexLock lock(mutex_);
    Operation operation{file, Kind::kCreate, {}, {}, size_blocks};
    TARNFS_TRY(note(operation));
    files_[file].size_blocks = size_blocks;
    return handle(file);
  }
  Status remove(File file) {
    MutexLock lock(mutex_);
    if (!files_.contains(file)) return {};
    TARNFS_TRY(note({file, Kind::kRemove, {}, {}, 0}));
    files_.erase(file);
    return {};
  }

 private:
  class Handle final : public BlockDevice {
   public:
    Handle(RecordingDisk& disk, File file, std::uint64_t size_blocks)
        : disk_(disk), file_(file), size_blocks_(size_blocks) {}
    ~Handle() override {
      MutexLock lock(disk_.mutex_);
      disk_.locked_.erase(file_);
    }
    std::string name() const override { return file_ == File::kImage ? "image" : "staging"; }
    std::uint64_t size_blocks() const override { return size_blocks_; }
    Status read(Address first, std::span<std::byte> out) override {
      TARNFS_TRY(check_aligned(out));
      return disk_.read(file_, first, out);
    }
    Status write(Address first, std::span<const PageRef> pages) override {
      if (first.value + pages.size() > size_blocks_) return Error(ErrorCode::kIo, "write beyond the end");
      return disk_.write(file_, first, pages);
    }
    Status flush() override { return disk_.flush(file_); }
    Status grow(std::uint64_t size_blocks) override {
      if (size_blocks <= size_blocks_) return {};
      TARNFS_TRY(disk_.grow(file_, size_blocks));
      size_blocks_ = size_blocks;
      return {};
    }

   private:
    RecordingDisk& disk_;
    const File file_;
    std::atomic<std::uint64_t> size_blocks_;
  };

  Result<std::shared_ptr<BlockDevice>> handle(File file) TARNFS_REQUIRES(mutex_) {
    if (!locked_.insert(file).second) return Error(ErrorCode::kBusy, "the file is in use");
    return std::shared_ptr<BlockDevice>(std::make_shared<Handle>(*this, file, files_[file].size_blocks));
  }
  Status read(File file, Address first, std::span<std::byte> out) {
    MutexLock lock(mutex_);
    // A removed file that is still open has nothing left here: readers find out and read again.
    const auto opened = files_.find(file);
    const Blocks blocks = opened == files_.end() ? Blocks{} : opened->second.blocks;
    for (std::size_t done = 0; done < out.size(); done += kBlockSize, ++first.value) {
      const auto found = blocks.find(first.value);
      if (found == blocks.end()) {
        std::memset(out.data() + done, 0, kBlockSize);
      } else {
        std::memcpy(out.data() + done, found->second.data(), kBlockSize);
      }
    }
    return {};
  }
  Status write(File file, Address first, std::span<const PageRef> pages) {
    MutexLock lock(mutex_);
    const Operation operation{file, Kind::kWrite, first, {pages.begin(), pages.end()}, 0};
    TARNFS_TRY(note(operation));
    store(files_[file].blocks, operation);
    return {};
  }
  Status grow(File file, std::uint64_t size_blocks) {
    MutexLock lock(mutex_);
    TARNFS_TRY(note({file, Kind::kGrow, {}, {}, size_blocks}));
    files_[file].size_blocks = size_blocks;
    return {};
  }
  Status flush(File file) {
    MutexLock lock(mutex_);
    return note({file, Kind::kFlush, {}, {}, 0});
  }
  Status note(const Operation& operation) TARNFS_REQUIRES(mutex_) {
    if (fail_from_) {
      if (*fail_from_ == 0) return Error(fail_code_, "injected failure");
      --*fail_from_;
    }
    log_.push_back(operation);
    return {};
  }

  static void store(Blocks& blocks, const Operation& write) {
    for (std::size_t i = 0; i < write.pages.size(); ++i) blocks[write.first.value + i] = write.pages[i];
  }
  static void store_some(Blocks& blocks, const Operation& write, std::mt19937_64& random) {
    constexpr std::size_t kSector = 512;
    for (std::size_t i = 0; i < write.pages.size(); ++i) {
      const auto fate = random() % 3;
      if (fate == 0) continue;
      PageRef& kept = blocks[write.first.value + i];
      PageRef torn = kept ? PageRef::copy_of(kept.bytes()) : PageRef::zeroed();
      for (std::size_t at = 0; at < kBlockSize; at += kSector) {
        if (fate == 2 && random() % 2 == 0) continue;
        std::memcpy(torn.mutable_bytes().data() + at, write.pages[i].data() + at, kSector);
      }
      kept = torn;
    }
  }

  mutable Mutex mutex_;
  Files files_ TARNFS_GUARDED_BY(mutex_);
  std::vector<Operation> log_ TARNFS_GUARDED_BY(mutex_);
  std::set<File> locked_ TARNFS_GUARDED_BY(mutex_);
  std::optional<std::uint64_t> fail_from_ TARNFS_GUARDED_BY(mutex_);
  ErrorCode fail_code_ TARNFS_GUARDED_BY(mutex_) = ErrorCode::kIo;
};

class MemoryMirrorStorage final : public MirrorStorage {
 public:
  explicit MemoryMirrorStorage(RecordingDisk& disk) : disk_(disk) {}
  std::string name() const override { return "memory-image"; }
  Result<std::shared_ptr<BlockDevice>> open_image() override { return disk_.open(RecordingDisk::File::kImage); }
  Result<std::shared_ptr<BlockDevice>> create_image(std::uint64_t size_blocks) override {
    return disk_.create(RecordingDisk::File::kImage, size_blocks);
  }
  Result<std::shared_ptr<BlockDevice>> open_staging() override { return disk_.open(RecordingDisk::File::kStaging); }
  Result<std::shared_ptr<BlockDevice>> create_staging(std::uint64_t size_blocks) override {
    return disk_.create(RecordingDisk::File::kStaging, size_blocks);
  }
  Status remove_staging() override { return disk_.remove(RecordingDisk::File::kStaging); }
  // Nothing of it survives, so it is no part of the disk's log.
  Result<std::shared_ptr<BlockDevice>> create_kept(std::uint64_t size_blocks) override {
    return std::shared_ptr<BlockDevice>(std::make_shared<MemoryBlockDevice>(size_blocks));
  }

 private:
  RecordingDisk& disk_;
};

}  // namespace tarnfs::testing
