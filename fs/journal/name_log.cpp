#include "fs/journal/name_log.h"

namespace tarnfs {

// Parts are bounded, so that a long list does not have to be copied when it grows.
NameLog::Part& NameLog::part_for(Cp cp) {
  constexpr std::size_t kPartBytes = 256U << 10;
  if (parts_.empty() || parts_.back().cp != cp || parts_.back().records.size() >= kPartBytes) {
    parts_.push_back(Part{cp, {}, 0, {}});
  }
  return parts_.back();
}

void NameLog::append(std::span<const JournalRecord> records, InodeNumber replacing) {
  MutexLock lock(mutex_);
  Part& part = part_for(records.front().cp);
  const std::size_t before = part.records.size();
#ifdef TARNFS_PLANT_JOURNAL_ORDER  // a bug for the crash simulator to find, in a build of its test only
  std::vector<std::byte> first;
  for (const JournalRecord& record : records) encode(record, first);
  part.records.insert(part.records.begin(), first.begin(), first.end());
#else
  for (const JournalRecord& record : records) encode(record, part.records);
#endif
  part.count += static_cast<std::uint32_t>(records.size());
  if (replacing != InodeNumber{}) part.replacing.push_back(replacing);
  pending_bytes_.fetch_add(part.records.size() - before, std::memory_order_relaxed);
}

NameLog::Taken NameLog::take() {
  std::deque<Part> parts;
  {
    MutexLock lock(mutex_);
    parts.swap(parts_);
    pending_bytes_.store(0, std::memory_order_relaxed);
  }
  Taken taken;
  for (Part& part : parts) {
    taken.records.insert(taken.records.end(), part.records.begin(), part.records.end());
    taken.count += part.count;
    taken.replacing.insert(taken.replacing.end(), part.replacing.begin(), part.replacing.end());
  }
  return taken;
}

void NameLog::drop_up_to(Cp published) {
  MutexLock lock(mutex_);
  while (!parts_.empty() && parts_.front().cp <= published) {
    pending_bytes_.fetch_sub(parts_.front().records.size(), std::memory_order_relaxed);
    parts_.pop_front();
  }
}

}  // namespace tarnfs
