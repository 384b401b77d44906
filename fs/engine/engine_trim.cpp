// Trimming: the storage of free blocks is given back to the device below.
//
// A run of free blocks is discarded in chunks. Each is promised by the ledger and set aside in the free map, so that no
// consistency point and no fsync writes it meanwhile; no lock is held while the device discards. An operation that
// finds no space calls the chunk in (SpaceLoan) before it gives up.
#include <algorithm>

#include "fs/engine/engine.h"

namespace tarnfs {
namespace {

constexpr std::uint64_t kChunkBlocksMax = 4096;
constexpr std::uint64_t kChunkShare = 4;  // a chunk is at most this part of the space that is left

constexpr std::uint64_t blocks_up(std::uint64_t bytes) {
  return bytes / kBlockSize + (bytes % kBlockSize != 0 ? 1 : 0);
}

}  // namespace

Result<std::uint64_t> Engine::trim(const TrimRange& range) {
  if (!takes_changes()) return Error(ErrorCode::kReadOnly);
  if (NoWaitScope::is_active()) return Error(ErrorCode::kWouldWait);
  const std::uint64_t size_bytes = size_blocks_.load() * kBlockSize;
  if (range.start_bytes >= size_bytes || range.length_bytes < kBlockSize || range.run_min_bytes > size_bytes) {
    return Error(ErrorCode::kInvalid, "there is nothing of the volume in the range");
  }
  const std::uint64_t length_bytes = std::min(range.length_bytes, size_bytes - range.start_bytes);
  const std::uint64_t end = (range.start_bytes + length_bytes) / kBlockSize;
  const std::uint64_t run_min = std::max<std::uint64_t>(1, blocks_up(range.run_min_bytes));
  std::uint64_t trimmed_blocks = 0;
  const auto finish = [&](const FreeMap::FreeRun& run) -> Status {
    if (run.count() < run_min) return {};
    TARNFS_ASSIGN(const std::uint64_t blocks, trim_run(run.first, run.end));
    trimmed_blocks += blocks;
    return {};
  };
  FreeMap::FreeRun run;  // it may go on on the map's next page
  for (std::uint64_t from = blocks_up(range.start_bytes); from < end;) {
    TARNFS_ASSIGN(const FreeMap::FreeRun next, free_map_->next_free_run(from, end));
    if (next.first == run.end && !run.empty()) {
      run.end = next.end;
    } else {
      TARNFS_TRY(finish(run));
      run = next;
    }
    from = next.end;
    if (from >= end_of_data_blocks(size_blocks_.load())) break;
  }
  TARNFS_TRY(finish(run));
  return trimmed_blocks * kBlockSize;
}

// Returns how many blocks were discarded. Parts of the run may be in use by now.
Result<std::uint64_t> Engine::trim_run(std::uint64_t first, std::uint64_t end) {
  std::uint64_t blocks = 0;
  for (std::uint64_t from = first; from < end;) {
    TARNFS_ASSIGN(const FreeMap::FreeRun chunk, trim_chunk(from, end));
    blocks += chunk.count();
    from = chunk.end;
  }
  return blocks;
}

// Discards the first free blocks in [from, end); where it ends the next chunk may begin.
Result<FreeMap::FreeRun> Engine::trim_chunk(std::uint64_t from, std::uint64_t end) {
  const RunningFsync running(*this);  // shut_down() waits for what changes the device
  if (stopped_) return stopped_error(ErrorCode::kReadOnly);
  const SpaceLoan::Use loan(trim_loan_);
  const std::uint64_t count_max =
      std::clamp<std::uint64_t>(ledger_->available_to_users_blocks() / kChunkShare, 1, kChunkBlocksMax);
  if (!ledger_->promise(count_max, SpaceClaim::kOrdinary)) return FreeMap::FreeRun{end, end};
  auto chunk = free_map_->reserve_run(from, end, count_max);
  Status discarded;
  if (chunk.ok() && !chunk->empty()) {
    discarded = device_.discard(Address{chunk->first}, chunk->count());
    free_map_->unreserve_run(*chunk);
  }
  ledger_->give_back(static_cast<std::int64_t>(count_max));
  if (!discarded.ok()) return discarded.error();
  return chunk;
}

}  // namespace tarnfs
