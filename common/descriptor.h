// An open file, socket or event of this process, closed when its owner goes.
//
// Thread safety: as an int. Ownership: owns the descriptor; moving leaves none.
#pragma once

#include <unistd.h>

#include <utility>

namespace tarnfs {

class Descriptor {
 public:
  Descriptor() = default;
  // Takes what open(2) and its like returned, -1 too.
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }

  int number() const { return number_; }
  explicit operator bool() const { return number_ >= 0; }
  // Whoever takes it closes it.
  int release() { return std::exchange(number_, -1); }

 private:
  int number_ = -1;
};

}  // namespace tarnfs
