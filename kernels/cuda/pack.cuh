// Four neighbouring elements of a row as one load or store, for the kernels that are bound by
// memory. Not: a kernel. Whether packs are moved whole or element by element (odd sizes, odd
// addresses) changes no bit.
#ifndef CSRM_KERNELS_CUDA_PACK_CUH_
#define CSRM_KERNELS_CUDA_PACK_CUH_

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/launch.h"

namespace csrm::kernels::cuda {

constexpr int kPack = 4;

template <typename T>
struct alignas(sizeof(T) * kPack) Pack {
  T element[kPack];
};

// Whether packs of T at `pointer` may be moved whole. True of null.
template <typename T>
bool takes_packs(const void* pointer) {
  return is_aligned(pointer, sizeof(T) * kPack);
}

// Elements first .. first + 3 of a row of n as fp32; zeros past its end.
template <typename T, bool kWholePacks>
__device__ inline void load_pack(const T* row, int first, int n, float (&out)[kPack]) {
  if (kWholePacks && first < n) {
    const Pack<T> pack = *reinterpret_cast<const Pack<T>*>(row + first);
#pragma unroll
    for (int j = 0; j < kPack; ++j) out[j] = to_float(pack.element[j]);
    return;
  }
#pragma unroll
  for (int j = 0; j < kPack; ++j) out[j] = first + j < n ? to_float(row[first + j]) : 0.0f;
}

template <typename T, bool kWholePacks>
__device__ inline void store_pack(const float (&in)[kPack], T* row, int first, int n) {
  if (kWholePacks && first < n) {
    Pack<T> pack;
#pragma unroll
    for (int j = 0; j < kPack; ++j) pack.element[j] = from_float<T>(in[j]);
    *reinterpret_cast<Pack<T>*>(row + first) = pack;
    return;
  }
#pragma unroll
  for (int j = 0; j < kPack; ++j) {
    if (first + j < n) row[first + j] = from_float<T>(in[j]);
  }
}

}  // namespace csrm::kernels::cuda

#endif  // CSRM_KERNELS_CUDA_PACK_CUH_
