// RewardHead as an operator of ONNX Runtime's CUDA provider; inputs and attributes are those of
// kernels/ort_reward_head.cc. Not: its checks and kernel (kernels/cuda/reward_head.h).
#include <iterator>

#include "kernels/cuda/ort_operators_cuda.h"
#include "kernels/cuda/reward_head.h"
#include "kernels/ort_arguments.h"

namespace csrm::kernels::cuda {
namespace {

class RewardHeadKernel {
 public:
  explicit RewardHeadKernel(const Node& node) {
    attributes_.n_safe = node.int_attribute("n_safe");
    attributes_.epsilon = node.float_attribute("epsilon");
    attributes_.is_rms = is_rms(node);
    attributes_.dtype = dtype_of(node.spec());
  }

  void compute(const Call& call) const {
    RewardHeadParams p = attributes_;
    const Tensor like = read_reward_head(call, &p);
    p.reward = call.output(0, like);
    p.compliance = call.output(1, like);
    require(reward_head(p, stream_of(call)));
  }

 private:
  RewardHeadParams attributes_{};
};

template <DType kType>
struct Spec {
  static constexpr InputSpec kInputs[] = {
      {"hidden", 3, element_type(kType)},
      {"pooled_at", 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
      {"norm_weight", 1},
      {"norm_bias", 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
      {"rows", 2},
      {"row_bias", 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
      {"calibration", 1},
  };
  static constexpr OperatorSpec kSpec{
      "RewardHead", kInputs, std::size(kInputs), 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, kProvider};
};

}  // namespace

const OrtCustomOp& reward_head_operator(DType dtype) {
  return operator_for<RewardHeadKernel, Spec>(dtype);
}

}  // namespace csrm::kernels::cuda
