// RewardHead as a TensorRT plugin: shapes and types of its tensors, then the launch of
// kernels/cuda/reward_head.h. Inputs, outputs and attributes are those of the ONNX operator
// (ort_reward_head.cc): hidden [B, T, H] in fp32, fp16 or bf16, pooled_at [B, J] int64, the rest
// fp32.
#include <cmath>

#include "kernels/cuda/reward_head.h"
#include "trt_plugin.h"

namespace csrm::kernels::tensorrt {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;

enum Input : int32_t { kHidden, kPooledAt, kNormWeight, kNormBias, kRows, kRowBias, kCalibration };

struct RewardHead {
  static constexpr char kName[] = "RewardHead";
  static constexpr int32_t kInputs = 7;
  static constexpr int32_t kOutputs = 2;

  int32_t n_safe = 1;
  float epsilon = 0;

  std::vector<Attribute> attributes() {
    return {{"n_safe", &n_safe, nullptr}, {"epsilon", nullptr, &epsilon}};
  }

  Status check() const {
    if (n_safe < 1 || n_safe >= cuda::kMaxVerbalizers) {
      return bad_argument(kName, "n_safe is " + std::to_string(n_safe) + "; it must be in 1 to " +
                                     std::to_string(cuda::kMaxVerbalizers - 1));
    }
    if (!std::isfinite(epsilon) || epsilon < 0) {
      return bad_argument(kName, "epsilon must be finite and >= 0");
    }
    return Status::success();
  }

  bool takes(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors) const {
    const nvinfer1::PluginTensorDesc& tensor = tensors[position].desc;
    if (position == kHidden) return is_linear_real(tensor);
    return is_linear(tensor, position == kPooledAt ? DataType::kINT64 : DataType::kFLOAT);
  }

  DataType output_type(int32_t, const DataType*) const { return DataType::kFLOAT; }

  Status output_shapes(const nvinfer1::DimsExprs* in, nvinfer1::DimsExprs* out,
                       nvinfer1::IExprBuilder&) const {
    if (in[kHidden].nbDims != 3 || in[kPooledAt].nbDims != 2) return wrong_ranks();
    out[0] = out[1] = in[kPooledAt];
    return Status::success();
  }

  Status check_shapes(const nvinfer1::PluginTensorDesc* in) const {
    const Dims &hidden = in[kHidden].dims, &pooled = in[kPooledAt].dims, &rows = in[kRows].dims;
    if (hidden.nbDims != 3 || pooled.nbDims != 2 || rows.nbDims != 2) return wrong_ranks();
    const int64_t n_hidden = hidden.d[2], n_rows = rows.d[0];
    const struct {
      Input input;
      int64_t size;
    } vectors[] = {
        {kNormWeight, n_hidden}, {kNormBias, n_hidden}, {kRowBias, n_rows}, {kCalibration, 2}};
    for (const auto& vector : vectors) {
      const Dims& dims = in[vector.input].dims;
      if (dims.nbDims == 1 && dims.d[0] == vector.size) continue;
      return bad_argument(kName, "input " + std::to_string(vector.input) + " must be a vector of " +
                                     std::to_string(vector.size));
    }
    if (pooled.d[0] != hidden.d[0] || rows.d[1] != n_hidden || n_rows <= n_safe) {
      return bad_argument(kName, "hidden, pooled_at and rows do not agree in B, H or n_safe");
    }
    return Status::success();
  }

  size_t workspace_bytes(const nvinfer1::PluginTensorDesc*) const { return 0; }

  Status enqueue(const nvinfer1::PluginTensorDesc* in, const void* const* tensors,
                 void* const* results, void*, cudaStream_t stream) const {
    const Result<cuda::DType> dtype = dtype_of(kName, in[kHidden].type);
    if (!dtype.ok()) return dtype.status();
    const Dims &hidden = in[kHidden].dims, &rows = in[kRows].dims;
    const auto floats = [tensors](Input i) { return static_cast<const float*>(tensors[i]); };
    cuda::RewardHeadParams p{};
    p.hidden = tensors[kHidden];
    p.pooled_at = static_cast<const int64_t*>(tensors[kPooledAt]);
    p.norm_weight = floats(kNormWeight);
    p.norm_bias = floats(kNormBias);
    p.rows = floats(kRows);
    p.row_bias = floats(kRowBias);
    p.calibration = floats(kCalibration);
    p.reward = static_cast<float*>(results[0]);
    p.compliance = static_cast<float*>(results[1]);
    p.n_batch = hidden.d[0];
    p.n_tokens = hidden.d[1];
    p.n_hidden = hidden.d[2];
    p.n_pooled = in[kPooledAt].dims.d[1];
    p.n_verbalizers = rows.d[0];
    p.n_safe = n_safe;
    p.epsilon = epsilon;
    p.dtype = dtype.value();
    return cuda::reward_head(p, stream);
  }

 private:
  static Status wrong_ranks() {
    return bad_argument(kName, "hidden must be [B, T, H], pooled_at [B, J] and rows [V, H]");
  }
};

}  // namespace

nvinfer1::IPluginCreatorInterface* reward_head_creator() {
  static Creator<RewardHead> creator;
  return &creator;
}

}  // namespace csrm::kernels::tensorrt
