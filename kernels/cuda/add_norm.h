// AddNorm on a GPU: y = LayerNorm(x + residual) * weight + bias, row by row, in one launch.
// Not: the CPU operator (kernels/add_norm.h), whose definition this is. All pointers are device
// memory of the caller, alive until the stream has done the work.
#ifndef CSRM_KERNELS_CUDA_ADD_NORM_H_
#define CSRM_KERNELS_CUDA_ADD_NORM_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "csrm/status.h"
#include "kernels/cuda/dtype.h"

namespace csrm::kernels::cuda {

// A row lives in the registers of one block.
constexpr int64_t kMaxNormColumns = 16384;

// M = n_rows, N = n_columns. Dense row-major arrays. The sum and the norm are in fp32.
struct AddNormParams {
  const void* x;         // [M, N] of dtype
  const void* residual;  // [M, N] of dtype
  const float* weight;   // [N]
  const float* bias;     // [N]
  void* y;  // [M, N] of dtype, out; may be x or residual, and may not overlap otherwise
  int64_t n_rows;
  int64_t n_columns;  // in [1, kMaxNormColumns]
  float epsilon;      // added to the variance (biased); finite, >= 0
  DType dtype;
};

// Enqueues the work on `stream` of the current device and returns; allocates nothing, may be
// captured in a graph. A row's result depends on that row alone, to the bit, whatever its address.
// Thread-safe. Errors: BadArgument (nothing enqueued), EngineFailed (CUDA's error).
Status add_norm(const AddNormParams& params, cudaStream_t stream);

}  // namespace csrm::kernels::cuda

#endif  // CSRM_KERNELS_CUDA_ADD_NORM_H_
