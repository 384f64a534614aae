// PrefixAttention as an operator of ONNX Runtime. Not: its checks and arithmetic
// (prefix_attention.h). Inputs and attributes are those of PrefixAttentionParams.
#include <atomic>
#include <iterator>

#include "ort_operators.h"
#include "prefix_attention.h"

namespace csrm::kernels {
namespace {

enum Input : size_t { kQuery, kKeyValue, kPrefixKey, kPrefixValue, kVisible };

constexpr InputSpec kInputs[] = {
    {"query", 3},
    {"key_value", 3},
    {"prefix_key", 4, ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED},    // float or float16
    {"prefix_value", 4, ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED},  // as prefix_key
    {"visible", 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
};
constexpr OperatorSpec kSpec{"PrefixAttention", kInputs, std::size(kInputs), 1};

class PrefixAttentionKernel {
 public:
  explicit PrefixAttentionKernel(const Node& node) : isa_(node.isa()) {
    attributes_.n_heads = node.int_attribute("heads");
    attributes_.n_kv_heads = node.int_attribute("kv_heads");
    attributes_.head_dim = node.int_attribute("head_dim");
    attributes_.layer = node.int_attribute("layer");
    attributes_.query_offset = node.int_attribute("query_offset");
    attributes_.key_offset = node.int_attribute("key_offset");
    attributes_.value_offset = node.int_attribute("value_offset");
    attributes_.scale = node.float_attribute("scale");
  }

  void compute(const Call& call) const;

 private:
  PrefixAttentionParams attributes_{};
  Isa isa_;
};

// What a task needs; it lives on the calling thread's stack until all tasks are done.
struct Arguments {
  const PrefixAttentionParams& params;
  Isa isa;
  std::atomic<bool> has_failed;
};

// Whether the prefix is of half precision.
bool is_half(const Tensor& key, const Tensor& value) {
  const auto type = key.type;
  if (type != value.type || (type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT &&
                             type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16)) {
    throw std::invalid_argument(
        "PrefixAttention: inputs prefix_key and prefix_value must both be float or both float16");
  }
  return type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
}

void PrefixAttentionKernel::compute(const Call& call) const {
  std::array<Tensor, std::size(kInputs)> in;
  for (size_t i = 0; i < in.size(); ++i) in[i] = call.input(i);
  PrefixAttentionParams p = attributes_;
  p.n_batch = in[kQuery].dims[0];
  p.n_queries = in[kQuery].dims[1];
  p.query_width = in[kQuery].dims[2];
  p.n_tokens = in[kKeyValue].dims[1];
  p.key_value_width = in[kKeyValue].dims[2];
  p.n_layers = in[kPrefixKey].dims[0];
  p.n_prefix = in[kPrefixKey].dims[2];
  match(kSpec, kKeyValue, in[kKeyValue], 0, p.n_batch, "B");
  match(kSpec, kPrefixKey, in[kPrefixKey], 1, p.n_kv_heads, "kv_heads");
  match(kSpec, kPrefixKey, in[kPrefixKey], 3, p.head_dim, "head_dim");
  match(kSpec, kPrefixValue, in[kPrefixValue], 0, p.n_layers, "L");
  match(kSpec, kPrefixValue, in[kPrefixValue], 1, p.n_kv_heads, "kv_heads");
  match(kSpec, kPrefixValue, in[kPrefixValue], 2, p.n_prefix, "P");
  match(kSpec, kPrefixValue, in[kPrefixValue], 3, p.head_dim, "head_dim");
  match(kSpec, kVisible, in[kVisible], 0, p.n_batch, "B");
  match(kSpec, kVisible, in[kVisible], 1, p.n_queries, "Q");
  p.query = in[kQuery].floats();
  p.key_value = in[kKeyValue].floats();
  p.is_half = is_half(in[kPrefixKey], in[kPrefixValue]);
  p.prefix_key = in[kPrefixKey].data;
  p.prefix_value = in[kPrefixValue].data;
  p.visible = in[kVisible].ints();
  Tensor like = in[kQuery];
  like.dims[2] = p.n_heads * p.head_dim;
  p.context = call.output(0, like);
  require(check_prefix_attention(p, isa_));
  Arguments arguments{p, isa_, {false}};
  call.parallel_for(
      prefix_attention_tasks(p, isa_),
      [](void* a, size_t i) {
        Arguments& task = *static_cast<Arguments*>(a);
        if (!run_prefix_attention_task(task.params, task.isa, i)) task.has_failed = true;
      },
      &arguments);
  if (arguments.has_failed) throw std::bad_alloc();
}

}  // namespace

const OrtCustomOp& prefix_attention_operator() {
  static const Operator* const op = new Operator(make_operator<PrefixAttentionKernel>(kSpec));
  return *op;
}

}  // namespace csrm::kernels
