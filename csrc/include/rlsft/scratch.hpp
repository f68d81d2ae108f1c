// Memory that starts on a 64-byte line: an unaligned 512-bit load costs twice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace rlsft {

// Grows, never shrinks, keeps nothing when it grows. Values are uninitialised.
template <typename T>
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { release(); }

  T* reserve(std::int64_t count) {
    if (count > capacity_) {
      release();
      data_ = static_cast<T*>(::operator new(static_cast<std::size_t>(count) * sizeof(T), kLine));
      capacity_ = count;
    }
    return data_;
  }
  T* data() const { return data_; }

 private:
  static constexpr std::align_val_t kLine{64};
  void release() {
    if (data_ != nullptr) ::operator delete(data_, kLine);
    data_ = nullptr;
    capacity_ = 0;
  }

  T* data_ = nullptr;
  std::int64_t capacity_ = 0;
};

}  // namespace rlsft
