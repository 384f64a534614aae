// RewardHead on a GPU. For each (b, j), with t = pooled_at[b, j] and x = hidden[b, t]:
//   y = LayerNorm(x) * norm_weight + norm_bias          (biased variance)
//       or RMSNorm(x) * norm_weight                     (a mean of 0 and no bias)
//   z = rows . y + row_bias
//   reward = logsumexp(z[:n_safe]) - logsumexp(z[n_safe:]);  compliance = sigmoid(a * reward + b)
//
// One block per pooled token; its threads stride over H. x is read three times (mean, variance,
// products), twice from L1: a copy in shared memory would cost as much and would bound H. Four rows
// of verbalizers at a time, so y is made once per four. What it takes is the launch and three trips
// through the block's barrier; there is nothing to gain from more blocks per token.
#include <cmath>
#include <string>

#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/reward_head.h"

namespace csrm::kernels::cuda {
namespace {

constexpr char kName[] = "RewardHead";
constexpr int kRowsAtOnce = 4;
// Up to this H a block has 4 warps, above it 8. It decides the order of sums, so it may depend on H
// and never on the batch.
constexpr int64_t kSmallHidden = 1024;

// logsumexp of z[0 .. n), n >= 1, by one warp; every lane gets it.
__device__ float warp_logsumexp(const float* z, int n) {
  const int lane = threadIdx.x % kWarpSize;
  float top = -INFINITY;
  for (int i = lane; i < n; i += kWarpSize) top = fmaxf(top, z[i]);
  top = warp_max(top);
  float sum = 0;
  for (int i = lane; i < n; i += kWarpSize) sum += expf(z[i] - top);
  return top + logf(warp_sum(sum));
}

template <typename T, int kWarps>
__global__ void __launch_bounds__(kWarps* kWarpSize) reward_head_kernel(const RewardHeadParams p) {
  constexpr int kThreads = kWarps * kWarpSize;
  __shared__ float partial_one[kWarps][1];
  __shared__ float partial_rows[kWarps][kRowsAtOnce];
  __shared__ float z[kMaxVerbalizers];
  const int64_t i = blockIdx.x;
  const int64_t n = p.n_hidden;
  const int64_t token = p.pooled_at[i];
  if (token < 0 || token >= p.n_tokens) {  // the whole block agrees
    if (threadIdx.x == 0) p.reward[i] = p.compliance[i] = NAN;
    return;
  }
  const T* x = static_cast<const T*>(p.hidden) + (i / p.n_pooled * p.n_tokens + token) * n;

  float sum[1] = {0};
  float mean = 0;
  if (!p.is_rms) {
    for (int64_t h = threadIdx.x; h < n; h += kThreads) sum[0] += to_float(x[h]);
    block_sums<kWarps>(sum, partial_one);
    mean = sum[0] / static_cast<float>(n);
    sum[0] = 0;
  }
  for (int64_t h = threadIdx.x; h < n; h += kThreads) {
    const float centred = to_float(x[h]) - mean;
    sum[0] += centred * centred;
  }
  block_sums<kWarps>(sum, partial_one);
  const float scale = 1.0f / sqrtf(sum[0] / static_cast<float>(n) + p.epsilon);

  for (int v = 0; v < p.n_verbalizers; v += kRowsAtOnce) {
    float dot[kRowsAtOnce] = {};
    const int n_rows = min(kRowsAtOnce, static_cast<int>(p.n_verbalizers) - v);
    const float* row = p.rows + v * n;
    for (int64_t h = threadIdx.x; h < n; h += kThreads) {
      const float bias = p.is_rms ? 0.0f : p.norm_bias[h];
      const float y = (to_float(x[h]) - mean) * scale * p.norm_weight[h] + bias;
#pragma unroll
      for (int j = 0; j < kRowsAtOnce; ++j) {
        if (j < n_rows) dot[j] += row[j * n + h] * y;
      }
    }
    block_sums<kWarps>(dot, partial_rows);
    if (threadIdx.x == 0) {
#pragma unroll
      for (int j = 0; j < kRowsAtOnce; ++j) {
        if (j < n_rows) z[v + j] = dot[j] + (p.row_bias == nullptr ? 0.0f : p.row_bias[v + j]);
      }
    }
  }
  __syncthreads();
  if (threadIdx.x >= kWarpSize) return;
  const int n_safe = static_cast<int>(p.n_safe);
  const float safe = warp_logsumexp(z, n_safe);
  const float unsafe = warp_logsumexp(z + n_safe, static_cast<int>(p.n_verbalizers) - n_safe);
  if (threadIdx.x != 0) return;
  const float reward = safe - unsafe;
  p.reward[i] = reward;
  p.compliance[i] = 1.0f / (1.0f + expf(-(p.calibration[0] * reward + p.calibration[1])));
}

template <typename T>
void launch(const RewardHeadParams& p, cudaStream_t stream) {
  const auto n_blocks = static_cast<unsigned>(p.n_batch * p.n_pooled);
  if (p.n_hidden <= kSmallHidden) {
    reward_head_kernel<T, 4><<<n_blocks, 4 * kWarpSize, 0, stream>>>(p);
  } else {
    reward_head_kernel<T, 8><<<n_blocks, 8 * kWarpSize, 0, stream>>>(p);
  }
}

Status bad_argument(const std::string& message) {
  return {Code::kBadArgument, std::string(kName) + ": " + message};
}

Status check(const RewardHeadParams& p) {
  if (p.n_batch < 0 || p.n_tokens < 0 || p.n_pooled < 0) {
    return bad_argument("a batch, token or pooled count is negative; give sizes >= 0");
  }
  if (p.n_pooled > 0 && p.n_batch > kMaxGridX / p.n_pooled) {
    return bad_argument("more than 2^31 - 1 pooled tokens; split the batch");
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
                        std::to_string(p.n_verbalizers - 1));
  }
  if (!std::isfinite(p.epsilon) || p.epsilon < 0) {
    return bad_argument("epsilon is " + std::to_string(p.epsilon) + "; it must be finite and >= 0");
  }
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

}  // namespace

Status reward_head(const RewardHeadParams& params, cudaStream_t stream) {
  if (Status status = check(params); !status.ok()) return status;
  if (params.n_batch * params.n_pooled == 0) return Status::success();
  return launch_for(params.dtype, kName,
                    [&](auto element) { launch<decltype(element)>(params, stream); });
}

}  // namespace csrm::kernels::cuda
