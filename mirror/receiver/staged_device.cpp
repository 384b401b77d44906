#include "mirror/receiver/staged_device.h"

namespace tarnfs {

std::shared_ptr<const StagedDevice::View> StagedDevice::view() const {
  MutexLock lock(mutex_);
  return view_;
}

void StagedDevice::replace(std::shared_ptr<const View> next) {
  MutexLock lock(mutex_);
  view_.swap(next);
}

void StagedDevice::set_image(std::shared_ptr<BlockDevice> image) {
  auto next = std::make_shared<View>();
  next->image = std::move(image);
  replace(std::move(next));
}

void StagedDevice::show(StagedBlocks blocks, std::shared_ptr<BlockDevice> staging) {
  auto next = std::make_shared<View>();
  next->image = view()->image;
  next->staging = std::move(staging);
  next->blocks = std::move(blocks);
  replace(std::move(next));
}

void StagedDevice::hide() {
  set_image(view()->image);
}

std::uint64_t StagedDevice::size_blocks() const {
  const auto current = view();
  return current->image ? current->image->size_blocks() : 0;
}

Status StagedDevice::read(Address first, std::span<std::byte> out) {
  // A view that is the same before and after cannot have been replaced in between: it is kept, so that its place in
  // memory is not used again.
  auto before = view();
  for (;;) {
    Status status = read_through(*before, first, out);
    auto after = view();
    if (before == after) return status;
    before = std::move(after);
  }
}

Status StagedDevice::read_through(const View& view, Address first, std::span<std::byte> out) const {
  if (!view.image) return Error(ErrorCode::kIo, name_ + " does not exist yet: no primary has connected");
  TARNFS_TRY(view.image->read(first, out));
  if (!view.staging) return {};
  for (std::size_t done = 0; done < out.size(); done += kBlockSize) {
    const auto found = view.blocks.find(Address{first.value + done / kBlockSize});
    if (found == view.blocks.end()) continue;
    TARNFS_TRY(view.staging->read(found->second, out.subspan(done, kBlockSize)));
  }
  return {};
}

// The numbers mean the same whatever is staged: who counts them up while that changes misses nothing.
Status StagedDevice::read_other_copy(Address address, std::size_t number, std::span<std::byte, kBlockSize> out) {
  if (number > 0) return kept_.read(address, number - 1, out);
  const auto current = view();
  if (!current->image) return Error(ErrorCode::kNotFound);
  return current->image->read(address, out);
}

Status StagedDevice::write(Address, std::span<const PageRef>) {
  return Error(ErrorCode::kReadOnly, name_ + " is a mirror; only its primary changes it");
}

Status StagedDevice::flush() {
  return Error(ErrorCode::kReadOnly, name_ + " is a mirror; only its primary changes it");
}

}  // namespace tarnfs
