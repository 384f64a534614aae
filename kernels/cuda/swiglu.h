// SwiGlu on a GPU: y = silu(gate) * up, row by row, of gate and up as one linear layer leaves them.
// Not: the CPU operator (kernels/swiglu.h), whose definition this is, nor the layer. All pointers
// are device memory of the caller, alive until the stream has done the work.
#ifndef CSRM_KERNELS_CUDA_SWIGLU_H_
#define CSRM_KERNELS_CUDA_SWIGLU_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "csrm/status.h"
#include "kernels/cuda/dtype.h"

namespace csrm::kernels::cuda {

constexpr int64_t kMaxSwiGluColumns = 1 << 30;

// M = n_rows, N = n_columns. Dense row-major arrays. Computed in fp32.
struct SwiGluParams {
  const void* x;  // [M, 2 * N] of dtype: gate, then up
  void* y;        // [M, N] of dtype, out: gate / (1 + exp(-gate)) * up; no overlap with x
  int64_t n_rows, n_columns;  // N in 1 to kMaxSwiGluColumns
  DType dtype;
};

// Enqueues the work on `stream` of the current device and returns; allocates nothing, may be
// captured in a graph. An element's result depends on its gate and up alone, to the bit; what dtype
// cannot hold is infinite. Thread-safe. Errors: BadArgument (nothing enqueued), EngineFailed
// (CUDA's error).
Status swiglu(const SwiGluParams& params, cudaStream_t stream);

}  // namespace csrm::kernels::cuda

#endif  // CSRM_KERNELS_CUDA_SWIGLU_H_
