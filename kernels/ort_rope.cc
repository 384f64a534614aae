// Rope as an operator of ONNX Runtime: x [.., N], positions [..], frequencies, weight -> y [.., N];
// attributes heads, head_dim, epsilon, isa. weight may be left out. Not: its checks and arithmetic
// (rope.h).
#include <iterator>

#include "ort_arguments.h"
#include "ort_operators.h"
#include "rope.h"

namespace csrm::kernels {
namespace {

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
      : attributes_(rope_attributes<RopeParams>(node)), isa_(node.isa()) {}

  void compute(const Call& call) const;

 private:
  RopeParams attributes_;
  Isa isa_;
};

// What a task needs; it lives on the calling thread's stack until all tasks are done.
struct Arguments {
  const RopeParams& params;
  Isa isa;
};

void RopeKernel::compute(const Call& call) const {
  RopeParams p = attributes_;
  p.y = call.output(0, read_rope(call, &p));
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
