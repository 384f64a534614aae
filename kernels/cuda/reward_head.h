// RewardHead on a GPU: the pooled tokens of a batch -> reward and compliance, in one launch.
// Not: the CPU operator (kernels/reward_head.h), whose definition and order of arguments these are.
// All pointers are device memory of the caller, alive until the stream has done the work.
#ifndef CSRM_KERNELS_CUDA_REWARD_HEAD_H_
#define CSRM_KERNELS_CUDA_REWARD_HEAD_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "csrm/status.h"
#include "kernels/cuda/dtype.h"

namespace csrm::kernels::cuda {

// The most verbalizer rows a head may have, as on the CPU.
constexpr int64_t kMaxVerbalizers = 64;

// B = n_batch, T = n_tokens, J = n_pooled, H = n_hidden, V = n_verbalizers. All arrays are dense
// and row-major. Only the states are of `dtype`: the head's parameters are few and stay fp32.
struct RewardHeadParams {
  const void* hidden;        // [B, T, H] of dtype
  const int64_t* pooled_at;  // [B, J] token to read; any number outside [0, T) = none
  const float* norm_weight;  // [H]
  const float* norm_bias;    // [H]; null of RMSNorm, and of it alone
  const float* rows;         // [V, H] the first n_safe are the safe verbalizers
  const float* row_bias;     // [V]; null: none is added
  const float* calibration;  // [2] a, b
  float* reward;             // [B, J] out; NaN where pooled_at names no token
  float* compliance;         // [B, J] out; sigmoid(a * reward + b), NaN where reward is
  int64_t n_batch, n_tokens, n_pooled, n_hidden, n_verbalizers;
  int64_t n_safe;  // in [1, V - 1]
  float epsilon;   // added to the variance or mean square; finite, >= 0
  DType dtype;
  bool is_rms = false;  // the norm is x / sqrt(mean(x^2) + epsilon) * norm_weight
};

// Enqueues the work on `stream` of the current device and returns; allocates nothing, may be
// captured in a graph. Equal rows give equal bits wherever they stand in a batch. Unlike the CPU
// operator it cannot see that an index is too large, and gives NaN (the engine's NonFinite) for it.
// Thread-safe. Errors: BadArgument (nothing enqueued), EngineFailed (CUDA's error).
Status reward_head(const RewardHeadParams& params, cudaStream_t stream);

}  // namespace csrm::kernels::cuda

#endif  // CSRM_KERNELS_CUDA_REWARD_HEAD_H_
