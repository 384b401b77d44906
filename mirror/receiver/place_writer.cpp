#include "mirror/receiver/place_writer.h"

#include <algorithm>
#include <utility>

namespace tarnfs {
namespace {

// Below this the second thread costs more than it takes over.
constexpr std::size_t kSharedBlocksMin = 64;

// Stable: of two contents for one address the later one stays the later one.
void sort_by_address(std::vector<BlockWrite>& blocks) {
  std::stable_sort(blocks.begin(), blocks.end(),
                   [](const BlockWrite& a, const BlockWrite& b) { return a.address < b.address; });
}

Status write_sorted(BlockDevice& device, std::span<const BlockWrite> blocks) {
  std::vector<PageRef> run;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    run.push_back(blocks[i].page);
    if (i + 1 < blocks.size() && blocks[i + 1].address.value == blocks[i].address.value + 1) continue;
    TARNFS_TRY(device.write(Address{blocks[i].address.value + 1 - run.size()}, run));
    run.clear();
  }
  return {};
}

// About the middle, and never between two contents for one address.
std::size_t middle_of(std::span<const BlockWrite> sorted) {
  std::size_t middle = sorted.size() / 2;
  while (middle < sorted.size() && sorted[middle].address == sorted[middle - 1].address) ++middle;
  return middle;
}

}  // namespace

Status write_in_place(BlockDevice& device, std::vector<BlockWrite>& blocks) {
  sort_by_address(blocks);
  return write_sorted(device, blocks);
}

PlaceWriter::~PlaceWriter() {
  if (!thread_.joinable()) return;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

Status PlaceWriter::write(BlockDevice& device, std::vector<BlockWrite>& blocks) {
  if (blocks.size() < kSharedBlocksMin) return write_in_place(device, blocks);
  sort_by_address(blocks);
  const std::span<const BlockWrite> sorted(blocks);
  const std::size_t middle = middle_of(sorted);
  hand_over({&device, sorted.subspan(middle)});
  const Status first = write_sorted(device, sorted.first(middle));
  const Status second = wait_done();
  return first.ok() ? second : first;
}

void PlaceWriter::hand_over(const Task& task) {
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  MutexLock lock(mutex_);
  TARNFS_ASSERT(!task_ && !done_);
  task_ = task;
  changed_.notify_all();
}

Status PlaceWriter::wait_done() {
  MutexLock lock(mutex_);
  while (!done_) changed_.wait(mutex_);
  return *std::exchange(done_, std::nullopt);
}

void PlaceWriter::run() {
  for (;;) {
    Task task;
    {
      MutexLock lock(mutex_);
      while (!task_ && !stopping_) changed_.wait(mutex_);
      if (!task_) return;
      task = *task_;
      task_.reset();
    }
    const Status status = write_sorted(*task.device, task.blocks);
    MutexLock lock(mutex_);
    done_ = status;
    changed_.notify_all();
  }
}

}  // namespace tarnfs
