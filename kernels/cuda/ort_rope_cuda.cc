// Rope as an operator of ONNX Runtime's CUDA provider; inputs and attributes are those of
// kernels/ort_rope.cc. Not: its checks and kernel (kernels/cuda/rope.h).
#include <iterator>

#include "kernels/cuda/ort_operators_cuda.h"
#include "kernels/cuda/rope.h"
#include "kernels/ort_arguments.h"

namespace csrm::kernels::cuda {
namespace {

class RopeKernel {
 public:
  explicit RopeKernel(const Node& node) : attributes_(rope_attributes<RopeParams>(node)) {
    attributes_.dtype = dtype_of(node.spec());
  }

  void compute(const Call& call) const {
    RopeParams p = attributes_;
    p.y = call.output_data(0, read_rope(call, &p));
    require(rope(p, stream_of(call)));
  }

 private:
  RopeParams attributes_;
};

template <DType kType>
struct Spec {
  static constexpr InputSpec kInputs[] = {
      {"x", kAnyRank, element_type(kType)},
      {"positions", kAnyRank, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
      {"frequencies", 1},
      {"weight", 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_OPTIONAL},
  };
  static constexpr OperatorSpec kSpec{"Rope",   kInputs, std::size(kInputs), 1, element_type(kType),
                                      kProvider};
};

}  // namespace

const OrtCustomOp& rope_operator(DType dtype) { return operator_for<RopeKernel, Spec>(dtype); }

}  // namespace csrm::kernels::cuda
