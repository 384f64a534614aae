// Rope as an operator of ONNX Runtime: x [.., N], positions [..], frequencies, weight -> y [.., N];
// attributes heads, head_dim, epsilon, isa. weight may be left out. Not: its checks and arithmetic
// (rope.h).
#include <iterator>

#include "ort_operators.h"
#include "rope.h"

namespace csrm::kernels {
namespace {

enum Input : size_t { kX, kPositions, kFrequencies, kWeight };

constexpr InputSpec kInputs[] = {
    {"x", kAnyRank},
    {"positions", kAnyRank, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
    {"frequencies", 1},
    {"weight", 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
};
constexpr OperatorSpec kSpec{"Rope", kInputs, std::size(kInputs), 1};

class RopeKernel {
 public:
  explicit RopeKernel(const Node& node)
      : n_heads_(node.int_attribute("heads")),
        head_dim_(node.int_attribute("head_dim")),
        epsilon_(node.float_attribute("epsilon")),
        isa_(node.isa()) {}

  void compute(const Call& call) const;

 private:
  int64_t n_heads_, head_dim_;
  float epsilon_;
  Isa isa_;
};

// What a task needs; it lives on the calling thread's stack until all tasks are done.
struct Arguments {
  const RopeParams& params;
  Isa isa;
};

void RopeKernel::compute(const Call& call) const {
  const Tensor x = call.input(kX), positions = call.input(kPositions);
  const Tensor frequencies = call.input(kFrequencies), weight = call.input(kWeight);
  if (positions.rank + 1 != x.rank) {
    throw std::invalid_argument("Rope: input positions has rank " + std::to_string(positions.rank) +
                                "; x has " + std::to_string(x.rank) + ", which must be one more");
  }
  RopeParams p{};
  p.n_rows = 1;
  p.n_columns = x.dims[x.rank - 1];
  for (size_t axis = 0; axis + 1 < x.rank; ++axis) {
    match(kSpec, kPositions, positions, axis, x.dims[axis], "x");
    p.n_rows *= x.dims[axis];
  }
  p.n_heads = n_heads_;
  p.head_dim = head_dim_;
  p.epsilon = epsilon_;
  match(kSpec, kFrequencies, frequencies, 0, head_dim_ / 2, "head_dim / 2");
  if (weight.data != nullptr) {
    match(kSpec, kWeight, weight, 0, n_heads_ * head_dim_, "heads * head_dim");
  }
  p.x = x.floats();
  p.positions = positions.ints();
  p.frequencies = frequencies.floats();
  p.weight = weight.floats();
  p.y = call.output(0, x);
  require(check_rope(p, isa_));
  Arguments arguments{p, isa_};
  call.parallel_for(
      rope_tasks(p),
      [](void* a, size_t i) {
        const Arguments& task = *static_cast<const Arguments*>(a);
        run_rope_task(task.params, task.isa, i);
      },
      &arguments);
}

}  // namespace

const OrtCustomOp& rope_operator() {
  static const Operator* const op = new Operator(make_operator<RopeKernel>(kSpec));
  return *op;
}

}  // namespace csrm::kernels
