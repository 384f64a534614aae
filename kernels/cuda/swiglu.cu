// SwiGlu on a GPU: y = silu(gate) * up.
//
// One pass, bound by memory: 2 N elements of a row are read and N written, an exponential each. A
// thread has one pack of four elements of gate and of up (8 bytes of fp16), the next thread the
// next one. silu(g) is g / (1 + e) of a positive g and g * e / (1 + e) of a negative one, e =
// exp(-|g|), as on the CPU: no exponential overflows, and the smallest results stay right.
// Not done: as the end of the product before it, which is cuBLAS's. Not timed on a GPU yet; packs
// of 16 bytes are the next thing to try.
#include <cmath>
#include <string>

#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/swiglu.h"

namespace csrm::kernels::cuda {
namespace {

constexpr char kName[] = "SwiGlu";
constexpr int kThreads = 256;

int64_t packs_of_row(const SwiGluParams& p) { return (p.n_columns + kPack - 1) / kPack; }
int64_t blocks_of(const SwiGluParams& p) {
  return (p.n_rows * packs_of_row(p) + kThreads - 1) / kThreads;
}

template <typename T, bool kWholePacks>
__global__ void __launch_bounds__(kThreads) swiglu_kernel(const SwiGluParams p, const int n_packs) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t row = i / n_packs;
  if (row >= p.n_rows) return;
  const int first = static_cast<int>(i % n_packs) * kPack, n = static_cast<int>(p.n_columns);
  const T* gates = static_cast<const T*>(p.x) + row * 2 * n;
  float gate[kPack], up[kPack];
  load_pack<T, kWholePacks>(gates, first, n, gate);
  load_pack<T, kWholePacks>(gates + n, first, n, up);
#pragma unroll
  for (int j = 0; j < kPack; ++j) {
    const float e = expf(-fabsf(gate[j]));
    const float top = gate[j] < 0 ? gate[j] * e : gate[j];
    gate[j] = top / (1.0f + e) * up[j];
  }
  store_pack<T, kWholePacks>(gate, static_cast<T*>(p.y) + row * n, first, n);
}

template <typename T>
void launch(const SwiGluParams& p, cudaStream_t stream) {
  const auto n_blocks = static_cast<unsigned>(blocks_of(p));
  const int n_packs = static_cast<int>(packs_of_row(p));
  if (p.n_columns % kPack == 0 && takes_packs<T>(p.x) && takes_packs<T>(p.y)) {
    swiglu_kernel<T, true><<<n_blocks, kThreads, 0, stream>>>(p, n_packs);
  } else {
    swiglu_kernel<T, false><<<n_blocks, kThreads, 0, stream>>>(p, n_packs);
  }
}

Status check(const SwiGluParams& p) {
  const std::string name = std::string(kName) + ": ";
  if (p.n_rows < 0 || p.n_columns < 1 || p.n_columns > kMaxSwiGluColumns) {
    return {Code::kBadArgument, name + "y has " + std::to_string(p.n_rows) + " rows of " +
                                    std::to_string(p.n_columns) + "; rows must have 1 to " +
                                    std::to_string(kMaxSwiGluColumns) + " elements"};
  }
  if (p.n_rows > kMaxGridX * kThreads / packs_of_row(p)) {
    return {Code::kBadArgument, name + "more than 2^31 - 1 blocks; split the batch"};
  }
  if (p.n_rows > 0 && (!p.x || !p.y)) {
    return {Code::kBadArgument, name + "a pointer is null; give every array of SwiGluParams"};
  }
  return Status::success();
}

}  // namespace

Status swiglu(const SwiGluParams& params, cudaStream_t stream) {
  if (Status status = check(params); !status.ok()) return status;
  if (params.n_rows == 0) return Status::success();
  return launch_for(params.dtype, kName,
                    [&](auto element) { launch<decltype(element)>(params, stream); });
}

}  // namespace csrm::kernels::cuda
