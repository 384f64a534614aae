// PrefixAttention on a GPU: every query over a prefix that all rows of the batch share, and over
// its own row as far as `visible` says. Not: the CPU operator (kernels/prefix_attention.h), whose
// definition this is, nor the projections around it. All pointers are device memory of the caller,
// alive until the stream has done the work; prefix and rows are read in place, through strides.
#ifndef CSRM_KERNELS_CUDA_PREFIX_ATTENTION_H_
#define CSRM_KERNELS_CUDA_PREFIX_ATTENTION_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "csrm/status.h"
#include "kernels/cuda/dtype.h"

namespace csrm::kernels::cuda {

// Steps of the ladder (prefix_attention.cu). kBest is the first of kMma, kTiled, kNaive that takes
// the arguments. Versions differ in the last bits, save that kNaive and kTiled agree.
enum class AttentionVersion : int { kBest = 0, kNaive = 1, kTiled = 2, kMma = 3 };

// How kMma cuts its work. It changes the time and not one bit of the result. kWhole: a block takes
// all keys of its queries. kSplit: blocks take parts of the keys, and those of the prefix take
// queries of several batch entries; needs the workspace. kAuto chooses by the sizes.
enum class AttentionSchedule : int { kAuto = 0, kWhole = 1, kSplit = 2 };

// B = n_batch, Q = n_queries, T = n_tokens, P = n_prefix, D = head_dim. Dense row-major arrays.
// Query head h reads the keys and values of head h / (n_heads / n_kv_heads).
struct PrefixAttentionParams {
  const void* query;         // [B, Q, query_width], n_heads * D columns from query_offset on
  const void* key_value;     // [B, T, key_value_width], n_kv_heads * D from each offset on
  const void* prefix_key;    // [n_layers, n_kv_heads, P, D], read at `layer`
  const void* prefix_value;  // [n_layers, n_kv_heads, P, D]
  const int64_t* visible;    // [B, Q] own-row tokens the query sees, the first ones; < 0 counts as
                             // 0 and > T as T, because the host cannot look at them
  void* context;             // [B, Q, n_heads * D] out; zeros where a query sees nothing
  int64_t n_batch, n_queries, n_tokens, n_prefix;
  int64_t n_heads, n_kv_heads, head_dim;
  int64_t n_layers, layer;
  int64_t query_width, query_offset;
  int64_t key_value_width, key_offset, value_offset;
  float scale;  // of the products of queries and keys; finite
  DType dtype;  // of query, key_value, prefix and context; all arithmetic accumulates in fp32
  AttentionVersion version;
  AttentionSchedule schedule;
  int tile_rows;    // of kMma: 0 = chosen by the sizes, 64, or 128 (not for head_dim 128);
                    // like schedule, for tests and benches: it changes no bit
  void* workspace;  // scratch of kSplit, 16-byte aligned; may be null, then kAuto never splits
  size_t workspace_bytes;  // one call at a time may use it
};

// The version that kBest stands for. kMma takes fp16 and bf16, head_dim 32, 64 or 128, scale > 0,
// 16-byte aligned pointers and widths and offsets that are multiples of 8; kTiled takes head_dim up
// to 128, kNaive up to 256. Thread-safe.
AttentionVersion best_attention_version(const PrefixAttentionParams& params);

// The workspace that a split of these sizes needs; pointers and workspace are not looked at. 0
// where no split is possible. Grows with B * Q * n_heads * (P + T). Thread-safe.
size_t prefix_attention_workspace_bytes(const PrefixAttentionParams& params);

// Enqueues the work on `stream` of the current device and returns; allocates nothing, may be
// captured in a graph. The result of a query depends, to the bit, on its own vector and the
// sequence of keys and values it sees alone, if all keys and values that others of its row see are
// finite. Thread-safe. Errors: BadArgument, Unsupported (a version that does not take the
// arguments; nothing is enqueued), EngineFailed (CUDA's error).
Status prefix_attention(const PrefixAttentionParams& params, cudaStream_t stream);

}  // namespace csrm::kernels::cuda

#endif  // CSRM_KERNELS_CUDA_PREFIX_ATTENTION_H_
