#include "mirror/receiver/mirror_source.h"

#include <string>

namespace tarnfs {
namespace {

// Tells what the visitor says from what reading says.
template <class Block>
class Visit {
 public:
  explicit Visit(const std::function<Status(const Block&)>& visit) : visit_(visit) {}
  Status operator()(const Block& block) {
    Status status = visit_(block);
    ended_ = !status.ok();
    return status;
  }
  bool ended() const { return ended_; }

 private:
  const std::function<Status(const Block&)>& visit_;
  bool ended_ = false;
};

}  // namespace

PinnedRoot MirrorSource::pin_newest_root() {
  return kept_.pin([this] { return view_.newest_root(); });
}

PinId MirrorSource::pin_root(Cp) {
  return kept_.pin_nothing();
}

void MirrorSource::move_pin(PinId, Cp) {}

Status MirrorSource::walk_changed(const RootBlock& root, Cp since,
                                  const std::function<Status(const BlockWrite&)>& visit) {
  Visit<BlockWrite> visitor(visit);
  const Status status = view_.walk_changed(root, since, std::ref(visitor));
  return status.ok() || visitor.ended() ? status : reading_failed(root, status.error());
}

Status MirrorSource::list_changed(const RootBlock& root, Cp since,
                                  const std::function<Status(const BlockPointer&)>& visit) {
  Visit<BlockPointer> visitor(visit);
  const Status status = view_.list_changed(root, since, std::ref(visitor));
  return status.ok() || visitor.ended() ? status : reading_failed(root, status.error());
}

Result<BlockWrite> MirrorSource::read_listed(const RootBlock& root, const BlockPointer& block) {
  auto read = view_.read_listed(root, block);
  if (!read.ok()) return reading_failed(root, read.error());
  return read;
}

// A block that is damaged because it was written over, after its pin was lost, is no damage.
Error MirrorSource::reading_failed(const RootBlock& root, const Error& error) const {
  if (error.code() != ErrorCode::kCorrupt || kept_.is_pinned(Cp{root.cp})) return error;
  return Error(ErrorCode::kCanceled,
               "the blocks of cp " + std::to_string(root.cp) + " were given up while they were read; begin again");
}

}  // namespace tarnfs
