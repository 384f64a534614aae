// RewardHead: the pooled tokens of a batch -> reward and compliance, in one pass and no scratch.
// Not: an ONNX operator (ort_reward_head.cc wraps this one) and not the encoder before it.
// Pointers come from the caller's tensors; results are written to the caller's memory. Thread-safe.
#ifndef CSRM_KERNELS_REWARD_HEAD_H_
#define CSRM_KERNELS_REWARD_HEAD_H_

#include <cstdint>

#include "csrm/status.h"
#include "isa.h"

namespace csrm::kernels {

// The most verbalizer rows a head may have: their logits live on the stack.
constexpr int64_t kMaxVerbalizers = 64;

// B = n_batch, T = n_tokens, J = n_pooled, H = n_hidden, V = n_verbalizers. All arrays are dense,
// row-major, owned by the caller and only read, save the two outputs; no alignment is needed.
struct RewardHeadParams {
  const float* hidden;       // [B, T, H]
  const int64_t* pooled_at;  // [B, J] token to read, < T; any negative number = none
  const float* norm_weight;  // [H]
  const float* norm_bias;    // [H]; null of RMSNorm, and of it alone
  const float* rows;         // [V, H] the first n_safe are the safe verbalizers
  const float* row_bias;     // [V]; null: none is added
  const float* calibration;  // [2] a, b
  float* reward;             // [B, J] out; NaN where pooled_at is negative
  float* compliance;         // [B, J] out; sigmoid(a * reward + b), NaN where reward is
  int64_t n_batch, n_tokens, n_pooled, n_hidden, n_verbalizers;
  int64_t n_safe;  // in [1, V - 1]
  float epsilon;   // added to the variance or mean square; finite, >= 0
  bool is_rms;     // the norm is x / sqrt(mean(x^2) + epsilon) * norm_weight
};

// Writes reward and compliance. Reads no row of `hidden` that pooled_at does not name. One version
// gives equal bits for equal rows wherever they stand in a batch.
// Errors: BadArgument (an argument outside the ranges above; outputs untouched), Unsupported (isa).
Status reward_head(const RewardHeadParams& params, Isa isa = Isa::kBest);

// The same without checks: the arguments must have passed those of reward_head().
void reward_head_cpu(const RewardHeadParams& params, Isa isa) noexcept;

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_REWARD_HEAD_H_
