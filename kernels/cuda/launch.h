// From a CUDA error to a Status, and the limits of a launch. Host code of the CUDA kernels only.
// Not: a launch itself. Every launch is followed by launched(), so none goes unchecked.
#ifndef CSRM_KERNELS_CUDA_LAUNCH_H_
#define CSRM_KERNELS_CUDA_LAUNCH_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

#include "csrm/status.h"

namespace csrm::kernels::cuda {

constexpr int64_t kMaxGridX = 2147483647;
constexpr int64_t kMaxGridY = 65535;

// EngineFailed with the driver's words, or success.
inline Status cuda_status(const char* operator_name, cudaError_t error) {
  if (error == cudaSuccess) return Status::success();
  return {Code::kEngineFailed, std::string(operator_name) + ": CUDA error " +
                                   std::to_string(static_cast<int>(error)) + ", " +
                                   cudaGetErrorString(error)};
}

// The outcome of the launch just made (or of an asynchronous failure before it).
inline Status launched(const char* operator_name) {
  return cuda_status(operator_name, cudaGetLastError());
}

inline bool is_aligned(const void* pointer, size_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0;
}

}  // namespace csrm::kernels::cuda

#endif  // CSRM_KERNELS_CUDA_LAUNCH_H_
