// Runs the source of the CUDA kernels on a CPU: every thread of a block is a fiber, and warp-wide
// operations, barriers and asynchronous copies do what the PTX ISA says of them. So the checks of
// the kernels' logic (indices, masks, tails, order of sums) run where no GPU is.
// Not: a model of time, of memory races or of a GPU's rounding inside a tensor core.
// Force-included before each .cu file, whose launches translate.py has rewritten. One OS thread.
#ifndef CSRM_TESTS_CPP_CUDA_EMULATOR_EMULATOR_H_
#define CSRM_TESTS_CPP_CUDA_EMULATOR_EMULATOR_H_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <vector_functions.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

namespace emulator {

constexpr int kLanes = 32;

struct Copy {
  uint32_t to;  // offset in shared memory
  const void* from;
  bool is_read;
};

struct Thread {
  uint3 index;
  int lane, warp;
  unsigned n_meetings = 0;
  std::vector<std::vector<Copy>> copies{1};  // the last group is open
};

extern Thread* current;
extern uint3 block_index;
// The dynamic shared memory of the block that runs.
extern std::vector<unsigned char> shared_memory;

// Where a warp-wide operation was written: lanes that meet must have come from the same one.
enum class Operation { kShuffle, kReduce, kVote, kSyncWarp, kLoad, kMultiply };

constexpr size_t kSlotBytes = 48;
// Waits for all lanes of the warp; the n <= kSlotBytes bytes of lane i are then at i * kSlotBytes,
// until this lane leaves.
const unsigned char* meet(Operation operation, const void* in, size_t n);
void leave();
void sync_threads();
// Runs body once per thread of each block.
void run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body);
// Stops the program: a kernel did what a GPU does not define.
[[noreturn]] void fail(const char* what);

template <typename T>
std::array<T, kLanes> exchanged(Operation operation, const T& in) {
  static_assert(sizeof(T) <= kSlotBytes);
  const unsigned char* slots = meet(operation, &in, sizeof(T));
  std::array<T, kLanes> out;
  for (int i = 0; i < kLanes; ++i) std::memcpy(&out[i], slots + i * kSlotBytes, sizeof(T));
  leave();
  return out;
}

template <typename T>
T from_lane(const T& in, int lane) {
  T out;
  std::memcpy(&out, meet(Operation::kShuffle, &in, sizeof(T)) + lane * kSlotBytes, sizeof(T));
  leave();
  return out;
}

// kernel<<<grid, block, bytes, stream>>>(arguments) as launch(kernel, ...)(arguments).
template <typename... Parameters>
auto launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t bytes, cudaStream_t) {
  return [=](std::remove_const_t<Parameters>... arguments) {
    run_grid(grid, block, bytes, [&] { kernel(arguments...); });
  };
}

}  // namespace emulator

// The words of CUDA C++.
#undef __shared__
#define __shared__ static
#undef __launch_bounds__
#define __launch_bounds__(...)
#define threadIdx (::emulator::current->index)
#define blockIdx (::emulator::block_index)

using std::max;
using std::min;

inline void __syncthreads() { emulator::sync_threads(); }
inline void __syncwarp() { emulator::exchanged(emulator::Operation::kSyncWarp, 0); }
template <typename T>
T __shfl_xor_sync(unsigned, T x, int mask) {
  return emulator::from_lane(x, emulator::current->lane ^ mask);
}
template <typename T>
T __shfl_sync(unsigned, T x, int lane) {
  return emulator::from_lane(x, lane % emulator::kLanes);
}
inline int __reduce_min_sync(unsigned, int x) {
  const auto all = emulator::exchanged(emulator::Operation::kReduce, x);
  return *std::min_element(all.begin(), all.end());
}
inline int __reduce_max_sync(unsigned, int x) {
  const auto all = emulator::exchanged(emulator::Operation::kReduce, x);
  return *std::max_element(all.begin(), all.end());
}
inline int __any_sync(unsigned, int x) {
  const auto all = emulator::exchanged(emulator::Operation::kVote, x);
  return std::any_of(all.begin(), all.end(), [](int y) { return y != 0; });
}
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fadd_rn(float x, float y) { return x + y; }

template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int bytes) {
  return bytes <= 99 * 1024 ? cudaSuccess : cudaErrorInvalidValue;  // what every GPU has
}

#endif  // CSRM_TESTS_CPP_CUDA_EMULATOR_EMULATOR_H_
