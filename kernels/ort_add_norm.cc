// AddNorm as an operator of ONNX Runtime: x, residual, weight, bias -> y, sum; attributes kind
// ("layer", which is the default, or "rms"), epsilon, isa. residual and sum may be left out, and of
// kind rms bias must be. Not: its checks and arithmetic (add_norm.h).
#include <iterator>

#include "add_norm.h"
#include "ort_arguments.h"
#include "ort_operators.h"

namespace csrm::kernels {
namespace {

constexpr InputSpec kInputs[] = {
    {"x", kAnyRank},
    {"residual", kAnyRank, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
    {"weight", 1},
    {"bias", 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
};
constexpr OperatorSpec kSpec{
    "AddNorm", kInputs, std::size(kInputs), 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, kOnCpu, 1};

class AddNormKernel {
 public:
  explicit AddNormKernel(const Node& node)
      : epsilon_(node.float_attribute("epsilon")), is_rms_(is_rms(node)), isa_(node.isa()) {}

  void compute(const Call& call) const;

 private:
  float epsilon_;
  bool is_rms_;
  Isa isa_;
};

// What a task needs; it lives on the calling thread's stack until all tasks are done.
struct Arguments {
  const AddNormParams& params;
  Isa isa;
};

void AddNormKernel::compute(const Call& call) const {
  AddNormParams p{};
  const Tensor x = read_add_norm(call, &p);
  p.epsilon = epsilon_;
  p.is_rms = is_rms_;
  p.y = call.output(0, x);
  p.sum = call.output(1, x);
  require(check_add_norm(p, isa_));
  Arguments arguments{p, isa_};
  call.parallel_for(
      add_norm_tasks(p),
      [](void* a, size_t i) {
        const Arguments& task = *static_cast<const Arguments*>(a);
        run_add_norm_task(task.params, task.isa, i);
      },
      &arguments);
}

}  // namespace

const OrtCustomOp& add_norm_operator() {
  static const Operator* const op = new Operator(make_operator<AddNormKernel>(kSpec));
  return *op;
}

}  // namespace csrm::kernels
