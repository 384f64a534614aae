// AddNorm on a GPU: the LayerNorm or RMSNorm of x + residual, row by row, and the sum, in one
// launch. Not: the CPU operator (kernels/add_norm.h), whose definition this is. All pointers are
// device memory of the caller, alive until the stream has done the work.
#ifndef CSRM_KERNELS_CUDA_ADD_NORM_H_
#define CSRM_KERNELS_CUDA_ADD_NORM_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "csrm/status.h"
#include "kernels/cuda/dtype.h"

namespace csrm::kernels::cuda {

// A row lives in the registers of one block.
constexpr int64_t kMaxNormColumns = 16384;

// M = n_rows, N = n_columns. Dense row-major arrays. The sum and the norm are in fp32. A decoder's
// residual stream outgrows fp16: it may be fp32 (has_wide_residual) beside x and y of 16 bits.
struct AddNormParams {
  const void* x;         // [M, N] of dtype
  const void* residual;  // [M, N] of dtype, or fp32 if has_wide_residual; null: nothing is added
  const float* weight;   // [N]
  const float* bias;     // [N]; null of RMSNorm, and of it alone
  void* y;  // [M, N] of dtype, out; may be x, or residual if it is of dtype; no other overlap
  int64_t n_rows;
  int64_t n_columns;  // in [1, kMaxNormColumns]
  float epsilon;      // added to the variance (biased) or mean square; finite, >= 0
  DType dtype;
  bool has_wide_residual = false;  // residual and sum are fp32 whatever dtype is
  bool is_rms = false;             // z / sqrt(mean(z^2) + epsilon) * weight of z = x + residual
  void* sum = nullptr;  // [M, N] of residual's type, out: x + residual, if not null; may be
                        // residual, or x if it has residual's type; not y
};

// Enqueues the work on `stream` of the current device and returns; allocates nothing, may be
// captured in a graph. A row's result depends on that row alone, to the bit, whatever its address;
// a row with an infinite element has a NaN. Thread-safe. Errors: BadArgument (nothing enqueued),
// EngineFailed (CUDA's error).
Status add_norm(const AddNormParams& params, cudaStream_t stream);

}  // namespace csrm::kernels::cuda

#endif  // CSRM_KERNELS_CUDA_ADD_NORM_H_
