// AddNorm as an operator of ONNX Runtime's CUDA provider; inputs, outputs and attributes are those
// of kernels/ort_add_norm.cc. Not: its checks and kernel (kernels/cuda/add_norm.h).
#include <iterator>

#include "kernels/cuda/add_norm.h"
#include "kernels/cuda/ort_operators_cuda.h"
#include "kernels/ort_arguments.h"

namespace csrm::kernels::cuda {
namespace {

class AddNormKernel {
 public:
  explicit AddNormKernel(const Node& node) {
    attributes_.epsilon = node.float_attribute("epsilon");
    attributes_.is_rms = is_rms(node);
    attributes_.dtype = dtype_of(node.spec());
    attributes_.has_wide_residual =
        node.spec().optional_output_type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  }

  void compute(const Call& call) const {
    AddNormParams p = attributes_;
    const Tensor like = read_add_norm(call, &p);
    p.y = call.output_data(0, like);
    p.sum = call.output_data(1, like);
    require(add_norm(p, stream_of(call)));
  }

 private:
  AddNormParams attributes_{};
};

template <DType kType, DType kResidual>
struct SpecOf {
  static constexpr InputSpec kInputs[] = {
      {"x", kAnyRank, element_type(kType)},
      {"residual", kAnyRank, element_type(kResidual), INPUT_OUTPUT_OPTIONAL},
      {"weight", 1},
      {"bias", 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
  };
  static constexpr OperatorSpec kSpec{
      "AddNorm", kInputs, std::size(kInputs),     2, element_type(kType),
      kProvider, 1,       element_type(kResidual)};
};
template <DType kType>
using Spec = SpecOf<kType, kType>;
template <DType kType>
using WideSpec = SpecOf<kType, DType::kFloat32>;

}  // namespace

const OrtCustomOp& add_norm_operator(DType dtype) {
  return operator_for<AddNormKernel, Spec>(dtype);
}

const OrtCustomOp& wide_add_norm_operator(DType dtype) {
  return operator_for<AddNormKernel, WideSpec>(dtype);
}

}  // namespace csrm::kernels::cuda
