// PrefixAttention as an operator of ONNX Runtime's CUDA provider. Not: its checks and kernels
// (kernels/cuda/prefix_attention.h), which choose version and cut by themselves.
#include <iterator>

#include "kernels/cuda/ort_operators_cuda.h"
#include "kernels/cuda/prefix_attention.h"
#include "kernels/ort_arguments.h"

namespace csrm::kernels::cuda {
namespace {

// Memory of the engine's arena for one call. It goes back when the work is enqueued: whatever gets
// it next is enqueued behind, on the same stream. Null where the engine gives none, and then the
// attention is not split, which changes its time alone.
class Scratch {
 public:
  Scratch(const Call& call, const OrtMemoryInfo* place, size_t n_bytes) : api_(call.api()) {
    if (n_bytes == 0) return;
    release(api_.KernelContext_GetAllocator(call.context(), place, &allocator_));
    if (allocator_ != nullptr) release(api_.AllocatorAlloc(allocator_, n_bytes, &data_));
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    if (data_ != nullptr) release(api_.AllocatorFree(allocator_, data_));
    if (allocator_ != nullptr) api_.ReleaseAllocator(allocator_);
  }
  void* data() const { return data_; }

 private:
  void release(OrtStatus* status) const {
    if (status != nullptr) api_.ReleaseStatus(status);
  }

  const OrtApi& api_;
  OrtAllocator* allocator_ = nullptr;
  void* data_ = nullptr;
};

class PrefixAttentionKernel {
 public:
  explicit PrefixAttentionKernel(const Node& node)
      : attributes_(attention_attributes<PrefixAttentionParams>(node)) {
    attributes_.dtype = dtype_of(node.spec());
    attributes_.version = AttentionVersion::kBest;
    attributes_.schedule = AttentionSchedule::kAuto;
  }

  void compute(const Call& call) const;

 private:
  PrefixAttentionParams attributes_;
};

// One for the process, as device 0 is.
const OrtMemoryInfo* device_memory(const OrtApi& api) {
  static const OrtMemoryInfo* const place = [&] {
    OrtMemoryInfo* made = nullptr;
    check(api.CreateMemoryInfo(kMemoryName, OrtDeviceAllocator, 0, OrtMemTypeDefault, &made));
    return made;
  }();
  return place;
}

void PrefixAttentionKernel::compute(const Call& call) const {
  PrefixAttentionParams p = attributes_;
  const AttentionTensors tensors = read_attention(call, &p);
  p.context = call.output_data(0, tensors.context);
  const size_t n_bytes = prefix_attention_workspace_bytes(p);
  const Scratch scratch(call, device_memory(call.api()), n_bytes);
  p.workspace = scratch.data();
  p.workspace_bytes = scratch.data() != nullptr ? n_bytes : 0;
  require(prefix_attention(p, stream_of(call)));
}

template <DType kType>
struct Spec {
  static constexpr InputSpec kInputs[] = {
      {"query", 3, element_type(kType)},
      {"key_value", 3, element_type(kType)},
      {"prefix_key", 4, element_type(kType)},
      {"prefix_value", 4, element_type(kType)},
      {"visible", 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
  };
  static constexpr OperatorSpec kSpec{"PrefixAttention",   kInputs,  std::size(kInputs), 1,
                                      element_type(kType), kProvider};
};

}  // namespace

const OrtCustomOp& prefix_attention_operator(DType dtype) {
  return operator_for<PrefixAttentionKernel, Spec>(dtype);
}

}  // namespace csrm::kernels::cuda
