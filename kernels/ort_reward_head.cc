// RewardHead as an operator of ONNX Runtime; attributes n_safe, kind ("layer", which is the
// default, or "rms"), epsilon, isa. row_bias may be left out, and of kind rms norm_bias must be.
// Not: its checks and arithmetic (reward_head.h).
#include <iterator>

#include "ort_operators.h"
#include "reward_head.h"

namespace csrm::kernels {
namespace {

enum Input : size_t { kHidden, kPooledAt, kNormWeight, kNormBias, kRows, kRowBias, kCalibration };

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
  std::array<Tensor, std::size(kInputs)> in;
  for (size_t i = 0; i < in.size(); ++i) in[i] = call.input(i);
  RewardHeadParams p{};
  p.n_batch = in[kHidden].dims[0];
  p.n_tokens = in[kHidden].dims[1];
  p.n_hidden = in[kHidden].dims[2];
  p.n_pooled = in[kPooledAt].dims[1];
  p.n_verbalizers = in[kRows].dims[0];
  match(kSpec, kPooledAt, in[kPooledAt], 0, p.n_batch, "B");
  match(kSpec, kNormWeight, in[kNormWeight], 0, p.n_hidden, "H");
  if (in[kNormBias].data != nullptr) match(kSpec, kNormBias, in[kNormBias], 0, p.n_hidden, "H");
  match(kSpec, kRows, in[kRows], 1, p.n_hidden, "H");
  if (in[kRowBias].data != nullptr) {
    match(kSpec, kRowBias, in[kRowBias], 0, p.n_verbalizers, "V");
  }
  match(kSpec, kCalibration, in[kCalibration], 0, 2, "the number of calibration values");
  p.hidden = in[kHidden].floats();
  p.pooled_at = in[kPooledAt].ints();
  p.norm_weight = in[kNormWeight].floats();
  p.norm_bias = in[kNormBias].floats();
  p.rows = in[kRows].floats();
  p.row_bias = in[kRowBias].floats();
  p.calibration = in[kCalibration].floats();
  p.reward = call.output(0, in[kPooledAt]);
  p.compliance = call.output(1, in[kPooledAt]);
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
