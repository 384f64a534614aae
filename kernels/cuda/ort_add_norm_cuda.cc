// AddNorm as an operator of ONNX Runtime's CUDA provider. Not: its checks and kernel
// (kernels/cuda/add_norm.h).
#include <iterator>
#include <string>

#include "kernels/cuda/add_norm.h"
#include "kernels/cuda/ort_operators_cuda.h"

namespace csrm::kernels::cuda {
namespace {

enum Input : size_t { kX, kResidual, kWeight, kBias };

class AddNormKernel {
 public:
  explicit AddNormKernel(const Node& node)
      : epsilon_(node.float_attribute("epsilon")), dtype_(dtype_of(node.spec())) {}

  void compute(const Call& call) const;

 private:
  float epsilon_;
  DType dtype_;
};

void AddNormKernel::compute(const Call& call) const {
  const OperatorSpec& spec = call.spec();
  const Tensor x = call.input(kX), residual = call.input(kResidual);
  const Tensor weight = call.input(kWeight), bias = call.input(kBias);
  if (residual.rank != x.rank) {
    throw std::invalid_argument("AddNorm: input residual has rank " +
                                std::to_string(residual.rank) + "; that of x is " +
                                std::to_string(x.rank));
  }
  AddNormParams p{};
  p.n_rows = 1;
  p.n_columns = x.dims[x.rank - 1];
  for (size_t axis = 0; axis < x.rank; ++axis) {
    match(spec, kResidual, residual, axis, x.dims[axis], "x");
    if (axis + 1 < x.rank) p.n_rows *= x.dims[axis];
  }
  match(spec, kWeight, weight, 0, p.n_columns, "N");
  match(spec, kBias, bias, 0, p.n_columns, "N");
  p.x = x.data;
  p.residual = residual.data;
  p.weight = weight.floats();
  p.bias = bias.floats();
  p.epsilon = epsilon_;
  p.dtype = dtype_;
  p.y = call.output_data(0, x);
  require(add_norm(p, stream_of(call)));
}

template <DType kType>
const OrtCustomOp& operator_for() {
  static constexpr InputSpec kInputs[] = {{"x", kAnyRank, element_type(kType)},
                                          {"residual", kAnyRank, element_type(kType)},
                                          {"weight", 1},
                                          {"bias", 1}};
  static constexpr OperatorSpec kSpec{"AddNorm",           kInputs,  std::size(kInputs), 1,
                                      element_type(kType), kProvider};
  static const Operator* const op = new Operator(make_operator<AddNormKernel>(kSpec));
  return *op;
}

}  // namespace

const OrtCustomOp& add_norm_operator(DType dtype) {
  static constexpr OperatorOf kByDType[] = {
      operator_for<DType::kFloat32>, operator_for<DType::kFloat16>, operator_for<DType::kBFloat16>};
  return kByDType[static_cast<int>(dtype)]();
}

}  // namespace csrm::kernels::cuda
