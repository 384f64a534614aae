// KeysValues on a GPU: what a cache keeps of every layer's keys and values, in one launch: columns
// of each layer's projections [B, T, width] -> key and value [B, L, kv_heads, T, D] in fp32.
// Not: any arithmetic; on a CPU the engine's operators do it. The arrays are device memory of the
// caller, alive until the stream has done the work.
#ifndef CSRM_KERNELS_CUDA_KEYS_VALUES_H_
#define CSRM_KERNELS_CUDA_KEYS_VALUES_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "csrm/status.h"
#include "kernels/cuda/dtype.h"

namespace csrm::kernels::cuda {

// The addresses of a call's layers are an argument of the kernel.
constexpr int64_t kMaxKeyValueLayers = 256;

// B = n_batch, L = n_layers, T = n_tokens, D = head_dim. Dense row-major arrays.
struct KeysValuesParams {
  const void* const* states;  // L pointers, in host memory, read before the call returns; each to
                              // [B, T, width] of dtype, n_kv_heads * D columns from each offset on
  float* key;                 // [B, L, n_kv_heads, T, D] out
  float* value;               // [B, L, n_kv_heads, T, D] out
  int64_t n_layers;           // in 1 to kMaxKeyValueLayers
  int64_t n_batch, n_tokens, width;
  int64_t n_kv_heads, head_dim;
  int64_t key_offset, value_offset;
  DType dtype;
};

// Enqueues the work on `stream` of the current device and returns; allocates nothing, may be
// captured in a graph. Numbers are widened, never changed. Thread-safe. Errors: BadArgument
// (nothing enqueued), EngineFailed (CUDA's error).
Status keys_values(const KeysValuesParams& params, cudaStream_t stream);

}  // namespace csrm::kernels::cuda

#endif  // CSRM_KERNELS_CUDA_KEYS_VALUES_H_
