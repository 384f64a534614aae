// Linear as an operator of ONNX Runtime: x, weight, scale, bias -> y; attributes activation, isa.
// The weight lies as in an artifact: int8 [K, N] with a scale per output channel, or float [K, N]
// without one; bias may be left out. All but x are initialisers, packed once, when the kernel is
// made. Not: its checks and arithmetic (linear.h).
#include <iterator>
#include <utility>

#include "linear.h"
#include "ort_operators.h"

namespace csrm::kernels {
namespace {

enum Input : size_t { kX, kWeight, kScale, kBias };

constexpr InputSpec kInputs[] = {
    {"x", kAnyRank},
    {"weight", 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED},  // int8 or float
    {"scale", 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
    {"bias", 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
};
constexpr OperatorSpec kSpec{"Linear", kInputs, std::size(kInputs), 1};

Linear made(const Node& node) {
  LinearParams p{};
  const Tensor weight = node.initialiser(kWeight);
  p.n_in = weight.dims[0];
  p.n_out = weight.dims[1];
  if (weight.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8) {
    const Tensor scale = node.initialiser(kScale);
    match(kSpec, kScale, scale, 0, p.n_out, "N");
    p.values = static_cast<const int8_t*>(weight.data);
    p.scale = scale.floats();
  } else if (weight.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) {
    if (node.constant(kScale)) {
      throw std::invalid_argument("Linear: a float weight has no scale; leave it out");
    }
    p.dense = weight.floats();
  } else {
    throw std::invalid_argument("Linear: input weight must be int8 or float");
  }
  if (node.has_input(kBias)) {
    const Tensor bias = node.initialiser(kBias);
    match(kSpec, kBias, bias, 0, p.n_out, "N");
    p.bias = bias.floats();
  }
  p.has_gelu = has_gelu(node);
  Result<Linear> linear = Linear::make(p, node.isa());
  require(linear.status());
  return std::move(linear).value();
}

class LinearKernel {
 public:
  explicit LinearKernel(const Node& node) : linear_(made(node)) {}

  void compute(const Call& call) const;

 private:
  Linear linear_;
};

// What a task needs; it lives on the calling thread's stack until all tasks are done.
struct Arguments {
  const Linear& linear;
  const float* x;
  int64_t n_rows;
  float* y;
};

void LinearKernel::compute(const Call& call) const {
  const Tensor x = call.input(kX);
  const LinearRows rows = linear_rows(kSpec, kX, x, linear_.n_in(), linear_.n_out());
  Arguments arguments{linear_, x.floats(), rows.n, call.output(0, rows.like)};
  call.parallel_for(
      linear_.n_tasks(rows.n),
      [](void* a, size_t i) {
        const Arguments& task = *static_cast<const Arguments*>(a);
        task.linear.run_task(task.x, task.n_rows, task.y, i);
      },
      &arguments);
}

}  // namespace

bool has_gelu(const Node& node) {
  const std::string activation = node.text_attribute("activation", "none");
  if (activation == "gelu") return true;
  if (activation == "none") return false;
  throw std::invalid_argument(std::string(node.spec().name) +
                              ": attribute activation is none of none, gelu");
}

LinearRows linear_rows(const OperatorSpec& spec, size_t input, const Tensor& x, int64_t n_in,
                       int64_t n_out) {
  match(spec, input, x, x.rank - 1, n_in, "K");
  LinearRows rows{1, x};
  rows.like.dims[x.rank - 1] = n_out;
  for (size_t axis = 0; axis + 1 < x.rank; ++axis) rows.n *= x.dims[axis];
  return rows;
}

const OrtCustomOp& linear_operator() {
  static const Operator* const op = new Operator(make_operator<LinearKernel>(kSpec));
  return *op;
}

}  // namespace csrm::kernels
