// LinearI8 as an operator of ONNX Runtime: x, weight, scale, bias -> y; attributes levels,
// activation, isa. The weight lies as in an artifact: int8 [K, N] with a scale per output channel.
// All but x are initialisers, packed once, when the kernel is made.
// Not: its checks and arithmetic (linear_i8.h).
#include <iterator>
#include <new>
#include <utility>

#include "linear_i8.h"
#include "ort_operators.h"

namespace csrm::kernels {
namespace {

enum Input : size_t { kX, kWeight, kScale, kBias };

constexpr InputSpec kInputs[] = {
    {"x", kAnyRank},
    {"weight", 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8},
    {"scale", 1},
    {"bias", 1},
};
constexpr OperatorSpec kSpec{"LinearI8", kInputs, std::size(kInputs), 1};

LinearI8 made(const Node& node) {
  const Tensor weight = node.initialiser(kWeight);
  const Tensor scale = node.initialiser(kScale);
  const Tensor bias = node.initialiser(kBias);
  LinearI8Params p{};
  p.n_in = weight.dims[0];
  p.n_out = weight.dims[1];
  match(kSpec, kScale, scale, 0, p.n_out, "N");
  match(kSpec, kBias, bias, 0, p.n_out, "N");
  p.values = static_cast<const int8_t*>(weight.data);
  p.scale = scale.floats();
  p.bias = bias.floats();
  p.levels = node.int_attribute("levels");
  p.has_gelu = has_gelu(node);
  Result<LinearI8> linear = LinearI8::make(p, node.isa());
  require(linear.status());
  return std::move(linear).value();
}

class LinearI8Kernel {
 public:
  explicit LinearI8Kernel(const Node& node) : linear_(made(node)) {}

  void compute(const Call& call) const;

 private:
  LinearI8 linear_;
};

// What a task needs; it lives on the calling thread's stack until all tasks are done.
struct Arguments {
  const LinearI8& linear;
  const float* x;
  int64_t n_rows;
  void* scratch;  // the calling thread's
  float* y;
};

void LinearI8Kernel::compute(const Call& call) const {
  const Tensor x = call.input(kX);
  const LinearRows rows = linear_rows(kSpec, kX, x, linear_.n_in(), linear_.n_out());
  float* y = call.output(0, rows.like);
  void* scratch = thread_scratch(linear_.scratch_size(rows.n));
  if (scratch == nullptr && rows.n > 0) throw std::bad_alloc();
  Arguments arguments{linear_, x.floats(), rows.n, scratch, y};
  call.parallel_for(
      linear_.n_round_tasks(rows.n),
      [](void* a, size_t i) {
        const Arguments& task = *static_cast<const Arguments*>(a);
        task.linear.round_task(task.x, task.n_rows, task.scratch, i);
      },
      &arguments);
  call.parallel_for(
      linear_.n_tasks(rows.n),
      [](void* a, size_t i) {
        const Arguments& task = *static_cast<const Arguments*>(a);
        task.linear.run_task(task.scratch, task.n_rows, task.y, i);
      },
      &arguments);
}

}  // namespace

const OrtCustomOp& linear_i8_operator() {
  static const Operator* const op = new Operator(make_operator<LinearI8Kernel>(kSpec));
  return *op;
}

}  // namespace csrm::kernels
