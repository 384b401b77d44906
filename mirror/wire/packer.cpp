#include "mirror/wire/packer.h"

#include <lz4.h>

#include <cstring>

#include "mirror/wire/messages.h"

namespace tarnfs::wire {
namespace {

constexpr std::size_t kBatchBytesMax = kBatchBlocksMax * kBlockSize;
// ZeroMQ lets go of a batch when the kernel has taken it, so that few are in use at a time.
constexpr std::size_t kBuffersKept = 4;

}  // namespace

Packer::Packer() : buffers_(kBatchBytesMax, kBuffersKept) {}

// LZ4 of `raw`, or nothing when it saves less than an eighth: the limit of the output makes LZ4 give up early.
Frame Packer::compress(const Frame& raw) {
  const std::shared_ptr<std::byte[]> packed = buffers_.take();
  const std::size_t size_max = raw.bytes.size() - raw.bytes.size() / 8;
  const int size =
      LZ4_compress_default(reinterpret_cast<const char*>(raw.bytes.data()), reinterpret_cast<char*>(packed.get()),
                           static_cast<int>(raw.bytes.size()), static_cast<int>(size_max));
  return {packed, std::span<const std::byte>(packed.get(), static_cast<std::size_t>(std::max(size, 0)))};
}

Message Packer::pack(Cp cp, std::uint64_t sequence, std::span<const BlockWrite> blocks) {
  TARNFS_ASSERT(!blocks.empty() && blocks.size() <= kBatchBlocksMax);
  Blocks header;
  header.cp = cp;
  header.sequence = sequence;
  header.raw_bytes = static_cast<std::uint32_t>(blocks.size() * kBlockSize);
  // One frame, because a frame a page costs more in the socket than this copy does.
  const std::shared_ptr<std::byte[]> copy = buffers_.take();
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    std::memcpy(copy.get() + i * kBlockSize, blocks[i].page.data(), kBlockSize);
    header.entries.push_back({blocks[i].address, blocks[i].checksum});
  }
  Frame payload{copy, std::span<const std::byte>(copy.get(), header.raw_bytes)};
  if (trials_.is_due()) {
    Frame packed = compress(payload);
    header.compressed = !packed.bytes.empty();
    trials_.note(header.compressed);
    if (header.compressed) payload = std::move(packed);
  }
  Message message;
  message.header = encode(header);
  message.payload.push_back(std::move(payload));
  return message;
}

}  // namespace tarnfs::wire
