// PrefixAttention on a GPU in fp32 arithmetic, on plain cores: kNaive and kTiled, for all types and
// odd sizes. Not: the checks (prefix_attention.cu) and the tensor-core version.
//
// Both give a lane a key and later a column, take 32 keys at a time, prefix first, and sum in one
// order, so they agree to the bit. kNaive: a warp per row reads keys and values from device memory.
// kTiled: 4 warps of 8 rows share each block of keys in shared memory; a key read from there serves
// 8 rows.
#include <cmath>

#include "kernels/cuda/prefix_attention_launch.h"
#include "kernels/cuda/prefix_attention_rows.cuh"

namespace csrm::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kKeys = kWarpSize;  // of one step
constexpr int kWarpRows = 8;      // of kTiled
constexpr int kTileRows = kWarps * kWarpRows;

// Keys 0 .. n - 1 of the prefix or of a row, for one head.
template <typename T>
struct KeySpan {
  const T* key;
  const T* value;
  int64_t stride;
  int n;
};

template <typename T>
__device__ KeySpan<T> prefix_span(const PrefixAttentionParams& p, int kv_head) {
  const int64_t at = (p.layer * p.n_kv_heads + kv_head) * p.n_prefix * p.head_dim;
  return {static_cast<const T*>(p.prefix_key) + at, static_cast<const T*>(p.prefix_value) + at,
          p.head_dim, static_cast<int>(p.n_prefix)};
}

template <typename T>
__device__ KeySpan<T> own_span(const PrefixAttentionParams& p, int kv_head, int entry, int n) {
  const T* row = static_cast<const T*>(p.key_value) + entry * p.n_tokens * p.key_value_width +
                 kv_head * p.head_dim;
  return {row + p.key_offset, row + p.value_offset, p.key_value_width, n};
}

template <typename T>
__device__ const T* query_vector(const PrefixAttentionParams& p, QueryPlace place) {
  return static_cast<const T*>(p.query) + place.query * p.query_width + p.query_offset +
         place.head * p.head_dim;
}

// A row's softmax so far; highest in units of log2.
struct SoftRow {
  float highest = -INFINITY;
  float total = 0.0f;
};

struct Softened {
  float weight;  // of this lane's key
  float kept;    // factor of what was summed before
};

// Takes in one score per lane.
__device__ inline Softened soften_scores(SoftRow& row, float score, bool is_seen, float factor) {
  const float scaled = is_seen ? __fmul_rn(score, factor) : -INFINITY;
  const float top = fmaxf(row.highest, warp_max(scaled));
  const float shift = top == -INFINITY ? 0.0f : top;
  const Softened result{exp2f(scaled - shift), exp2f(row.highest - shift)};
  row.highest = top;
  row.total = __fmaf_rn(row.total, result.kept, warp_sum(result.weight));
  return result;
}

__device__ inline float over_total(float sum, float total) {
  return total == 0.0f ? 0.0f : sum / total;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    attention_naive_kernel(const PrefixAttentionParams p, const AttentionCut cut) {
  constexpr int kColumns = kMaxNaiveDim / kWarpSize;  // per lane
  __shared__ float queries[kWarps][kMaxNaiveDim];
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + warp;
  if (row >= static_cast<int64_t>(cut.n_batch) * cut.rows_per_entry) return;  // whole warps
  const int kv_head = static_cast<int>(blockIdx.y), dim = static_cast<int>(p.head_dim);
  const QueryPlace place = query_of_row(p, kv_head, static_cast<int>(row));
  const T* vector = query_vector<T>(p, place);
  for (int d = lane; d < dim; d += kWarpSize) queries[warp][d] = to_float(vector[d]);
  __syncwarp();
  const float factor = p.scale * kLog2E;
  SoftRow soft;
  float sums[kColumns] = {};
  for (int which = 0; which < 2; ++which) {
    const KeySpan<T> span =
        which == 0 ? prefix_span<T>(p, kv_head)
                   : own_span<T>(p, kv_head, static_cast<int>(row) / cut.rows_per_entry,
                                 seen_keys(p, place.query));
    for (int first = 0; first < span.n; first += kKeys) {
      const int n = min(kKeys, span.n - first);
      const T* key = span.key + (first + min(lane, n - 1)) * span.stride;
      float score = 0.0f;
      for (int d = 0; d < dim; ++d) score = __fmaf_rn(queries[warp][d], to_float(key[d]), score);
      const Softened s = soften_scores(soft, score, lane < n, factor);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) sums[c] = __fmul_rn(sums[c], s.kept);
      for (int k = 0; k < n; ++k) {
        const float weight = __shfl_sync(kAllLanes, s.weight, k);
        const T* value = span.value + (first + k) * span.stride;
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          const int d = lane + c * kWarpSize;
          if (d < dim) sums[c] = __fmaf_rn(weight, to_float(value[d]), sums[c]);
        }
      }
    }
  }
  T* context = static_cast<T*>(p.context) + (place.query * p.n_heads + place.head) * dim;
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    const int d = lane + c * kWarpSize;
    if (d < dim) context[d] = from_float<T>(over_total(sums[c], soft.total));
  }
}

// Shared memory of kTiled, D padded with zeros to kDims. A lane reads a row of `keys` four columns
// at a time; its padding spreads the rows over the banks.
template <int kDims>
struct TiledMemory {
  float keys[kKeys][kDims + 4];
  float values[kKeys][kDims];
  float queries[kTileRows][kDims];
  float weights[kWarps][kWarpRows][kKeys];
};

template <typename T, int kDims>
__device__ inline void load_keys(const KeySpan<T>& span, int first, int dim,
                                 TiledMemory<kDims>& memory) {
  for (int i = threadIdx.x; i < kKeys * kDims; i += kThreads) {
    const int key = i / kDims, d = i % kDims;
    const bool exists = first + key < span.n && d < dim;
    const int64_t at = (first + key) * span.stride + d;
    memory.keys[key][d] = exists ? to_float(span.key[at]) : 0.0f;
    memory.values[key][d] = exists ? to_float(span.value[at]) : 0.0f;
  }
}

// Scores of a warp's rows for the lane's key.
template <int kDims>
__device__ inline void multiply_rows(const TiledMemory<kDims>& memory, float (&scores)[kWarpRows]) {
  const int lane = threadIdx.x % kWarpSize, first_row = threadIdx.x / kWarpSize * kWarpRows;
#pragma unroll
  for (int r = 0; r < kWarpRows; ++r) scores[r] = 0.0f;
#pragma unroll 4
  for (int d = 0; d < kDims; d += 4) {
    const float4 key = *reinterpret_cast<const float4*>(&memory.keys[lane][d]);
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r) {
      const float4 query = *reinterpret_cast<const float4*>(&memory.queries[first_row + r][d]);
      scores[r] = __fmaf_rn(query.x, key.x, scores[r]);
      scores[r] = __fmaf_rn(query.y, key.y, scores[r]);
      scores[r] = __fmaf_rn(query.z, key.z, scores[r]);
      scores[r] = __fmaf_rn(query.w, key.w, scores[r]);
    }
  }
}

// sums += weights x values, the weights of a warp's rows from shared memory.
template <int kDims>
__device__ inline void add_values(const TiledMemory<kDims>& memory,
                                  float (&sums)[kWarpRows][kDims / kWarpSize]) {
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
#pragma unroll 2
  for (int k = 0; k < kKeys; k += 4) {
    float values[4][kDims / kWarpSize];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
#pragma unroll
      for (int c = 0; c < kDims / kWarpSize; ++c) {
        values[j][c] = memory.values[k + j][lane + c * kWarpSize];
      }
    }
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r) {
      const float4 weight = *reinterpret_cast<const float4*>(&memory.weights[warp][r][k]);
#pragma unroll
      for (int c = 0; c < kDims / kWarpSize; ++c) {
        sums[r][c] = __fmaf_rn(weight.x, values[0][c], sums[r][c]);
        sums[r][c] = __fmaf_rn(weight.y, values[1][c], sums[r][c]);
        sums[r][c] = __fmaf_rn(weight.z, values[2][c], sums[r][c]);
        sums[r][c] = __fmaf_rn(weight.w, values[3][c], sums[r][c]);
      }
    }
  }
}

template <typename T, int kDims>
__global__ void __launch_bounds__(kThreads)
    attention_tiled_kernel(const PrefixAttentionParams p, const AttentionCut cut) {
  constexpr int kColumns = kDims / kWarpSize;
  extern __shared__ __align__(16) unsigned char shared[];
  TiledMemory<kDims>& memory = *reinterpret_cast<TiledMemory<kDims>*>(shared);
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;
  const int kv_head = static_cast<int>(blockIdx.y), dim = static_cast<int>(p.head_dim);
  const AttentionWork work = whole_work(cut, blockIdx.x);
  for (int i = threadIdx.x; i < kTileRows * kDims; i += kThreads) {
    const int row = i / kDims, d = i % kDims;
    const bool exists = row < work.n_rows && d < dim;
    const QueryPlace place = query_of_row(p, kv_head, work.first_row + (exists ? row : 0));
    memory.queries[row][d] = exists ? to_float(query_vector<T>(p, place)[d]) : 0.0f;
  }
  int seen[kWarpRows];
  SoftRow soft[kWarpRows];
  float sums[kWarpRows][kColumns] = {};
#pragma unroll
  for (int r = 0; r < kWarpRows; ++r) {
    const int row = warp * kWarpRows + r;
    const bool exists = row < work.n_rows;
    const QueryPlace place = query_of_row(p, kv_head, work.first_row + (exists ? row : 0));
    seen[r] = exists ? seen_keys(p, place.query) : 0;
  }
  const float factor = p.scale * kLog2E;
  const int most = seen_range(p, work, kv_head).most;
  for (int which = 0; which < 2; ++which) {
    const KeySpan<T> span =
        which == 0 ? prefix_span<T>(p, kv_head) : own_span<T>(p, kv_head, work.entry, most);
    for (int first = 0; first < span.n; first += kKeys) {
      __syncthreads();  // everyone has read the keys before these
      load_keys<T, kDims>(span, first, dim, memory);
      __syncthreads();  // and the queries are there
      float scores[kWarpRows];
      multiply_rows<kDims>(memory, scores);
#pragma unroll
      for (int r = 0; r < kWarpRows; ++r) {
        const int limit = which == 0 ? span.n : seen[r];
        const Softened s = soften_scores(soft[r], scores[r], first + lane < limit, factor);
        memory.weights[warp][r][lane] = s.weight;
#pragma unroll
        for (int c = 0; c < kColumns; ++c) sums[r][c] = __fmul_rn(sums[r][c], s.kept);
      }
      __syncwarp();  // a warp reads its own weights only
      add_values<kDims>(memory, sums);
    }
  }
#pragma unroll
  for (int r = 0; r < kWarpRows; ++r) {
    const int row = warp * kWarpRows + r;
    if (row >= work.n_rows) continue;
    const QueryPlace place = query_of_row(p, kv_head, work.first_row + row);
    T* context = static_cast<T*>(p.context) + (place.query * p.n_heads + place.head) * dim;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int d = lane + c * kWarpSize;
      if (d < dim) context[d] = from_float<T>(over_total(sums[r][c], soft[r].total));
    }
  }
}

template <typename T, int kDims>
cudaError_t launch_tiled(const PrefixAttentionParams& p, cudaStream_t stream) {
  const AttentionCut cut = attention_cut(p, kTileRows);
  const auto kernel = attention_tiled_kernel<T, kDims>;
  constexpr int kBytes = sizeof(TiledMemory<kDims>);
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>(cut.whole_blocks()), static_cast<unsigned>(p.n_kv_heads));
  kernel<<<grid, kThreads, kBytes, stream>>>(p, cut);
  return cudaGetLastError();
}

template <typename T>
cudaError_t launch_tiled_type(const PrefixAttentionParams& p, cudaStream_t stream) {
  if (p.head_dim <= 32) return launch_tiled<T, 32>(p, stream);
  if (p.head_dim <= 64) return launch_tiled<T, 64>(p, stream);
  return launch_tiled<T, 128>(p, stream);
}

template <typename T>
cudaError_t launch_naive_type(const PrefixAttentionParams& p, cudaStream_t stream) {
  const AttentionCut cut = attention_cut(p, 1);
  const int64_t n_rows = static_cast<int64_t>(cut.n_batch) * cut.rows_per_entry;
  const dim3 grid(static_cast<unsigned>(ceil_div(n_rows, kWarps)),
                  static_cast<unsigned>(p.n_kv_heads));
  attention_naive_kernel<T><<<grid, kThreads, 0, stream>>>(p, cut);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_attention_naive(const PrefixAttentionParams& p, cudaStream_t stream) {
  if (p.dtype == DType::kFloat16) return launch_naive_type<__half>(p, stream);
  if (p.dtype == DType::kBFloat16) return launch_naive_type<__nv_bfloat16>(p, stream);
  return launch_naive_type<float>(p, stream);
}

cudaError_t launch_attention_tiled(const PrefixAttentionParams& p, cudaStream_t stream) {
  if (p.dtype == DType::kFloat16) return launch_tiled_type<__half>(p, stream);
  if (p.dtype == DType::kBFloat16) return launch_tiled_type<__nv_bfloat16>(p, stream);
  return launch_tiled_type<float>(p, stream);
}

}  // namespace csrm::kernels::cuda
