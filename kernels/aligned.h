// Memory that begins at a cache line, for what kernels pack or compute in. Not: tensors, which are
// the engine's.
#ifndef CSRM_KERNELS_ALIGNED_H_
#define CSRM_KERNELS_ALIGNED_H_

#include <cstddef>
#include <cstdlib>
#include <memory>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace csrm::kernels {

struct FreeMemory {
  void operator()(void* memory) const noexcept { std::free(memory); }
};

template <typename T>
using Aligned = std::unique_ptr<T[], FreeMemory>;

// `n` values, not initialised, in whole cache lines; null if memory is out.
template <typename T>
Aligned<T> aligned(size_t n) noexcept {
  constexpr size_t kLineBytes = 64;
  const size_t n_lines = (n * sizeof(T) + kLineBytes - 1) / kLineBytes;
  return Aligned<T>(static_cast<T*>(std::aligned_alloc(kLineBytes, n_lines * kLineBytes)));
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
