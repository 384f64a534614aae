// Which query a row of PrefixAttention is and how many own keys it sees, for every version on a
// GPU. Not: the cut into tiles (prefix_attention_tiles.h).
#ifndef CSRM_KERNELS_CUDA_PREFIX_ATTENTION_ROWS_CUH_
#define CSRM_KERNELS_CUDA_PREFIX_ATTENTION_ROWS_CUH_

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/prefix_attention.h"
#include "kernels/cuda/prefix_attention_tiles.h"

namespace csrm::kernels::cuda {

constexpr float kLog2E = 1.44269504f;

// Which query of which head `row` of the batch is.
struct QueryPlace {
  int64_t query;  // entry * Q + query
  int head;
};
__device__ inline QueryPlace query_of_row(const PrefixAttentionParams& p, int kv_head, int row) {
  const int sharing = static_cast<int>(p.n_heads / p.n_kv_heads);
  return {row / sharing, kv_head * sharing + row % sharing};
}

__device__ inline int seen_keys(const PrefixAttentionParams& p, int64_t query) {
  const int64_t seen = p.visible[query];
  return static_cast<int>(seen < 0 ? 0 : at_most(seen, p.n_tokens));
}

// The most and the fewest own keys that a row of the tile sees; every warp finds the same.
struct SeenRange {
  int least, most;
};
__device__ inline SeenRange seen_range(const PrefixAttentionParams& p, const AttentionWork& work,
                                       int kv_head) {
  int least = static_cast<int>(p.n_tokens), most = 0;
  for (int row = threadIdx.x % kWarpSize; row < work.n_rows; row += kWarpSize) {
    const int seen = seen_keys(p, query_of_row(p, kv_head, work.first_row + row).query);
    least = min(least, seen);
    most = max(most, seen);
  }
  return {__reduce_min_sync(kAllLanes, least), __reduce_max_sync(kAllLanes, most)};
}

}  // namespace csrm::kernels::cuda

#endif  // CSRM_KERNELS_CUDA_PREFIX_ATTENTION_ROWS_CUH_
