// Memory of packed weights: one block for all layers of a model, in the order in which they are
// read and in large pages where the system has them. A score reads all of it once, so with pages of
// 4 kB each takes a look-up of its address in tables that other processes have pushed out of the
// caches meanwhile. Not: what is in it (linear_i8.cc).
#ifndef CSRM_KERNELS_WEIGHT_MEMORY_H_
#define CSRM_KERNELS_WEIGHT_MEMORY_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "aligned.h"

namespace csrm::kernels {

// Not thread-safe. What is taken lives on without it.
class WeightMemory {
 public:
  // Throws std::bad_alloc.
  explicit WeightMemory(size_t n_bytes)
      : block_(aligned_pages<char>(std::max<size_t>(n_bytes, 1))), left_(n_bytes) {
    if (block_ == nullptr) throw std::bad_alloc();
    next_ = block_.get();
  }

  // n zeros that begin at a cache line, line_bytes<T>(n) of the block. Throws std::bad_alloc if
  // that is used up.
  template <typename T>
  std::shared_ptr<T> take(int64_t n) {
    const size_t bytes = line_bytes<T>(static_cast<size_t>(n));
    if (bytes > left_) throw std::bad_alloc();
    T* values = reinterpret_cast<T*>(next_);
    std::fill_n(values, n, T{0});
    next_ += bytes;
    left_ -= bytes;
    return std::shared_ptr<T>(block_, values);
  }

 private:
  std::shared_ptr<char[]> block_;
  char* next_ = nullptr;
  size_t left_;
};

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_WEIGHT_MEMORY_H_
