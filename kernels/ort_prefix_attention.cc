// PrefixAttention as an operator of ONNX Runtime. Not: its checks and arithmetic
// (prefix_attention.h). Inputs and attributes are those of PrefixAttentionParams; the attribute
// products is fp32 or, for is_bf16, bf16.
#include <atomic>
#include <iterator>
#include <string>

#include "ort_arguments.h"
#include "ort_operators.h"
#include "prefix_attention.h"

namespace csrm::kernels {
namespace {

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
  explicit PrefixAttentionKernel(const Node& node)
      : attributes_(attention_attributes<PrefixAttentionParams>(node)), isa_(node.isa()) {
    attributes_.is_bf16 = is_bf16(node);
  }

  void compute(const Call& call) const;

 private:
  PrefixAttentionParams attributes_;
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
  PrefixAttentionParams p = attributes_;
  const AttentionTensors tensors = read_attention(call, &p);
  p.is_half = is_half(tensors.prefix_key, tensors.prefix_value);
  p.context = call.output(0, tensors.context);
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

bool is_bf16(const Node& node) {
  const std::string products = node.text_attribute("products", "fp32");
  if (products == "bf16") return true;
  if (products == "fp32") return false;
  throw std::invalid_argument(std::string(node.spec().name) +
                              ": attribute products is none of fp32, bf16");
}

const OrtCustomOp& prefix_attention_operator() {
  static const Operator* const op = new Operator(make_operator<PrefixAttentionKernel>(kSpec));
  return *op;
}

}  // namespace csrm::kernels
