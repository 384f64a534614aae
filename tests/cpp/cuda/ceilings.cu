// Loops of nothing but mma.sync (fp16, fp32 sums) and of nothing but ex2 (ceilings.h).
#include "ceilings.h"
#include "kernels/cuda/tensor_core.cuh"

namespace csrm_test {
namespace {

using namespace csrm::kernels::cuda;

constexpr int kBlocksPerProcessor = 4, kThreads = 256;
constexpr int kChains = 8, kSteps = 2000;
constexpr int64_t kStepFlops = 2 * 16 * 8 * 16;  // of one mma

__global__ void multiply_add_kernel(float* sink) {
  float sums[kChains][4] = {};
  const uint32_t a[4] = {threadIdx.x, 1, 2, 3};
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int i = 0; i < kChains; ++i) multiply_add<__half>(sums[i], a, threadIdx.x, 5);
  }
  float sum = 0;
  for (int i = 0; i < kChains; ++i) sum += sums[i][0] + sums[i][1] + sums[i][2] + sums[i][3];
  if (sum == 1234567.0f) *sink = sum;
}

__global__ void power_kernel(float* sink) {
  float x[kChains];
  for (int i = 0; i < kChains; ++i) x[i] = -0.001f * (threadIdx.x + i);
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int i = 0; i < kChains; ++i) x[i] = power_of_two(x[i]);
  }
  float sum = 0;
  for (int i = 0; i < kChains; ++i) sum += x[i];
  if (sum == 1234567.0f) *sink = sum;
}

}  // namespace

int64_t launch_multiply_adds(int n_processors, float* sink, cudaStream_t stream) {
  const int blocks = n_processors * kBlocksPerProcessor;
  multiply_add_kernel<<<blocks, kThreads, 0, stream>>>(sink);
  return int64_t{blocks} * (kThreads / 32) * kSteps * kChains * kStepFlops;
}

int64_t launch_powers(int n_processors, float* sink, cudaStream_t stream) {
  const int blocks = n_processors * kBlocksPerProcessor;
  power_kernel<<<blocks, kThreads, 0, stream>>>(sink);
  return int64_t{blocks} * kThreads * kSteps * kChains;
}

}  // namespace csrm_test
