// PrefixAttention on tensor cores (kMma): the kernels, and how they are launched for one type of
// elements. Included by prefix_attention_fp16.cu and _bf16.cu only. Not: the cut of the work
// (prefix_attention_tiles.h), the arithmetic of a block of keys (prefix_attention_step.cuh) and the
// checks (prefix_attention.cu).
#ifndef CSRM_KERNELS_CUDA_PREFIX_ATTENTION_MMA_CUH_
#define CSRM_KERNELS_CUDA_PREFIX_ATTENTION_MMA_CUH_

#include "kernels/cuda/prefix_attention_launch.h"
#include "kernels/cuda/prefix_attention_step.cuh"

namespace csrm::kernels::cuda {

// Where the parts of a split leave what they found: values [part][kv_head][row][D], weights
// [part][kv_head][row] = (highest score in units of log2, sum of weights). Rows of the whole batch.
struct PartialResults {
  float* values;
  float2* weights;
  int64_t n_rows;  // of all batch entries
  int n_kv_heads;

  __device__ int64_t at(int part, int kv_head, int64_t row) const {
    return (static_cast<int64_t>(part) * n_kv_heads + kv_head) * n_rows + row;
  }
};

struct MergeFactors {
  float kept, added;
};

// Merges a part (highest score, sum of weights) into what is before it. The values merge as
// merged_value(). A part of which nothing was seen changes nothing; a NaN stays.
__device__ inline MergeFactors merge_weights(float& highest, float& total, float part_highest,
                                             float part_total) {
  if (part_total == 0.0f) return {1.0f, 0.0f};
  const float top = fmaxf(highest, part_highest);
  const MergeFactors f{power_of_two(highest - top), power_of_two(part_highest - top)};
  total = __fmaf_rn(part_total, f.added, __fmul_rn(total, f.kept));
  highest = top;
  return f;
}
__device__ inline float merged_value(float before, float part, MergeFactors f) {
  return __fmaf_rn(part, f.added, __fmul_rn(before, f.kept));
}
__device__ inline float inverse_of(float total) { return total == 0.0f ? 0.0f : 1.0f / total; }

// Merges the finished part into those before it, which are in the stash: the thread's column of
// [kThreadStash][kMmaThreads], its values and then (highest score, total) of its rows. After the
// last part the state has the merged values and totals, else the stash has.
template <typename Shape>
__device__ inline void merge_part(MmaState<Shape>& state, bool is_first, bool is_last,
                                  float* stash) {
#pragma unroll
  for (int i = 0; i < Shape::kRowTiles; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float* row = stash + (Shape::kThreadValues + (i * 2 + half) * 2) * kMmaThreads;
      float highest = is_first ? -INFINITY : row[0];
      float total = is_first ? 0.0f : row[kMmaThreads];
      const MergeFactors f =
          merge_weights(highest, total, state.highest[i][half], state.total[i][half]);
      if (is_last) {
        state.total[i][half] = total;
      } else {
        row[0] = highest;
        row[kMmaThreads] = total;
      }
#pragma unroll
      for (int c = 0; c < Shape::kValueTiles; ++c) {
#pragma unroll
        for (int r = half * 2; r < half * 2 + 2; ++r) {
          float* kept = stash + ((i * Shape::kValueTiles + c) * 4 + r) * kMmaThreads;
          const float value = merged_value(is_first ? 0.0f : *kept, state.values[i][c][r], f);
          if (is_last) {
            state.values[i][c][r] = value;
          } else {
            *kept = value;
          }
        }
      }
    }
  }
}

// contexts = values / total, of the rows that exist.
template <typename Shape>
__device__ inline void store_contexts(const PrefixAttentionParams& p, const AttentionWork& work,
                                      int kv_head, const MmaState<Shape>& state) {
  using T = typename Shape::T;
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
#pragma unroll
  for (int i = 0; i < Shape::kRowTiles; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = lane_row(warp, Shape::kRowTiles, i, half, lane);
      if (row >= work.n_rows) continue;
      const QueryPlace place = query_of_row(p, kv_head, work.first_row + row);
      T* context = static_cast<T*>(p.context) +
                   (place.query * p.n_heads + place.head) * Shape::kDim + lane_column(lane);
      const float inverse = inverse_of(state.total[i][half]);
#pragma unroll
      for (int c = 0; c < Shape::kValueTiles; ++c) {
        const float* pair = state.values[i][c] + half * 2;
        *reinterpret_cast<uint32_t*>(context + c * kMmaColumns) =
            packed<T>(__fmul_rn(pair[0], inverse), __fmul_rn(pair[1], inverse));
      }
    }
  }
}

// The part's values and weights into the workspace, for combine_kernel.
template <typename Shape>
__device__ inline void store_partial(const PartialResults& results, const AttentionWork& work,
                                     int kv_head, const MmaState<Shape>& state) {
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
#pragma unroll
  for (int i = 0; i < Shape::kRowTiles; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = lane_row(warp, Shape::kRowTiles, i, half, lane);
      if (row >= work.n_rows) continue;
      const int64_t at = results.at(work.first_part, kv_head, work.first_row + row);
      if (lane % 4 == 0) {
        results.weights[at] = make_float2(state.highest[i][half], state.total[i][half]);
      }
      float* values = results.values + at * Shape::kDim + lane_column(lane);
#pragma unroll
      for (int c = 0; c < Shape::kValueTiles; ++c) {
        *reinterpret_cast<float2*>(values + c * kMmaColumns) =
            make_float2(state.values[i][c][half * 2], state.values[i][c][half * 2 + 1]);
      }
    }
  }
}

// Block x of the cut, head of keys y. kSplit: one part, into `results`; else all, into the
// contexts.
template <typename Shape, bool kSplit>
__global__ void __launch_bounds__(kMmaThreads)
    attention_mma_kernel(const PrefixAttentionParams p, const AttentionCut cut,
                         const PartialResults results) {
  using T = typename Shape::T;
  extern __shared__ __align__(16) unsigned char shared[];
  T* const stages = reinterpret_cast<T*>(shared);
  float* const stash = reinterpret_cast<float*>(shared + Shape::kStageBytes) + threadIdx.x;
  const int kv_head = static_cast<int>(blockIdx.y);
  const AttentionWork work = kSplit ? split_work(cut, blockIdx.x) : whole_work(cut, blockIdx.x);
  const float factor = p.scale * kLog2E;

  MmaState<Shape> state;
  load_queries<Shape>(p, work, kv_head, state);
  begin_part<Shape>(state);
  const SeenRange seen = seen_range(p, work, kv_head);

  // `next` is where copies are, `now` where sums are: one block behind.
  PartKeys<T> next = part_at<Shape>(p, cut, work, seen, kv_head, work.first_part);
  while (next.first >= next.end && next.part + 1 < work.end_part) {
    next = part_at<Shape>(p, cut, work, seen, kv_head, next.part + 1);
  }
  int next_first = next.first;
  bool has_next = next_first < next.end;
  int stage = 0;
  bool is_first_part = true;
  if (has_next) copy_block<Shape>(next, next_first, stages);
  commit_copies();
  while (has_next) {
    const PartKeys<T> now = next;
    const int first = next_first;
    next_first += Shape::kKeys;
    while (next_first >= next.end && next.part + 1 < work.end_part) {
      next = part_at<Shape>(p, cut, work, seen, kv_head, next.part + 1);
      next_first = next.first;
    }
    has_next = next_first < next.end;
    if (has_next) copy_block<Shape>(next, next_first, stages + (stage ^ 1) * Shape::kStage);
    commit_copies();
    wait_for_copies<1>();
    __syncthreads();  // everyone's copies of this stage are there
    attend_block<Shape>(state, now, first, stages + stage * Shape::kStage, factor);
    if (!has_next || next.part != now.part) {
      add_up_totals<Shape>(state);
      if constexpr (!kSplit) {
        merge_part<Shape>(state, is_first_part, !has_next, stash);
        is_first_part = false;
        if (has_next) begin_part<Shape>(state);
      }
    }
    __syncthreads();  // everyone has read this stage: it may be copied to
    stage ^= 1;
  }
  if constexpr (kSplit) {
    store_partial<Shape>(results, work, kv_head, state);
  } else {
    store_contexts<Shape>(p, work, kv_head, state);
  }
}

// Merges the parts of a split in their order. A thread has four columns of one row.
constexpr int kCombineThreads = 128;
template <typename T>
__global__ void __launch_bounds__(kCombineThreads)
    combine_kernel(const PrefixAttentionParams p, const PartialResults results, const int n_parts) {
  const int n_quads = static_cast<int>(p.head_dim) / 4;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kCombineThreads + threadIdx.x;
  const int64_t row = i / n_quads;
  if (row >= results.n_rows) return;
  const int column = static_cast<int>(i % n_quads) * 4;
  const int kv_head = static_cast<int>(blockIdx.y);
  float highest = -INFINITY, total = 0.0f;
  float values[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 4
  for (int part = 0; part < n_parts; ++part) {
    const int64_t at = results.at(part, kv_head, row);
    const float2 weights = results.weights[at];
    const float4 found =
        *reinterpret_cast<const float4*>(results.values + at * p.head_dim + column);
    const MergeFactors f = merge_weights(highest, total, weights.x, weights.y);
    values[0] = merged_value(values[0], found.x, f);
    values[1] = merged_value(values[1], found.y, f);
    values[2] = merged_value(values[2], found.z, f);
    values[3] = merged_value(values[3], found.w, f);
  }
  const QueryPlace place = query_of_row(p, kv_head, static_cast<int>(row));
  T* context =
      static_cast<T*>(p.context) + (place.query * p.n_heads + place.head) * p.head_dim + column;
  const float inverse = inverse_of(total);
  uint2 out;
  out.x = packed<T>(__fmul_rn(values[0], inverse), __fmul_rn(values[1], inverse));
  out.y = packed<T>(__fmul_rn(values[2], inverse), __fmul_rn(values[3], inverse));
  *reinterpret_cast<uint2*>(context) = out;
}

template <typename Shape, bool kSplit>
cudaError_t launch_mma_kernel(const PrefixAttentionParams& p, const AttentionCut& cut,
                              const PartialResults& results, cudaStream_t stream) {
  const bool has_stash = !kSplit && cut.n_parts() > 1;
  const size_t bytes = Shape::kStageBytes + (has_stash ? Shape::kStashBytes : 0);
  const auto kernel = attention_mma_kernel<Shape, kSplit>;
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>(kSplit ? cut.split_blocks() : cut.whole_blocks()),
                  static_cast<unsigned>(p.n_kv_heads));
  kernel<<<grid, kMmaThreads, bytes, stream>>>(p, cut, results);
  return cudaGetLastError();
}

template <typename Shape>
cudaError_t launch_mma_shape(const PrefixAttentionParams& p, bool is_split, cudaStream_t stream) {
  const AttentionCut cut = attention_cut(p, Shape::kRows);
  PartialResults results{};
  if (!is_split) return launch_mma_kernel<Shape, false>(p, cut, results, stream);
  results.n_rows = static_cast<int64_t>(cut.n_batch) * cut.rows_per_entry;
  results.n_kv_heads = static_cast<int>(p.n_kv_heads);
  const int64_t n = results.n_rows * p.n_kv_heads * cut.n_parts();
  results.values = static_cast<float*>(p.workspace);
  results.weights = reinterpret_cast<float2*>(results.values + n * p.head_dim);
  const cudaError_t error = launch_mma_kernel<Shape, true>(p, cut, results, stream);
  if (error != cudaSuccess) return error;
  const int64_t n_threads = results.n_rows * (p.head_dim / 4);
  const dim3 grid(static_cast<unsigned>(ceil_div(n_threads, kCombineThreads)),
                  static_cast<unsigned>(p.n_kv_heads));
  combine_kernel<typename Shape::T>
      <<<grid, kCombineThreads, 0, stream>>>(p, results, cut.n_parts());
  return cudaGetLastError();
}

template <typename T>
cudaError_t launch_attention_mma(const PrefixAttentionParams& p, AttentionPlan plan,
                                 cudaStream_t stream) {
  const bool is_large = plan.tile_rows > kSmallTileRows;
  switch (p.head_dim) {
    case 32:
      return is_large ? launch_mma_shape<MmaShape<T, 32, 2>>(p, plan.is_split, stream)
                      : launch_mma_shape<MmaShape<T, 32, 1>>(p, plan.is_split, stream);
    case 64:
      return is_large ? launch_mma_shape<MmaShape<T, 64, 2>>(p, plan.is_split, stream)
                      : launch_mma_shape<MmaShape<T, 64, 1>>(p, plan.is_split, stream);
    case 128:
      return launch_mma_shape<MmaShape<T, 128, 1>>(p, plan.is_split, stream);
    default:
      return cudaErrorInvalidValue;  // prefix_attention() has checked it
  }
}

}  // namespace csrm::kernels::cuda

#endif  // CSRM_KERNELS_CUDA_PREFIX_ATTENTION_MMA_CUH_
