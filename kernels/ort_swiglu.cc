// SwiGlu as an operator of ONNX Runtime: x [.., 2 * N] -> y [.., N]; attribute isa.
// Not: its checks and arithmetic (swiglu.h).
#include <iterator>

#include "ort_arguments.h"
#include "ort_operators.h"
#include "swiglu.h"

namespace csrm::kernels {
namespace {

constexpr InputSpec kInputs[] = {{"x", kAnyRank}};
constexpr OperatorSpec kSpec{"SwiGlu", kInputs, std::size(kInputs), 1};

class SwiGluKernel {
 public:
  explicit SwiGluKernel(const Node& node) : isa_(node.isa()) {}

  void compute(const Call& call) const;

 private:
  Isa isa_;
};

// What a task needs; it lives on the calling thread's stack until all tasks are done.
struct Arguments {
  const SwiGluParams& params;
  Isa isa;
};

void SwiGluKernel::compute(const Call& call) const {
  SwiGluParams p{};
  p.y = call.output(0, read_swiglu(call, &p));
  require(check_swiglu(p, isa_));
  Arguments arguments{p, isa_};
  call.parallel_for(
      swiglu_tasks(p),
      [](void* a, size_t i) {
        const Arguments& task = *static_cast<const Arguments*>(a);
        run_swiglu_task(task.params, task.isa, i);
      },
      &arguments);
}

}  // namespace

const OrtCustomOp& swiglu_operator() {
  static const Operator* const op = new Operator(make_operator<SwiGluKernel>(kSpec));
  return *op;
}

}  // namespace csrm::kernels
