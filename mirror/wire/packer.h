// Puts the blocks of a connection into Blocks messages, one after the other.
//
// Purpose: a batch is copied once, into memory that is used again, and compressed with LZ4 where that pays. Whether it
// does is measured on the batches themselves: after each one in a row that LZ4 saved less than an eighth of, it is
// tried half as often, at least with each sixteenth batch.
//
// Thread safety: one thread; the messages may be let go of by any.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "common/buffer_pool.h"
#include "common/channel.h"
#include "common/replication.h"

namespace tarnfs::wire {

// Which batches LZ4 is tried on.
class CompressionTrials {
 public:
  // Asked once for each batch.
  bool is_due() {
    if (left_out_ == 0) return true;
    --left_out_;
    return false;
  }
  void note(bool pays) {
    pause_ = pays ? 0 : std::min(2 * pause_ + 1, kPauseMax);
    left_out_ = pause_;
  }

 private:
  static constexpr unsigned kPauseMax = 15;
  unsigned pause_ = 0;     // batches between two trials
  unsigned left_out_ = 0;  // how many of them are still to come
};

class Packer {
 public:
  Packer();
  // A Blocks message of 1 to kBatchBlocksMax blocks.
  Message pack(Cp cp, std::uint64_t sequence, std::span<const BlockWrite> blocks);

 private:
  Frame compress(const Frame& raw);

  BufferPool buffers_;
  CompressionTrials trials_;
};

}  // namespace tarnfs::wire
