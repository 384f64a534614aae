// PrefixAttention on a GPU: checks, and which version runs. For each row (a query of one head)
//   context = softmax(scale * query . keys) values, over the prefix, then the own row as far as
//   `visible` says, in one pass over the keys with a running maximum.
//
// The ladder; every step stays selectable (AttentionVersion) and is timed by tests/cpp/cuda:
//   1. kNaive: a warp per row, keys and values from device memory. Each key is read once per row.
//   2. kTiled: 32 rows share a block of 32 keys in shared memory; fp32 arithmetic on plain cores.
//      The version for fp32 and for odd sizes.
//   3. kMma, kWhole: both products on tensor cores (mma.sync, from sm_80 on), the next block of
//   keys
//      is copied while one is computed on. 64 rows share a block of keys, or 128 where there are
//      enough of them and their sums fit the registers.
//   4. kMma, kSplit: as many blocks as there are parts of keys, so that one request fills the
//      machine; parts of the prefix take rows of the whole batch, so that one token per request
//      (the pooled last layer, a decoder's cue) still makes full tiles and reads the prefix once
//      per 64 or 128 of them. A second kernel merges. Parts are the same in step 3, so are the
//      bits.
#include <cmath>
#include <string>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/prefix_attention.h"
#include "kernels/cuda/prefix_attention_launch.h"

namespace csrm::kernels::cuda {
namespace {

constexpr char kName[] = "PrefixAttention";
constexpr int64_t kMaxCount = 1 << 30;  // of anything that a kernel counts in an int

Status bad_argument(const std::string& message) {
  return {Code::kBadArgument, std::string(kName) + ": " + message};
}

Status check_sizes(const PrefixAttentionParams& p) {
  if (p.n_batch < 0 || p.n_queries < 0 || p.n_tokens < 0 || p.n_prefix < 0) {
    return bad_argument("a batch, query, token or prefix count is negative; give sizes >= 0");
  }
  if (p.n_heads < 1 || p.n_kv_heads < 1 || p.n_heads % p.n_kv_heads != 0 ||
      p.n_kv_heads > kMaxGridY) {
    return bad_argument(std::to_string(p.n_heads) + " heads over " + std::to_string(p.n_kv_heads) +
                        " heads of keys; both must be >= 1, the first a multiple of the other");
  }
  if (p.head_dim < 1 || p.head_dim > kMaxNaiveDim) {
    return bad_argument("head_dim is " + std::to_string(p.head_dim) + "; it must be in 1 to " +
                        std::to_string(kMaxNaiveDim));
  }
  const int64_t sharing = p.n_heads / p.n_kv_heads;
  if (p.n_prefix > kMaxCount || p.n_tokens > kMaxCount || sharing > kMaxCount ||
      p.n_queries > kMaxCount / sharing ||
      (p.n_queries > 0 && p.n_batch > kMaxCount / (p.n_queries * sharing))) {
    return bad_argument("more than 2^30 keys or queries; split the batch");
  }
  if (p.layer < 0 || p.layer >= p.n_layers) {
    return bad_argument("layer is " + std::to_string(p.layer) + "; the prefix has " +
                        std::to_string(p.n_layers) + " layers");
  }
  if (!std::isfinite(p.scale)) return bad_argument("scale is not finite");
  return Status::success();
}

Status check_columns(const char* name, int64_t offset, int64_t n, int64_t width) {
  if (offset >= 0 && offset <= width - n) return Status::success();
  return bad_argument(std::string(name) + " is " + std::to_string(offset) + " and " +
                      std::to_string(n) + " columns are read; the tensor has " +
                      std::to_string(width));
}

Status check_pointers(const PrefixAttentionParams& p) {
  const bool has_queries = p.n_batch * p.n_queries == 0 || (p.query && p.visible && p.context);
  const bool has_keys = p.n_batch * p.n_tokens == 0 || p.key_value;
  const bool has_prefix = p.n_prefix == 0 || (p.prefix_key && p.prefix_value);
  if (has_queries && has_keys && has_prefix) return Status::success();
  return bad_argument("a pointer is null; give every array of PrefixAttentionParams");
}

Status check(const PrefixAttentionParams& p) {
  if (Status status = check_sizes(p); !status.ok()) return status;
  const int64_t own_width = p.n_kv_heads * p.head_dim;
  for (Status status :
       {check_columns("query_offset", p.query_offset, p.n_heads * p.head_dim, p.query_width),
        check_columns("key_offset", p.key_offset, own_width, p.key_value_width),
        check_columns("value_offset", p.value_offset, own_width, p.key_value_width),
        check_pointers(p)}) {
    if (!status.ok()) return status;
  }
  if (p.dtype != DType::kFloat32 && p.dtype != DType::kFloat16 && p.dtype != DType::kBFloat16) {
    return bad_argument("dtype is not one of DType");
  }
  if (p.tile_rows != 0 && p.tile_rows != kSmallTileRows &&
      (p.tile_rows != 2 * kSmallTileRows || p.head_dim == 128)) {
    return bad_argument("tile_rows is " + std::to_string(p.tile_rows) + "; give 0, 64 or 128");
  }
  return Status::success();
}

bool mma_takes(const PrefixAttentionParams& p) {
  if (p.dtype == DType::kFloat32 || !(p.scale > 0)) return false;
  if (p.head_dim != 32 && p.head_dim != 64 && p.head_dim != 128) return false;
  const int64_t columns =
      p.query_width | p.query_offset | p.key_value_width | p.key_offset | p.value_offset;
  if (columns % 8 != 0) return false;
  for (const void* pointer :
       {p.query, p.key_value, p.prefix_key, p.prefix_value, static_cast<const void*>(p.context)}) {
    if (!is_aligned(pointer, 16)) return false;
  }
  return true;
}

bool version_takes(const PrefixAttentionParams& p, AttentionVersion version) {
  switch (version) {
    case AttentionVersion::kMma:
      return mma_takes(p);
    case AttentionVersion::kTiled:
      return p.head_dim <= kMaxTiledDim;
    case AttentionVersion::kNaive:
      return p.head_dim <= kMaxNaiveDim;
    default:
      return false;
  }
}

Status run_mma(const PrefixAttentionParams& p, cudaStream_t stream) {
  const size_t needed = prefix_attention_workspace_bytes(p);
  const bool has_workspace = needed > 0 && p.workspace != nullptr && is_aligned(p.workspace, 16) &&
                             p.workspace_bytes >= needed;
  const bool must_split = p.schedule == AttentionSchedule::kSplit;
  if (must_split && needed > 0 && !has_workspace) {
    return bad_argument("the workspace has " + std::to_string(p.workspace_bytes) +
                        " bytes; a split needs " + std::to_string(needed) + ", 16-byte aligned");
  }
  int device = 0, n_processors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&n_processors, cudaDevAttrMultiProcessorCount, device);
  }
  if (error != cudaSuccess) return cuda_status(kName, error);
  const bool may_split = has_workspace && p.schedule != AttentionSchedule::kWhole;
  AttentionPlan plan =
      attention_plan(attention_cut(p, kSmallTileRows), static_cast<int>(p.head_dim),
                     static_cast<int>(p.n_kv_heads), n_processors, may_split, must_split);
  if (p.tile_rows != 0) plan.tile_rows = p.tile_rows;
  const AttentionCut cut = attention_cut(p, plan.tile_rows);
  if ((plan.is_split ? cut.split_blocks() : cut.whole_blocks()) > kMaxGridX) {
    return bad_argument("more than 2^31 - 1 blocks; split the batch");
  }
  return cuda_status(kName, p.dtype == DType::kFloat16 ? launch_attention_fp16(p, plan, stream)
                                                       : launch_attention_bf16(p, plan, stream));
}

}  // namespace

AttentionVersion best_attention_version(const PrefixAttentionParams& params) {
  if (mma_takes(params)) return AttentionVersion::kMma;
  return params.head_dim <= kMaxTiledDim ? AttentionVersion::kTiled : AttentionVersion::kNaive;
}

size_t prefix_attention_workspace_bytes(const PrefixAttentionParams& params) {
  if (!check_sizes(params).ok()) return 0;
  const AttentionCut cut = attention_cut(params, kSmallTileRows);
  if (cut.n_parts() < 2) return 0;
  const size_t rows = static_cast<size_t>(cut.n_batch) * static_cast<size_t>(cut.rows_per_entry);
  const size_t results = rows * static_cast<size_t>(params.n_kv_heads * cut.n_parts());
  return results * (static_cast<size_t>(params.head_dim) + 2) * sizeof(float);
}

Status prefix_attention(const PrefixAttentionParams& params, cudaStream_t stream) {
  if (Status status = check(params); !status.ok()) return status;
  if (params.n_batch * params.n_queries == 0) return Status::success();
  AttentionVersion version = params.version;
  if (version == AttentionVersion::kBest) version = best_attention_version(params);
  if (!version_takes(params, version)) {
    return {Code::kUnsupported, std::string(kName) +
                                    ": this version does not take the type, sizes or alignment; "
                                    "give AttentionVersion::kBest"};
  }
  switch (version) {
    case AttentionVersion::kMma:
      return run_mma(params, stream);
    case AttentionVersion::kTiled:
      return cuda_status(kName, launch_attention_tiled(params, stream));
    default:
      return cuda_status(kName, launch_attention_naive(params, stream));
  }
}

}  // namespace csrm::kernels::cuda
