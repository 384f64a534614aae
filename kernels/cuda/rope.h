// Rope on a GPU: the first heads of every row turned by the row's position, after an RMSNorm of
// each head if asked; the columns behind them as they are. In one launch.
// Not: the CPU operator (kernels/rope.h), whose definition this is. All pointers are device memory
// of the caller, alive until the stream has done the work.
#ifndef CSRM_KERNELS_CUDA_ROPE_H_
#define CSRM_KERNELS_CUDA_ROPE_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "csrm/status.h"
#include "kernels/cuda/dtype.h"

namespace csrm::kernels::cuda {

// What the block of a row keeps in shared memory: cosines and sines, and a number for each head.
constexpr int64_t kMaxRopeDim = 1024;
constexpr int64_t kMaxRopeHeads = 1024;
constexpr int64_t kMaxRopeColumns = 1 << 30;

// M = n_rows, N = n_columns, H = n_heads, D = head_dim. Dense row-major arrays. Angles, turns and
// norms are in fp32.
struct RopeParams {
  const void* x;              // [M, N] of dtype, the heads being its first H * D columns
  const int64_t* positions;   // [M]
  const float* frequencies;   // [D / 2] radians per position
  const float* weight;        // [H * D] of the RMSNorm over each head's D columns; null: no norm
  void* y;                    // [M, N] of dtype, out; may be x
  int64_t n_rows, n_columns;  // H * D <= N <= kMaxRopeColumns
  int64_t n_heads, head_dim;  // H in 1 to kMaxRopeHeads; D even, 2 to kMaxRopeDim
  float epsilon;              // of the norm, added to the mean square; finite, >= 0
  DType dtype;
};

// Enqueues the work on `stream` of the current device and returns; allocates nothing, may be
// captured in a graph. A row's result depends on that row and its position alone, to the bit,
// whatever its address. What dtype cannot hold of a turned head is NaN and never infinite: an
// infinite key would hide its token from attention without an error.
// Thread-safe. Errors: BadArgument (nothing enqueued), EngineFailed (CUDA's error).
Status rope(const RopeParams& params, cudaStream_t stream);

}  // namespace csrm::kernels::cuda

#endif  // CSRM_KERNELS_CUDA_ROPE_H_
