// AddNorm on a GPU: z = x + residual; y = LayerNorm(z) * weight + bias, or y = RMSNorm(z) * weight,
// and z itself where it is wanted.
//
// A row is read once, into registers, and written once: the kernel moves 3 N elements per row, or 4
// with z, and is bound by memory. A thread holds up to kPacks packs of 4 neighbouring elements;
// pack k of a row belongs to thread k % (threads of the row). Rows of up to 512 elements have a
// warp each and need no barrier; wider ones have a block of up to 32 warps. 3 packs fit the rows of
// 384 and 768. A residual of fp32 beside x and y of 16 bits is the same text with another type. The
// kind of norm and what is left out are uniform branches, not versions, because the memory is the
// bound either way (RMSNorm and the fp32 residual have not been timed on a GPU).
#include <cmath>
#include <string>

#include "kernels/cuda/add_norm.h"
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/pack.cuh"

namespace csrm::kernels::cuda {
namespace {

constexpr char kName[] = "AddNorm";
constexpr int kRowsPerBlock = 4;  // of rows that have a warp each
constexpr int kMaxWarps = 32;

// The sum of x over the threads of a row: a warp, or the n_warps warps of the block.
__device__ inline float row_sum(float x, int n_warps, float* partial) {
  x = warp_sum(x);
  if (n_warps == 1) return x;
  __syncthreads();  // whoever read `partial` before is done
  if (threadIdx.x % kWarpSize == 0) partial[threadIdx.x / kWarpSize] = x;
  __syncthreads();
  float sum = 0;
  for (int w = 0; w < n_warps; ++w) sum += partial[w];
  return sum;
}

// n_warps per row. With one, a block has kRowsPerBlock rows; else one row and n_warps warps.
// R: of residual and sum.
template <typename T, typename R, bool kWholePacks, int kPacks>
__global__ void __launch_bounds__(kMaxWarps* kWarpSize)
    add_norm_kernel(const AddNormParams p, const int n_warps) {
  __shared__ float partial[kMaxWarps];
  const int n = static_cast<int>(p.n_columns);
  const int n_threads = n_warps * kWarpSize;
  const int64_t row =
      n_warps == 1 ? static_cast<int64_t>(blockIdx.x) * kRowsPerBlock + threadIdx.x / kWarpSize
                   : static_cast<int64_t>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x) % n_threads;
  if (row >= p.n_rows) return;  // whole warps of single-warp rows only: no barrier follows
  const int64_t at = row * n;
  const T* x = static_cast<const T*>(p.x) + at;

  float z[kPacks][kPack];
  float sum = 0;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int first = (k * n_threads + thread) * kPack;
    load_pack<T, kWholePacks>(x, first, n, z[k]);
    if (p.residual != nullptr) {
      float other[kPack];
      load_pack<R, kWholePacks>(static_cast<const R*>(p.residual) + at, first, n, other);
#pragma unroll
      for (int j = 0; j < kPack; ++j) z[k][j] = __fadd_rn(z[k][j], other[j]);
    }
    if (p.sum != nullptr) {
      store_pack<R, kWholePacks>(z[k], static_cast<R*>(p.sum) + at, first, n);
    }
#pragma unroll
    for (int j = 0; j < kPack; ++j) sum += z[k][j];
  }
  const float mean = p.is_rms ? 0.0f : row_sum(sum, n_warps, partial) / static_cast<float>(n);
  float squares = 0;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int first = (k * n_threads + thread) * kPack;
#pragma unroll
    for (int j = 0; j < kPack; ++j) {
      const float centred = first + j < n ? z[k][j] - mean : 0.0f;
      squares = __fmaf_rn(centred, centred, squares);
    }
  }
  const float variance = row_sum(squares, n_warps, partial) / static_cast<float>(n);
  const float scale = 1.0f / sqrtf(variance + p.epsilon);
  T* y = static_cast<T*>(p.y) + at;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int first = (k * n_threads + thread) * kPack;
    float weight[kPack], bias[kPack] = {};
    load_pack<float, kWholePacks>(p.weight, first, n, weight);
    if (!p.is_rms) load_pack<float, kWholePacks>(p.bias, first, n, bias);
#pragma unroll
    for (int j = 0; j < kPack; ++j) {
      z[k][j] = __fmaf_rn(__fmul_rn(z[k][j] - mean, scale), weight[j], bias[j]);
    }
    store_pack<T, kWholePacks>(z[k], y, first, n);
  }
}

template <typename T, typename R, int kPacks>
void launch_packs(const AddNormParams& p, cudaStream_t stream) {
  constexpr int64_t kWarpElements = kWarpSize * kPack * kPacks;
  const int n_warps = static_cast<int>((p.n_columns + kWarpElements - 1) / kWarpElements);
  const int64_t n_blocks = n_warps == 1 ? (p.n_rows + kRowsPerBlock - 1) / kRowsPerBlock : p.n_rows;
  const auto grid = static_cast<unsigned>(n_blocks);
  const unsigned block = (n_warps == 1 ? kRowsPerBlock : n_warps) * kWarpSize;
  const bool is_whole = p.n_columns % kPack == 0 && takes_packs<T>(p.x) &&
                        takes_packs<R>(p.residual) && takes_packs<T>(p.y) &&
                        takes_packs<R>(p.sum) && takes_packs<float>(p.weight) &&
                        takes_packs<float>(p.bias);
  if (is_whole) {
    add_norm_kernel<T, R, true, kPacks><<<grid, block, 0, stream>>>(p, n_warps);
  } else {
    add_norm_kernel<T, R, false, kPacks><<<grid, block, 0, stream>>>(p, n_warps);
  }
}

template <typename T, typename R>
void launch(const AddNormParams& p, cudaStream_t stream) {
  constexpr int64_t kThreePacks = kWarpSize * kPack * 3;
  if (p.n_columns % kThreePacks == 0 && p.n_columns <= kThreePacks * kMaxWarps) {
    launch_packs<T, R, 3>(p, stream);
  } else {
    launch_packs<T, R, 4>(p, stream);
  }
}

Status bad_argument(const std::string& message) {
  return {Code::kBadArgument, std::string(kName) + ": " + message};
}

Status check(const AddNormParams& p) {
  if (p.n_rows < 0 || p.n_rows > kMaxGridX || p.n_columns < 1 || p.n_columns > kMaxNormColumns) {
    return bad_argument("x has " + std::to_string(p.n_rows) + " rows of " +
                        std::to_string(p.n_columns) + "; give up to 2^31 - 1 rows of 1 to " +
                        std::to_string(kMaxNormColumns) + " elements");
  }
  if (!std::isfinite(p.epsilon) || p.epsilon < 0) {
    return bad_argument("epsilon is " + std::to_string(p.epsilon) + "; it must be finite and >= 0");
  }
  if ((p.n_rows > 0 && (!p.x || !p.y)) || !p.weight) {
    return bad_argument("a pointer is null; give x, y and weight of AddNormParams");
  }
  if (p.is_rms != (p.bias == nullptr)) {
    return bad_argument("LayerNorm needs a bias and RMSNorm has none");
  }
  if (p.sum != nullptr && p.residual == nullptr && p.n_rows > 0) {
    return bad_argument("nothing is added, so there is no sum; leave it out");
  }
  return Status::success();
}

}  // namespace

Status add_norm(const AddNormParams& params, cudaStream_t stream) {
  if (Status status = check(params); !status.ok()) return status;
  if (params.n_rows == 0) return Status::success();
  return launch_for(params.dtype, kName, [&](auto element) {
    using T = decltype(element);
    if (params.has_wide_residual) {
      launch<T, float>(params, stream);
    } else {
      launch<T, T>(params, stream);
    }
  });
}

}  // namespace csrm::kernels::cuda
