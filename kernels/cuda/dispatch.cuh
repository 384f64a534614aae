// From the element type of a call to the launch compiled for it. Host code.
// Not: the launch itself, which each kernel's file makes.
#ifndef CSRM_KERNELS_CUDA_DISPATCH_CUH_
#define CSRM_KERNELS_CUDA_DISPATCH_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <string>

#include "kernels/cuda/dtype.h"
#include "kernels/cuda/launch.h"

namespace csrm::kernels::cuda {

// Calls `launch` with a value of the type that `dtype` names; the outcome of the launch.
// BadArgument for a dtype that is none.
template <typename Launch>
Status launch_for(DType dtype, const char* operator_name, Launch launch) {
  switch (dtype) {
    case DType::kFloat32:
      launch(float{});
      break;
    case DType::kFloat16:
      launch(__half{});
      break;
    case DType::kBFloat16:
      launch(__nv_bfloat16{});
      break;
    default:
      return {Code::kBadArgument, std::string(operator_name) + ": dtype is not one of DType"};
  }
  return launched(operator_name);
}

}  // namespace csrm::kernels::cuda

#endif  // CSRM_KERNELS_CUDA_DISPATCH_CUH_
