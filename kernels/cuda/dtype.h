// The element types that the CUDA kernels read and write.
// Not: the arithmetic, which is in fp32 whatever the type of the elements.
#ifndef CSRM_KERNELS_CUDA_DTYPE_H_
#define CSRM_KERNELS_CUDA_DTYPE_H_

#include <cstddef>

namespace csrm::kernels::cuda {

enum class DType : int { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2 };

constexpr size_t dtype_bytes(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

// "fp32", "fp16" or "bf16"; static storage.
constexpr const char* dtype_name(DType dtype) {
  return dtype == DType::kFloat32 ? "fp32" : dtype == DType::kFloat16 ? "fp16" : "bf16";
}

}  // namespace csrm::kernels::cuda

#endif  // CSRM_KERNELS_CUDA_DTYPE_H_
