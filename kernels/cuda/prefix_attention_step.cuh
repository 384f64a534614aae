// PrefixAttention on tensor cores: what a block does with one block of keys. Included by
// prefix_attention_mma.cuh, which has the kernels. Not: parts and how they merge.
//
// A block has 4 warps, a warp 16 or 32 rows, whose queries stay in its registers. Keys and values
// go block_keys(D) at a time through two stages of shared memory: while one is computed on, the
// next is copied, across parts too. Scores are the accumulators of keys x queries; their powers of
// two are, register for register, the left operand for the values, so weights never leave a warp. A
// lane has two rows per 16 (registers 0, 1 and 2, 3) and adds up the weights of its own columns;
// the four lanes of a row meet for each maximum and once per part for the sum.
#ifndef CSRM_KERNELS_CUDA_PREFIX_ATTENTION_STEP_CUH_
#define CSRM_KERNELS_CUDA_PREFIX_ATTENTION_STEP_CUH_

#include <cmath>

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/prefix_attention_rows.cuh"
#include "kernels/cuda/prefix_attention_tiles.h"
#include "kernels/cuda/tensor_core.cuh"

namespace csrm::kernels::cuda {

// Sizes that a kernel is compiled for.
template <typename Element, int kHeadDim, int kRowTileCount>
struct MmaShape {
  using T = Element;
  static constexpr int kDim = kHeadDim;
  static constexpr int kRowTiles = kRowTileCount;  // of 16 rows, per warp
  static constexpr int kRows = kRowTiles * kMmaRows * kMmaWarps;
  static constexpr int kKeys = block_keys(kDim);
  static constexpr int kStride = kDim + kRowPadding;
  static constexpr int kHalfStage = kKeys * kStride;  // elements of the keys, or of the values
  static constexpr int kStage = 2 * kHalfStage;
  static constexpr int kScoreTiles = kKeys / kMmaColumns;
  static constexpr int kValueTiles = kDim / kMmaColumns;
  static constexpr int kThreadValues = kRowTiles * kValueTiles * 4;
  static constexpr size_t kStageBytes = 2 * kStage * sizeof(T);
  static constexpr int kThreadStash = kThreadValues + kRowTiles * 2 * 2;
  static constexpr size_t kStashBytes = sizeof(float) * kThreadStash * kMmaThreads;
};

// What a lane holds of the rows it shares: everything but the keys.
template <typename Shape>
struct MmaState {
  uint32_t query[Shape::kRowTiles][Shape::kDim / kMmaDepth][4];
  float values[Shape::kRowTiles][Shape::kValueTiles][4];  // sums of weight * value, of this part
  float highest[Shape::kRowTiles][2];                     // of this part, in units of log2
  float total[Shape::kRowTiles][2];                       // of this part, over the lane's columns
  int seen[Shape::kRowTiles][2];                          // own keys
};

template <typename Shape>
__device__ inline void begin_part(MmaState<Shape>& state) {
#pragma unroll
  for (int i = 0; i < Shape::kRowTiles; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      state.highest[i][half] = -INFINITY;
      state.total[i][half] = 0.0f;
    }
#pragma unroll
    for (int c = 0; c < Shape::kValueTiles; ++c) {
#pragma unroll
      for (int r = 0; r < 4; ++r) state.values[i][c][r] = 0.0f;
    }
  }
}

// Queries into registers, zeros for rows that do not exist.
template <typename Shape>
__device__ inline void load_queries(const PrefixAttentionParams& p, const AttentionWork& work,
                                    int kv_head, MmaState<Shape>& state) {
  using T = typename Shape::T;
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
#pragma unroll
  for (int i = 0; i < Shape::kRowTiles; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = lane_row(warp, Shape::kRowTiles, i, half, lane);
      const bool exists = row < work.n_rows;
      const QueryPlace place = query_of_row(p, kv_head, work.first_row + (exists ? row : 0));
      state.seen[i][half] = exists ? seen_keys(p, place.query) : 0;
      const T* vector = static_cast<const T*>(p.query) + place.query * p.query_width +
                        p.query_offset + place.head * Shape::kDim + lane_column(lane);
#pragma unroll
      for (int k = 0; k < Shape::kDim / kMmaDepth; ++k) {
#pragma unroll
        for (int high = 0; high < 2; ++high) {
          const T* pair = vector + k * kMmaDepth + high * 8;
          state.query[i][k][high * 2 + half] =
              exists ? *reinterpret_cast<const uint32_t*>(pair) : 0u;
        }
      }
    }
  }
}

// The part a block is in, and the keys of it that some row of the tile sees.
template <typename T>
struct PartKeys {
  const T* key;  // of key 0 of the prefix or row, this head
  const T* value;
  int64_t stride;
  int part;
  int first, end;  // nothing to do if first >= end
  int all_see;     // every row sees the keys before this one
  bool is_own;
};

template <typename Shape>
__device__ inline PartKeys<typename Shape::T> part_at(const PrefixAttentionParams& p,
                                                      const AttentionCut& cut,
                                                      const AttentionWork& work, SeenRange seen,
                                                      int kv_head, int part) {
  using T = typename Shape::T;
  const AttentionKeys keys = keys_of_part(cut, part);
  PartKeys<T> result;
  result.part = part;
  result.first = keys.first;
  result.is_own = keys.is_own;
  result.end = keys.is_own ? min(keys.end, seen.most) : keys.end;
  result.all_see = keys.is_own ? min(keys.end, seen.least) : keys.end;
  if (keys.is_own) {
    const T* row = static_cast<const T*>(p.key_value) + work.entry * p.n_tokens * p.key_value_width;
    result.key = row + p.key_offset + kv_head * Shape::kDim;
    result.value = row + p.value_offset + kv_head * Shape::kDim;
    result.stride = p.key_value_width;
  } else {
    const int64_t head = (p.layer * p.n_kv_heads + kv_head) * p.n_prefix * Shape::kDim;
    result.key = static_cast<const T*>(p.prefix_key) + head;
    result.value = static_cast<const T*>(p.prefix_value) + head;
    result.stride = Shape::kDim;
  }
  return result;
}

// Begins to copy keys and values first .. first + kKeys - 1 into a stage; zeros from part.end on.
template <typename Shape>
__device__ inline void copy_block(const PartKeys<typename Shape::T>& part, int first,
                                  typename Shape::T* stage) {
  constexpr int kChunk = 8;  // elements of 16 bytes
  constexpr int kRowChunks = Shape::kDim / kChunk;
  constexpr int kChunks = Shape::kKeys * kRowChunks;
  static_assert(kChunks % kMmaThreads == 0, "threads copy equally much");
#pragma unroll
  for (int n = 0; n < kChunks / kMmaThreads; ++n) {
    const int chunk = n * kMmaThreads + static_cast<int>(threadIdx.x);
    const int key = chunk / kRowChunks, column = chunk % kRowChunks * kChunk;
    const bool is_read = first + key < part.end;
    const int64_t from = (is_read ? first + key : part.first) * part.stride + column;
    const uint32_t to = shared_address(stage + key * Shape::kStride + column);
    copy_16_bytes(to, part.key + from, is_read);
    copy_16_bytes(to + Shape::kHalfStage * sizeof(typename Shape::T), part.value + from, is_read);
  }
}

template <typename Shape>
using Scores = float[Shape::kRowTiles][Shape::kScoreTiles][4];

// scores = queries x keys, unscaled.
template <typename Shape>
__device__ inline void multiply_keys(const MmaState<Shape>& state, uint32_t keys,
                                     Scores<Shape>& scores) {
  constexpr int kBytes = sizeof(typename Shape::T);
  const PatchPlace place = key_patch(threadIdx.x % kWarpSize);
  const uint32_t start = keys + (place.row * Shape::kStride + place.column) * kBytes;
#pragma unroll
  for (int i = 0; i < Shape::kRowTiles; ++i) {
#pragma unroll
    for (int c = 0; c < Shape::kScoreTiles; ++c) {
#pragma unroll
      for (int r = 0; r < 4; ++r) scores[i][c][r] = 0.0f;
    }
  }
#pragma unroll
  for (int k = 0; k < Shape::kDim / kMmaDepth; ++k) {
#pragma unroll
    for (int n = 0; n < Shape::kKeys / 16; ++n) {
      uint32_t b[4];
      load_matrices(b, start + (n * 16 * Shape::kStride + k * kMmaDepth) * kBytes);
#pragma unroll
      for (int i = 0; i < Shape::kRowTiles; ++i) {
        multiply_add<typename Shape::T>(scores[i][2 * n], state.query[i][k], b[0], b[1]);
        multiply_add<typename Shape::T>(scores[i][2 * n + 1], state.query[i][k], b[2], b[3]);
      }
    }
  }
}

// Scores of keys that a row does not see become -inf. `first` is the block's first key.
template <typename Shape>
__device__ inline void hide_unseen(const MmaState<Shape>& state, int first, bool is_own, int end,
                                   Scores<Shape>& scores) {
  const int column = first + lane_column(threadIdx.x % kWarpSize);
#pragma unroll
  for (int i = 0; i < Shape::kRowTiles; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int limit = is_own ? state.seen[i][half] : end;
#pragma unroll
      for (int c = 0; c < Shape::kScoreTiles; ++c) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          if (column + c * kMmaColumns + r >= limit) scores[i][c][half * 2 + r] = -INFINITY;
        }
      }
    }
  }
}

// scores -> weights 2^(factor * score - highest); values and sums so far are brought to the new
// highest score. factor > 0.
template <typename Shape>
__device__ inline void soften(MmaState<Shape>& state, float factor, Scores<Shape>& scores) {
#pragma unroll
  for (int i = 0; i < Shape::kRowTiles; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = -INFINITY;
#pragma unroll
      for (int c = 0; c < Shape::kScoreTiles; ++c) {
        top = fmaxf(top, fmaxf(scores[i][c][half * 2], scores[i][c][half * 2 + 1]));
      }
      top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
      top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
      top = fmaxf(state.highest[i][half], __fmul_rn(top, factor));
      const float shift = top == -INFINITY ? 0.0f : top;  // a row that sees nothing yet
      const float kept = power_of_two(state.highest[i][half] - shift);
      state.highest[i][half] = top;
      float sum = 0.0f;
#pragma unroll
      for (int c = 0; c < Shape::kScoreTiles; ++c) {
#pragma unroll
        for (int r = half * 2; r < half * 2 + 2; ++r) {
          scores[i][c][r] = power_of_two(__fmaf_rn(scores[i][c][r], factor, -shift));
          sum += scores[i][c][r];
        }
      }
      state.total[i][half] = __fmaf_rn(state.total[i][half], kept, sum);
      if (!__any_sync(kAllLanes, kept != 1.0f)) continue;  // times 1: the same bits
#pragma unroll
      for (int c = 0; c < Shape::kValueTiles; ++c) {
        state.values[i][c][half * 2] = __fmul_rn(state.values[i][c][half * 2], kept);
        state.values[i][c][half * 2 + 1] = __fmul_rn(state.values[i][c][half * 2 + 1], kept);
      }
    }
  }
}

// values += weights x values of the block. Weights are rounded to T here.
template <typename Shape>
__device__ inline void multiply_values(MmaState<Shape>& state, uint32_t values,
                                       const Scores<Shape>& weights) {
  using T = typename Shape::T;
  const PatchPlace place = value_patch(threadIdx.x % kWarpSize);
  const uint32_t start = values + (place.row * Shape::kStride + place.column) * sizeof(T);
#pragma unroll
  for (int k = 0; k < Shape::kKeys / kMmaDepth; ++k) {
    uint32_t a[Shape::kRowTiles][4];
#pragma unroll
    for (int i = 0; i < Shape::kRowTiles; ++i) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float* pair = weights[i][2 * k + r / 2] + r % 2 * 2;
        a[i][r] = packed<T>(pair[0], pair[1]);
      }
    }
#pragma unroll
    for (int n = 0; n < Shape::kDim / 16; ++n) {
      uint32_t b[4];
      load_transposed(b, start + (k * kMmaDepth * Shape::kStride + n * 16) * sizeof(T));
#pragma unroll
      for (int i = 0; i < Shape::kRowTiles; ++i) {
        multiply_add<T>(state.values[i][2 * n], a[i], b[0], b[1]);
        multiply_add<T>(state.values[i][2 * n + 1], a[i], b[2], b[3]);
      }
    }
  }
}

// Over the four lanes of a row; all get the same.
template <typename Shape>
__device__ inline void add_up_totals(MmaState<Shape>& state) {
#pragma unroll
  for (int i = 0; i < Shape::kRowTiles; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float total = state.total[i][half];
      total += __shfl_xor_sync(kAllLanes, total, 1);
      total += __shfl_xor_sync(kAllLanes, total, 2);
      state.total[i][half] = total;
    }
  }
}

// One block of keys, from its stage.
template <typename Shape>
__device__ inline void attend_block(MmaState<Shape>& state, const PartKeys<typename Shape::T>& part,
                                    int first, const typename Shape::T* stage, float factor) {
  Scores<Shape> scores;
  multiply_keys(state, shared_address(stage), scores);
  if (first + Shape::kKeys > part.all_see) {
    hide_unseen<Shape>(state, first, part.is_own, part.end, scores);
  }
  soften<Shape>(state, factor, scores);
  multiply_values<Shape>(state, shared_address(stage + Shape::kHalfStage), scores);
}

}  // namespace csrm::kernels::cuda

#endif  // CSRM_KERNELS_CUDA_PREFIX_ATTENTION_STEP_CUH_
