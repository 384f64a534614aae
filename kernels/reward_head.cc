// Argument checks of RewardHead, then the CPU version. Not: arithmetic (reward_head_cpu.cc).
// Arguments come from ort_reward_head.cc or a C++ caller. Messages name numbers, never data.
#include "reward_head.h"

#include <cmath>
#include <string>

namespace csrm::kernels {
namespace {

Status bad_argument(const std::string& message) {
  return {Code::kBadArgument, "RewardHead: " + message};
}

Status check_sizes(const RewardHeadParams& p) {
  if (p.n_batch < 0 || p.n_tokens < 0 || p.n_pooled < 0) {
    return bad_argument("a batch, token or pooled count is negative; give sizes >= 0");
  }
  if (p.n_hidden < 1) {
    return bad_argument("hidden size is " + std::to_string(p.n_hidden) + "; it must be >= 1");
  }
  if (p.n_verbalizers < 2 || p.n_verbalizers > kMaxVerbalizers) {
    return bad_argument(std::to_string(p.n_verbalizers) + " verbalizer rows; give 2 to " +
                        std::to_string(kMaxVerbalizers));
  }
  if (p.n_safe < 1 || p.n_safe >= p.n_verbalizers) {
    return bad_argument("n_safe is " + std::to_string(p.n_safe) + "; it must be in 1 to " +
                        std::to_string(p.n_verbalizers - 1) +
                        " so that each side has a verbalizer");
  }
  if (!std::isfinite(p.epsilon) || p.epsilon < 0) {
    return bad_argument("epsilon is " + std::to_string(p.epsilon) + "; it must be finite and >= 0");
  }
  return Status::success();
}

Status check_pointers(const RewardHeadParams& p) {
  if (p.is_rms != (p.norm_bias == nullptr)) {
    return bad_argument("LayerNorm needs norm_bias and RMSNorm has none");
  }
  const bool has_parameters = p.norm_weight && p.rows && p.calibration;
  const int64_t n_results = p.n_batch * p.n_pooled;
  const bool has_results = n_results == 0 || (p.pooled_at && p.reward && p.compliance);
  const bool has_hidden = n_results == 0 || p.n_tokens == 0 || p.hidden;
  if (has_parameters && has_results && has_hidden) return Status::success();
  return bad_argument(
      "a pointer is null; give every array of RewardHeadParams but those that may be");
}

Status check_pooled_at(const RewardHeadParams& p) {
  for (int64_t i = 0; i < p.n_batch * p.n_pooled; ++i) {
    if (p.pooled_at[i] < p.n_tokens) continue;
    return bad_argument("pooled_at[" + std::to_string(i / p.n_pooled) + ", " +
                        std::to_string(i % p.n_pooled) + "] is " + std::to_string(p.pooled_at[i]) +
                        "; rows have " + std::to_string(p.n_tokens) +
                        " tokens; give a smaller index or -1");
  }
  return Status::success();
}

}  // namespace

Status reward_head(const RewardHeadParams& params, Isa isa) {
  for (auto check : {check_sizes, check_pointers, check_pooled_at}) {
    Status status = check(params);
    if (!status.ok()) return status;
  }
  if (Status status = check_isa("RewardHead", isa); !status.ok()) return status;
  reward_head_cpu(params, isa);
  return Status::success();
}

}  // namespace csrm::kernels
