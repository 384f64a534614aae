// What the CUDA kernels share on the device: elements to fp32 and back, sums over warps and blocks.
// Not: a kernel. All sums are in a fixed order, so a result never depends on scheduling.
#ifndef CSRM_KERNELS_CUDA_ELEMENT_CUH_
#define CSRM_KERNELS_CUDA_ELEMENT_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace csrm::kernels::cuda {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWarpSize = 32;

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__half x) { return __half2float(x); }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

// The nearest T, ties to even; an fp16 above 65504 is infinite.
template <typename T>
__device__ inline T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline __half from_float<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// Every lane gets the same bits: addition commutes, and the tree is symmetric.
__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int step = kWarpSize / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

__device__ inline float warp_max(float x) {
#pragma unroll
  for (int step = kWarpSize / 2; step > 0; step /= 2) {
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  }
  return x;
}

// x[j] = its sum over the block's kWarps warps, for every thread. `partial` is shared memory; it
// may be used again at once.
template <int kWarps, int N>
__device__ inline void block_sums(float (&x)[N], float (*partial)[N]) {
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
#pragma unroll
  for (int j = 0; j < N; ++j) x[j] = warp_sum(x[j]);
  __syncthreads();  // whoever read `partial` before is done
  if (lane == 0) {
#pragma unroll
    for (int j = 0; j < N; ++j) partial[warp][j] = x[j];
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < N; ++j) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += partial[w][j];
    x[j] = sum;
  }
}

}  // namespace csrm::kernels::cuda

#endif  // CSRM_KERNELS_CUDA_ELEMENT_CUH_
