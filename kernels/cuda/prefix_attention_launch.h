// What prefix_attention.cu and the files of its versions tell each other. Not: arithmetic.
#ifndef CSRM_KERNELS_CUDA_PREFIX_ATTENTION_LAUNCH_H_
#define CSRM_KERNELS_CUDA_PREFIX_ATTENTION_LAUNCH_H_

#include <cuda_runtime_api.h>

#include "kernels/cuda/prefix_attention.h"
#include "kernels/cuda/prefix_attention_tiles.h"

namespace csrm::kernels::cuda {

constexpr int64_t kMaxNaiveDim = 256;
constexpr int64_t kMaxTiledDim = 128;

// The cut of checked `params` with tiles of `tile_rows` rows.
inline AttentionCut attention_cut(const PrefixAttentionParams& p, int tile_rows) {
  AttentionCut cut;
  cut.n_batch = static_cast<int>(p.n_batch);
  cut.rows_per_entry = static_cast<int>(p.n_queries * (p.n_heads / p.n_kv_heads));
  cut.n_prefix = static_cast<int>(p.n_prefix);
  cut.n_tokens = static_cast<int>(p.n_tokens);
  cut.part_keys = part_keys(static_cast<int>(p.head_dim));
  cut.tile_rows = tile_rows;
  return cut;
}

// Each takes arguments that prefix_attention() has checked and that the version supports.
cudaError_t launch_attention_naive(const PrefixAttentionParams& params, cudaStream_t stream);
cudaError_t launch_attention_tiled(const PrefixAttentionParams& params, cudaStream_t stream);
cudaError_t launch_attention_fp16(const PrefixAttentionParams& params, AttentionPlan plan,
                                  cudaStream_t stream);
cudaError_t launch_attention_bf16(const PrefixAttentionParams& params, AttentionPlan plan,
                                  cudaStream_t stream);

}  // namespace csrm::kernels::cuda

#endif  // CSRM_KERNELS_CUDA_PREFIX_ATTENTION_LAUNCH_H_
