// RewardHead as an operator of ONNX Runtime's CUDA provider. Not: its checks and kernel
// (kernels/cuda/reward_head.h).
#include <array>
#include <iterator>

#include "kernels/cuda/ort_operators_cuda.h"
#include "kernels/cuda/reward_head.h"

namespace csrm::kernels::cuda {
namespace {

enum Input : size_t { kHidden, kPooledAt, kNormWeight, kNormBias, kRows, kRowBias, kCalibration };
constexpr size_t kInputs = kCalibration + 1;
constexpr size_t kOutputs = 2;

class RewardHeadKernel {
 public:
  explicit RewardHeadKernel(const Node& node)
      : n_safe_(node.int_attribute("n_safe")),
        epsilon_(node.float_attribute("epsilon")),
        dtype_(dtype_of(node.spec())) {}

  void compute(const Call& call) const;

 private:
  int64_t n_safe_;
  float epsilon_;
  DType dtype_;
};

void RewardHeadKernel::compute(const Call& call) const {
  const OperatorSpec& spec = call.spec();
  std::array<Tensor, kInputs> in;
  for (size_t i = 0; i < in.size(); ++i) in[i] = call.input(i);
  RewardHeadParams p{};
  p.n_batch = in[kHidden].dims[0];
  p.n_tokens = in[kHidden].dims[1];
  p.n_hidden = in[kHidden].dims[2];
  p.n_pooled = in[kPooledAt].dims[1];
  p.n_verbalizers = in[kRows].dims[0];
  match(spec, kPooledAt, in[kPooledAt], 0, p.n_batch, "B");
  match(spec, kNormWeight, in[kNormWeight], 0, p.n_hidden, "H");
  match(spec, kNormBias, in[kNormBias], 0, p.n_hidden, "H");
  match(spec, kRows, in[kRows], 1, p.n_hidden, "H");
  match(spec, kRowBias, in[kRowBias], 0, p.n_verbalizers, "V");
  match(spec, kCalibration, in[kCalibration], 0, 2, "the number of calibration values");
  p.hidden = in[kHidden].data;
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
  p.dtype = dtype_;
  require(reward_head(p, stream_of(call)));
}

template <DType kType>
const OrtCustomOp& operator_for() {
  static constexpr InputSpec kSpecs[] = {
      {"hidden", 3, element_type(kType)},
      {"pooled_at", 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
      {"norm_weight", 1},
      {"norm_bias", 1},
      {"rows", 2},
      {"row_bias", 1},
      {"calibration", 1},
  };
  static constexpr OperatorSpec kSpec{
      "RewardHead", kSpecs, std::size(kSpecs), kOutputs, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
      kProvider};
  static const Operator* const op = new Operator(make_operator<RewardHeadKernel>(kSpec));
  return *op;
}

}  // namespace

const OrtCustomOp& reward_head_operator(DType dtype) {
  static constexpr OperatorOf kByDType[] = {
      operator_for<DType::kFloat32>, operator_for<DType::kFloat16>, operator_for<DType::kBFloat16>};
  return kByDType[static_cast<int>(dtype)]();
}

}  // namespace csrm::kernels::cuda
