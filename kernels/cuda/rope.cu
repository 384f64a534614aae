// Rope on a GPU: for each row, head and i < D / 2, with a = position * frequency[i] in fp32,
//   y[i] = x[i] cos a - x[i + D / 2] sin a;  y[i + D / 2] = x[i + D / 2] cos a + x[i] sin a
// of the heads, or of RMSNorm(head) * weight. Columns behind the heads are copied.
//
// A block per row, for all heads of a row share its angles: they are taken once, into shared
// memory, by as many threads as there are; with norms a warp per head sums its squares meanwhile.
// Then every thread turns packs of four pairs, so that neighbours load 8 (fp16) or 16 bytes each.
// A row is read once, twice with norms (the second time from L1), and written once.
// Dropped before it was written: a thread per pair, which takes each cosine once per head (9 to 40
// times) and loads two bytes at a time. Not done: angles once for all layers; the operator's inputs
// are the CPU's. Nothing of this has been timed on a GPU.
#include <cmath>
#include <string>

#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/rope.h"

namespace csrm::kernels::cuda {
namespace {

constexpr char kName[] = "Rope";
constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpSize;

// What a block keeps of its row, in this order: cosines and sines [D / 2], scales [H] of the norm.
struct RowMemory {
  float* cosines;
  float* sines;
  float* scales;
};
size_t row_memory_bytes(const RopeParams& p) {
  return static_cast<size_t>(p.head_dim + p.n_heads) * sizeof(float);
}

// x, or NaN where T would be infinite.
template <typename T>
__device__ inline float finite_in(float x) {
  return fabsf(to_float(from_float<T>(x))) == INFINITY ? NAN : x;
}

// 1 / sqrt(mean square + epsilon) of every head of the row x, a warp per head.
template <typename T>
__device__ inline void take_scales(const RopeParams& p, const T* x, float* scales) {
  const int dim = static_cast<int>(p.head_dim), lane = threadIdx.x % kWarpSize;
  for (int head = threadIdx.x / kWarpSize; head < p.n_heads; head += kWarps) {
    float square = 0;
    for (int i = lane; i < dim; i += kWarpSize) {
      const float one = to_float(x[head * dim + i]);
      square = __fmaf_rn(one, one, square);
    }
    square = warp_sum(square);
    if (lane == 0) scales[head] = 1.0f / sqrtf(square / static_cast<float>(dim) + p.epsilon);
  }
}

// Four pairs of a head: elements first .. first + 3 of both its halves.
template <typename T, bool kWholePacks>
__device__ inline void turn_pack(const RopeParams& p, const RowMemory& row, const T* x, int head,
                                 int first, T* y) {
  const int half = static_cast<int>(p.head_dim) / 2, at = head * 2 * half;
  float left[kPack], right[kPack], cosine[kPack], sine[kPack];
  load_pack<T, kWholePacks>(x + at, first, half, left);
  load_pack<T, kWholePacks>(x + at + half, first, half, right);
  load_pack<float, kWholePacks>(row.cosines, first, half, cosine);
  load_pack<float, kWholePacks>(row.sines, first, half, sine);
  if (p.weight != nullptr) {
    float of_left[kPack], of_right[kPack];
    load_pack<float, kWholePacks>(p.weight + at, first, half, of_left);
    load_pack<float, kWholePacks>(p.weight + at + half, first, half, of_right);
    const float scale = row.scales[head];
#pragma unroll
    for (int j = 0; j < kPack; ++j) {
      left[j] = __fmul_rn(__fmul_rn(left[j], scale), of_left[j]);
      right[j] = __fmul_rn(__fmul_rn(right[j], scale), of_right[j]);
    }
  }
#pragma unroll
  for (int j = 0; j < kPack; ++j) {
    const float turned = __fmaf_rn(left[j], cosine[j], -__fmul_rn(right[j], sine[j]));
    right[j] = finite_in<T>(__fmaf_rn(right[j], cosine[j], __fmul_rn(left[j], sine[j])));
    left[j] = finite_in<T>(turned);
  }
  store_pack<T, kWholePacks>(left, y + at, first, half);
  store_pack<T, kWholePacks>(right, y + at + half, first, half);
}

template <typename T, bool kWholePacks>
__global__ void __launch_bounds__(kThreads) rope_kernel(const RopeParams p) {
  extern __shared__ __align__(16) unsigned char shared[];
  const int half = static_cast<int>(p.head_dim) / 2, n_heads = static_cast<int>(p.n_heads);
  const int n_columns = static_cast<int>(p.n_columns);
  float* const memory = reinterpret_cast<float*>(shared);
  const RowMemory row{memory, memory + half, memory + 2 * half};
  const int64_t at = static_cast<int64_t>(blockIdx.x) * n_columns;
  const T* x = static_cast<const T*>(p.x) + at;
  T* y = static_cast<T*>(p.y) + at;

  const float position = static_cast<float>(p.positions[blockIdx.x]);
  for (int i = threadIdx.x; i < half; i += kThreads) {
    sincosf(__fmul_rn(position, p.frequencies[i]), &row.sines[i], &row.cosines[i]);
  }
  if (p.weight != nullptr) take_scales<T>(p, x, row.scales);
  __syncthreads();
  const int n_packs = (half + kPack - 1) / kPack;
  for (int i = threadIdx.x; i < n_heads * n_packs; i += kThreads) {
    turn_pack<T, kWholePacks>(p, row, x, i / n_packs, i % n_packs * kPack, y);
  }
  if (x == y) return;
  const int width = n_heads * 2 * half;
  for (int i = width + static_cast<int>(threadIdx.x) * kPack; i < n_columns;
       i += kThreads * kPack) {
    float rest[kPack];
    load_pack<T, kWholePacks>(x, i, n_columns, rest);
    store_pack<T, kWholePacks>(rest, y, i, n_columns);
  }
}

template <typename T>
void launch(const RopeParams& p, cudaStream_t stream) {
  const auto n_blocks = static_cast<unsigned>(p.n_rows);
  const size_t bytes = row_memory_bytes(p);
  const bool is_whole = p.head_dim / 2 % kPack == 0 && p.n_columns % kPack == 0 &&
                        takes_packs<T>(p.x) && takes_packs<T>(p.y) && takes_packs<float>(p.weight);
  if (is_whole) {
    rope_kernel<T, true><<<n_blocks, kThreads, bytes, stream>>>(p);
  } else {
    rope_kernel<T, false><<<n_blocks, kThreads, bytes, stream>>>(p);
  }
}

Status bad_argument(const std::string& message) {
  return {Code::kBadArgument, std::string(kName) + ": " + message};
}

Status check(const RopeParams& p) {
  if (p.head_dim < 2 || p.head_dim > kMaxRopeDim || p.head_dim % 2 != 0) {
    return bad_argument("head_dim is " + std::to_string(p.head_dim) +
                        "; it must be even and in 2 to " + std::to_string(kMaxRopeDim));
  }
  if (p.n_rows < 0 || p.n_rows > kMaxGridX || p.n_columns > kMaxRopeColumns) {
    return bad_argument("x has " + std::to_string(p.n_rows) + " rows of " +
                        std::to_string(p.n_columns) + "; give up to 2^31 - 1 rows of up to 2^30");
  }
  if (p.n_heads < 1 || p.n_heads > kMaxRopeHeads || p.n_heads > p.n_columns / p.head_dim) {
    return bad_argument("x has rows of " + std::to_string(p.n_columns) + "; they must hold " +
                        std::to_string(p.n_heads) + " heads of " + std::to_string(p.head_dim) +
                        ", and 1 to " + std::to_string(kMaxRopeHeads));
  }
  if (!std::isfinite(p.epsilon) || p.epsilon < 0) {
    return bad_argument("epsilon is " + std::to_string(p.epsilon) + "; it must be finite and >= 0");
  }
  if ((p.n_rows > 0 && (!p.x || !p.positions || !p.y)) || !p.frequencies) {
    return bad_argument("a pointer is null; give every array of RopeParams but weight");
  }
  return Status::success();
}

}  // namespace

Status rope(const RopeParams& params, cudaStream_t stream) {
  if (Status status = check(params); !status.ok()) return status;
  if (params.n_rows == 0) return Status::success();
  return launch_for(params.dtype, kName,
                    [&](auto element) { launch<decltype(element)>(params, stream); });
}

}  // namespace csrm::kernels::cuda
