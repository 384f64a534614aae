// AddNorm as a TensorRT plugin: shapes and types of its tensors, then the launch of
// kernels/cuda/add_norm.h. Inputs and attributes are those of the ONNX operator (ort_add_norm.cc):
// x and residual [..., N] in fp32, fp16 or bf16, weight and bias [N] fp32.
#include <cmath>

#include "kernels/cuda/add_norm.h"
#include "trt_plugin.h"

namespace csrm::kernels::tensorrt {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;

enum Input : int32_t { kX, kResidual, kWeight, kBias };

struct AddNorm {
  static constexpr char kName[] = "AddNorm";
  static constexpr int32_t kInputs = 4;
  static constexpr int32_t kOutputs = 1;

  float epsilon = 0;

  std::vector<Attribute> attributes() { return {{"epsilon", nullptr, &epsilon}}; }

  Status check() const {
    if (std::isfinite(epsilon) && epsilon >= 0) return Status::success();
    return bad_argument(kName, "epsilon must be finite and >= 0");
  }

  bool takes(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors) const {
    const nvinfer1::PluginTensorDesc& tensor = tensors[position].desc;
    if (position == kX) return is_linear_real(tensor);
    const bool is_parameter = position == kWeight || position == kBias;
    return is_linear(tensor, is_parameter ? DataType::kFLOAT : tensors[kX].desc.type);
  }

  DataType output_type(int32_t, const DataType* in) const { return in[kX]; }

  Status output_shapes(const nvinfer1::DimsExprs* in, nvinfer1::DimsExprs* out,
                       nvinfer1::IExprBuilder&) const {
    out[0] = in[kX];
    return Status::success();
  }

  Status check_shapes(const nvinfer1::PluginTensorDesc* in) const {
    const Dims &x = in[kX].dims, &residual = in[kResidual].dims;
    bool agrees = x.nbDims >= 1 && residual.nbDims == x.nbDims;
    for (int32_t i = 0; agrees && i < x.nbDims; ++i) agrees = x.d[i] == residual.d[i];
    for (const Input input : {kWeight, kBias}) {
      const Dims& dims = in[input].dims;
      agrees = agrees && dims.nbDims == 1 && dims.d[0] == x.d[x.nbDims - 1];
    }
    if (agrees) return Status::success();
    return bad_argument(kName, "x and residual must have one shape, weight and bias its last size");
  }

  size_t workspace_bytes(const nvinfer1::PluginTensorDesc*) const { return 0; }

  Status enqueue(const nvinfer1::PluginTensorDesc* in, const void* const* tensors,
                 void* const* results, void*, cudaStream_t stream) const {
    const Result<cuda::DType> dtype = dtype_of(kName, in[kX].type);
    if (!dtype.ok()) return dtype.status();
    const Dims& x = in[kX].dims;
    cuda::AddNormParams p{};
    p.x = tensors[kX];
    p.residual = tensors[kResidual];
    p.weight = static_cast<const float*>(tensors[kWeight]);
    p.bias = static_cast<const float*>(tensors[kBias]);
    p.y = results[0];
    p.n_rows = 1;
    for (int32_t i = 0; i + 1 < x.nbDims; ++i) p.n_rows *= x.d[i];
    p.n_columns = x.d[x.nbDims - 1];
    p.epsilon = epsilon;
    p.dtype = dtype.value();
    return cuda::add_norm(p, stream);
  }
};

}  // namespace

nvinfer1::IPluginCreatorInterface* add_norm_creator() {
  static Creator<AddNorm> creator;
  return &creator;
}

}  // namespace csrm::kernels::tensorrt
