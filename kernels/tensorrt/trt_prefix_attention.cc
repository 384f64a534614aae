// PrefixAttention as a TensorRT plugin: shapes and types of its tensors, scratch memory, then the
// launch of kernels/cuda/prefix_attention.h. Inputs and attributes are those of the ONNX operator
// (ort_prefix_attention.cc); all tensors have one type, fp32, fp16 or bf16, but visible, int64.
#include <cmath>

#include "kernels/cuda/prefix_attention.h"
#include "trt_plugin.h"

namespace csrm::kernels::tensorrt {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;

enum Input : int32_t { kQuery, kKeyValue, kPrefixKey, kPrefixValue, kVisible };

struct PrefixAttention {
  static constexpr char kName[] = "PrefixAttention";
  static constexpr int32_t kInputs = 5;
  static constexpr int32_t kOutputs = 1;

  int32_t heads = 1, kv_heads = 1, head_dim = 1, layer = 0;
  int32_t query_offset = 0, key_offset = 0, value_offset = 0;
  float scale = 1;

  std::vector<Attribute> attributes() {
    return {{"heads", &heads, nullptr},
            {"kv_heads", &kv_heads, nullptr},
            {"head_dim", &head_dim, nullptr},
            {"layer", &layer, nullptr},
            {"query_offset", &query_offset, nullptr},
            {"key_offset", &key_offset, nullptr},
            {"value_offset", &value_offset, nullptr},
            {"scale", nullptr, &scale}};
  }

  Status check() const {
    constexpr int32_t kMost = 1 << 20;
    if (heads < 1 || heads > kMost || kv_heads < 1 || heads % kv_heads != 0) {
      return bad_argument(kName, std::to_string(heads) + " heads over " + std::to_string(kv_heads) +
                                     " heads of keys; both must be >= 1 and the first a multiple "
                                     "of the other");
    }
    if (head_dim < 1 || head_dim > 256) {
      return bad_argument(kName,
                          "head_dim is " + std::to_string(head_dim) + "; it must be in 1 to 256");
    }
    if (layer < 0 || query_offset < 0 || key_offset < 0 || value_offset < 0) {
      return bad_argument(kName, "layer and offsets must be >= 0");
    }
    if (!std::isfinite(scale)) return bad_argument(kName, "scale is not finite");
    return Status::success();
  }

  bool takes(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors) const {
    const nvinfer1::PluginTensorDesc& tensor = tensors[position].desc;
    if (position == kQuery) return is_linear_real(tensor);
    return is_linear(tensor, position == kVisible ? DataType::kINT64 : tensors[kQuery].desc.type);
  }

  DataType output_type(int32_t, const DataType* in) const { return in[kQuery]; }

  Status output_shapes(const nvinfer1::DimsExprs* in, nvinfer1::DimsExprs* out,
                       nvinfer1::IExprBuilder& builder) const {
    if (in[kQuery].nbDims != 3) return wrong_shapes();
    out[0] = in[kQuery];
    out[0].d[2] = builder.constant(int64_t{heads} * head_dim);
    return Status::success();
  }

  // Agreement of the shapes; whether offsets lie within them is the launcher's to check.
  Status check_shapes(const nvinfer1::PluginTensorDesc* in) const {
    const Dims &query = in[kQuery].dims, &own = in[kKeyValue].dims, &seen = in[kVisible].dims;
    if (query.nbDims != 3 || own.nbDims != 3 || seen.nbDims != 2 || own.d[0] != query.d[0] ||
        seen.d[0] != query.d[0] || seen.d[1] != query.d[1]) {
      return wrong_shapes();
    }
    const Dims &key = in[kPrefixKey].dims, &value = in[kPrefixValue].dims;
    bool agrees = key.nbDims == 4 && value.nbDims == 4;
    for (int i = 0; agrees && i < 4; ++i) agrees = key.d[i] == value.d[i];
    if (agrees && key.d[0] > layer && key.d[1] == kv_heads && key.d[3] == head_dim) {
      return Status::success();
    }
    return bad_argument(kName, "prefix_key and prefix_value must be [L, " +
                                   std::to_string(kv_heads) + ", P, " + std::to_string(head_dim) +
                                   "] with more than " + std::to_string(layer) + " layers");
  }

  size_t workspace_bytes(const nvinfer1::PluginTensorDesc* in) const {
    return cuda::prefix_attention_workspace_bytes(sizes(in));
  }

  Status enqueue(const nvinfer1::PluginTensorDesc* in, const void* const* tensors,
                 void* const* results, void* workspace, cudaStream_t stream) const {
    const Result<cuda::DType> dtype = dtype_of(kName, in[kQuery].type);
    if (!dtype.ok()) return dtype.status();
    cuda::PrefixAttentionParams p = sizes(in);
    p.query = tensors[kQuery];
    p.key_value = tensors[kKeyValue];
    p.prefix_key = tensors[kPrefixKey];
    p.prefix_value = tensors[kPrefixValue];
    p.visible = static_cast<const int64_t*>(tensors[kVisible]);
    p.context = results[0];
    p.dtype = dtype.value();
    // TensorRT gave the bytes of the largest shapes, which are at least those of these.
    p.workspace = workspace;
    p.workspace_bytes = workspace != nullptr ? cuda::prefix_attention_workspace_bytes(p) : 0;
    return cuda::prefix_attention(p, stream);
  }

 private:
  cuda::PrefixAttentionParams sizes(const nvinfer1::PluginTensorDesc* in) const {
    const Dims &query = in[kQuery].dims, &own = in[kKeyValue].dims, &key = in[kPrefixKey].dims;
    cuda::PrefixAttentionParams p{};
    p.n_batch = query.d[0];
    p.n_queries = query.d[1];
    p.query_width = query.d[2];
    p.n_tokens = own.d[1];
    p.key_value_width = own.d[2];
    p.n_layers = key.d[0];
    p.n_prefix = key.d[2];
    p.n_heads = heads;
    p.n_kv_heads = kv_heads;
    p.head_dim = head_dim;
    p.layer = layer;
    p.query_offset = query_offset;
    p.key_offset = key_offset;
    p.value_offset = value_offset;
    p.scale = scale;
    p.version = cuda::AttentionVersion::kBest;
    p.schedule = cuda::AttentionSchedule::kAuto;
    return p;
  }

  static Status wrong_shapes() {
    return bad_argument(kName, "query must be [B, Q, ..], key_value [B, T, ..], visible [B, Q]");
  }
};

}  // namespace

nvinfer1::IPluginCreatorInterface* prefix_attention_creator() {
  static Creator<PrefixAttention> creator;
  return &creator;
}

}  // namespace csrm::kernels::tensorrt
