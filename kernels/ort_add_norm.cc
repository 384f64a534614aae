// AddNorm as an operator of ONNX Runtime. Not: its checks and arithmetic (add_norm.h).
#include <iterator>

#include "add_norm.h"
#include "ort_operators.h"

namespace csrm::kernels {
namespace {

enum Input : size_t { kX, kResidual, kWeight, kBias };

constexpr InputSpec kInputs[] = {
    {"x", kAnyRank}, {"residual", kAnyRank}, {"weight", 1}, {"bias", 1}};
constexpr OperatorSpec kSpec{"AddNorm", kInputs, std::size(kInputs), 1};

class AddNormKernel {
 public:
  explicit AddNormKernel(const Node& node)
      : epsilon_(node.float_attribute("epsilon")), isa_(node.isa()) {}

  void compute(const Call& call) const;

 private:
  float epsilon_;
  Isa isa_;
};

// What a task needs; it lives on the calling thread's stack until all tasks are done.
struct Arguments {
  const AddNormParams& params;
  Isa isa;
};

void AddNormKernel::compute(const Call& call) const {
  const Tensor x = call.input(kX), residual = call.input(kResidual);
  const Tensor weight = call.input(kWeight), bias = call.input(kBias);
  if (residual.rank != x.rank) {
    throw std::invalid_argument("AddNorm: input residual has rank " +
                                std::to_string(residual.rank) + "; that of x is " +
                                std::to_string(x.rank));
  }
  AddNormParams p{};
  p.n_rows = 1;
  p.n_columns = x.dims[x.rank - 1];
  for (size_t axis = 0; axis < x.rank; ++axis) {
    match(kSpec, kResidual, residual, axis, x.dims[axis], "x");
    if (axis + 1 < x.rank) p.n_rows *= x.dims[axis];
  }
  match(kSpec, kWeight, weight, 0, p.n_columns, "N");
  match(kSpec, kBias, bias, 0, p.n_columns, "N");
  p.x = x.floats();
  p.residual = residual.floats();
  p.weight = weight.floats();
  p.bias = bias.floats();
  p.epsilon = epsilon_;
  p.y = call.output(0, x);
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
