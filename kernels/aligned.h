// Memory that begins at a cache line, for what kernels pack or compute in. Not: tensors, which are
// the engine's.
#ifndef CSRM_KERNELS_ALIGNED_H_
#define CSRM_KERNELS_ALIGNED_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace csrm::kernels {

struct FreeMemory {
  void operator()(void* memory) const noexcept { std::free(memory); }
};

constexpr size_t kLineBytes = 64;

// Bytes of the cache lines that n values of T fill or begin.
template <typename T>
constexpr size_t line_bytes(size_t n) noexcept {
  return (n * sizeof(T) + kLineBytes - 1) / kLineBytes * kLineBytes;
}

template <typename T>
using Aligned = std::unique_ptr<T[], FreeMemory>;

// `n` values, not initialised, in whole cache lines; null if memory is out.
template <typename T>
Aligned<T> aligned(size_t n) noexcept {
  return Aligned<T>(static_cast<T*>(std::aligned_alloc(kLineBytes, line_bytes<T>(n))));
}

// As aligned(); what of it fills pages of 2 MB lies in such, if the system has them.
template <typename T>
Aligned<T> aligned_pages(size_t n) noexcept {
#if defined(__linux__)
  constexpr size_t kPageBytes = size_t{2} << 20;
  const size_t n_bytes = (n * sizeof(T) + kPageBytes - 1) / kPageBytes * kPageBytes;
  const size_t n_whole = n * sizeof(T) / kPageBytes * kPageBytes;
  if (n_whole == 0) return aligned<T>(n);
  Aligned<T> memory(static_cast<T*>(std::aligned_alloc(kPageBytes, n_bytes)));
  // Refused, it is memory like any other.
  if (memory != nullptr) static_cast<void>(madvise(memory.get(), n_whole, MADV_HUGEPAGE));
  return memory;
#else
  return aligned<T>(n);
#endif
}

// The arrays that one block of memory is made of, each from a cache line on. Of null they are only
// measured.
class Parts {
 public:
  explicit Parts(void* memory) noexcept : memory_(static_cast<char*>(memory)) {}

  // The next n values, n >= 0.
  template <typename T>
  T* take(int64_t n) noexcept {
    char* part = memory_ == nullptr ? nullptr : memory_ + size_;
    size_ += line_bytes<T>(static_cast<size_t>(n));
    return reinterpret_cast<T*>(part);
  }
  // Bytes of all so far; at least a line, so that there is memory of that size.
  size_t size() const noexcept { return size_ > 0 ? size_ : kLineBytes; }

 private:
  char* memory_;
  size_t size_ = 0;
};

// The calling thread's scratch, at least `n_bytes` bytes until its next call; null if memory is
// out.
inline void* thread_scratch(size_t n_bytes) noexcept {
  thread_local Aligned<char> memory;
  thread_local size_t size = 0;
  if (n_bytes > size) {
    size = 0;
    memory = aligned<char>(n_bytes);
    if (memory != nullptr) size = n_bytes;
  }
  return memory.get();
}

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_ALIGNED_H_
