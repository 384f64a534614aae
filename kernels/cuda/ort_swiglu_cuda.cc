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
const OrtCustomOp& operator_for() {
  static constexpr InputSpec kInputs[] = {{"x", kAnyRank, element_type(kType)}};
  static constexpr OperatorSpec kSpec{"SwiGlu", kInputs, std::size(kInputs), 1, element_type(kType),
                                      kProvider};
  static const Operator* const op = new Operator(make_operator<SwiGluKernel>(kSpec));
  return *op;
}

}  // namespace

const OrtCustomOp& swiglu_operator(DType dtype) {
  static constexpr OperatorOf kByDType[] = {
      operator_for<DType::kFloat32>, operator_for<DType::kFloat16>, operator_for<DType::kBFloat16>};
  return kByDType[static_cast<int>(dtype)]();
}

}  // namespace csrm::kernels::cuda
