// SwiGlu as an operator of ONNX Runtime's CUDA provider; its input is that of
// kernels/ort_swiglu.cc. Not: its checks and kernel (kernels/cuda/swiglu.h).
#include <iterator>

#include "kernels/cuda/ort_operators_cuda.h"
#include "kernels/cuda/swiglu.h"
#include "kernels/ort_arguments.h"

namespace csrm::kernels::cuda {
namespace {

class SwiGluKernel {
 public:
  explicit SwiGluKernel(const Node& node) : dtype_(dtype_of(node.spec())) {}

  void compute(const Call& call) const {
    SwiGluParams p{};
    p.y = call.output_data(0, read_swiglu(call, &p));
    p.dtype = dtype_;
    require(swiglu(p, stream_of(call)));
  }

 private:
  DType dtype_;
};

template <DType kType>
struct Spec {
  static constexpr InputSpec kInputs[] = {{"x", kAnyRank, element_type(kType)}};
  static constexpr OperatorSpec kSpec{"SwiGlu", kInputs, std::size(kInputs), 1, element_type(kType),
                                      kProvider};
};

}  // namespace

const OrtCustomOp& swiglu_operator(DType dtype) { return operator_for<SwiGluKernel, Spec>(dtype); }

}  // namespace csrm::kernels::cuda
