// The operators of domain "csrm" on a GPU, for ONNX Runtime's CUDA provider: one function and one
// ort_*_cuda.cc file each, one operator for each type of its states (the engine takes the one that
// fits a graph). Names, inputs and attributes are those of the CPU's operators (kernels/ort_*.cc),
// save KeysValues, which the CPU has not.
// Not: kernels. Objects are made on first use and never destroyed: sessions may outlive any static.
#ifndef CSRM_KERNELS_CUDA_ORT_OPERATORS_CUDA_H_
#define CSRM_KERNELS_CUDA_ORT_OPERATORS_CUDA_H_

#include <cuda_runtime_api.h>

#include "kernels/cuda/dtype.h"
#include "kernels/ort_tensor.h"

namespace csrm::kernels::cuda {

// Whose operators they are: the CUDA provider's, save in the emulator's build, which runs the same
// sources on the CPU.
#if defined(CSRM_CUDA_EMULATED)
constexpr char kProvider[] = "CPUExecutionProvider";
constexpr char kMemoryName[] = "Cpu";
#else
constexpr char kProvider[] = "CUDAExecutionProvider";
constexpr char kMemoryName[] = "Cuda";
#endif

constexpr ONNXTensorElementDataType element_type(DType dtype) {
  return dtype == DType::kFloat32   ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
         : dtype == DType::kFloat16 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16
                                    : ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
}

// The type of an operator's states: of its first input.
inline DType dtype_of(const OperatorSpec& spec) {
  for (const DType dtype : {DType::kFloat16, DType::kBFloat16}) {
    if (spec.inputs[0].type == element_type(dtype)) return dtype;
  }
  return DType::kFloat32;
}

inline cudaStream_t stream_of(const Call& call) {
  return static_cast<cudaStream_t>(call.gpu_stream());
}

template <typename Kernel, typename Spec>
const OrtCustomOp& operator_with() {
  static const Operator* const op = new Operator(make_operator<Kernel>(Spec::kSpec));
  return *op;
}

// The operator of `dtype` among those that Spec describes, a struct with a constant kSpec.
template <typename Kernel, template <DType> class Spec>
const OrtCustomOp& operator_for(DType dtype) {
  switch (dtype) {
    case DType::kFloat16:
      return operator_with<Kernel, Spec<DType::kFloat16>>();
    case DType::kBFloat16:
      return operator_with<Kernel, Spec<DType::kBFloat16>>();
    default:
      return operator_with<Kernel, Spec<DType::kFloat32>>();
  }
}

const OrtCustomOp& add_norm_operator(DType dtype);
const OrtCustomOp& keys_values_operator(DType dtype);
const OrtCustomOp& prefix_attention_operator(DType dtype);
const OrtCustomOp& reward_head_operator(DType dtype);
const OrtCustomOp& rope_operator(DType dtype);
const OrtCustomOp& swiglu_operator(DType dtype);
// AddNorm whose residual and sum are fp32 beside states of fp16 or bf16.
const OrtCustomOp& wide_add_norm_operator(DType dtype);

}  // namespace csrm::kernels::cuda

#endif  // CSRM_KERNELS_CUDA_ORT_OPERATORS_CUDA_H_
