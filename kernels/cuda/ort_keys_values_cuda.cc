// KeysValues as an operator of ONNX Runtime's CUDA provider: states [B, T, ..] of each layer ->
// key, value fp32 [B, L, kv_heads, T, head_dim]; attributes kv_heads, head_dim, key_offset,
// value_offset. Not: its checks and kernel (kernels/cuda/keys_values.h).
#include <iterator>
#include <vector>

#include "kernels/cuda/keys_values.h"
#include "kernels/cuda/ort_operators_cuda.h"

namespace csrm::kernels::cuda {
namespace {

class KeysValuesKernel {
 public:
  explicit KeysValuesKernel(const Node& node) {
    attributes_.n_kv_heads = node.int_attribute("kv_heads");
    attributes_.head_dim = node.int_attribute("head_dim");
    attributes_.key_offset = node.int_attribute("key_offset");
    attributes_.value_offset = node.int_attribute("value_offset");
    attributes_.dtype = dtype_of(node.spec());
  }

  void compute(const Call& call) const;

 private:
  KeysValuesParams attributes_{};
};

void KeysValuesKernel::compute(const Call& call) const {
  const OperatorSpec& spec = call.spec();
  KeysValuesParams p = attributes_;
  std::vector<const void*> states;
  Tensor first;
  for (size_t layer = 0; layer < call.n_inputs(); ++layer) {
    const Tensor one = call.input(layer);
    if (layer == 0) first = one;
    for (size_t axis = 0; axis < one.rank; ++axis) {
      match(spec, layer, one, axis, first.dims[axis], "that of the first layer");
    }
    states.push_back(one.data);
  }
  p.states = states.data();
  p.n_layers = static_cast<int64_t>(states.size());
  p.n_batch = first.dims[0];
  p.n_tokens = first.dims[1];
  p.width = first.dims[2];
  Tensor like;
  like.rank = 5;
  like.dims = {p.n_batch, p.n_layers, p.n_kv_heads, p.n_tokens, p.head_dim};
  p.key = call.output(0, like);
  p.value = call.output(1, like);
  require(keys_values(p, stream_of(call)));
}

template <DType kType>
struct Spec {
  static constexpr InputSpec kInputs[] = {
      {"states", 3, element_type(kType), INPUT_OUTPUT_VARIADIC}};
  static constexpr OperatorSpec kSpec{
      "KeysValues", kInputs, std::size(kInputs), 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, kProvider};
};

}  // namespace

const OrtCustomOp& keys_values_operator(DType dtype) {
  return operator_for<KeysValuesKernel, Spec>(dtype);
}

}  // namespace csrm::kernels::cuda
