// RewardHead as an operator of ONNX Runtime; attributes n_safe, kind ("layer", which is the
// default, or "rms"), epsilon, isa. row_bias may be left out, and of kind rms norm_bias must be.
// Not: its checks and arithmetic (reward_head.h).
#include <iterator>

#include "ort_arguments.h"
#include "ort_operators.h"
#include "reward_head.h"

namespace csrm::kernels {
namespace {

constexpr InputSpec kInputs[] = {
    {"hidden", 3},
    {"pooled_at", 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
    {"norm_weight", 1},
    {"norm_bias", 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
    {"rows", 2},
    {"row_bias", 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
    {"calibration", 1},
};
constexpr size_t kOutputs = 2;
constexpr OperatorSpec kSpec{"RewardHead", kInputs, std::size(kInputs), kOutputs};

class RewardHeadKernel {
 public:
  explicit RewardHeadKernel(const Node& node)
      : n_safe_(node.int_attribute("n_safe")),
        epsilon_(node.float_attribute("epsilon")),
        is_rms_(is_rms(node)),
        isa_(node.isa()) {}

  void compute(const Call& call) const;

 private:
  int64_t n_safe_;
  float epsilon_;
  bool is_rms_;
  Isa isa_;
};

void RewardHeadKernel::compute(const Call& call) const {
  RewardHeadParams p{};
  const Tensor like = read_reward_head(call, &p);
  p.reward = call.output(0, like);
  p.compliance = call.output(1, like);
  p.n_safe = n_safe_;
  p.epsilon = epsilon_;
  p.is_rms = is_rms_;
  require(reward_head(p, isa_));
}

}  // namespace

const OrtCustomOp& reward_head_operator() {
  static const Operator* const op = new Operator(make_operator<RewardHeadKernel>(kSpec));
  return *op;
}

}  // namespace csrm::kernels
