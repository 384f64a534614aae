// HalfKeyValue as an operator of ONNX Runtime: states [B, T, ..] -> key, value float16
// [B, 1, kv_heads, T, head_dim]; attributes kv_heads, head_dim, key_offset, value_offset, isa.
// Not: its checks and work (half_key_value.h).
#include <iterator>

#include "half_key_value.h"
#include "ort_operators.h"

namespace csrm::kernels {
namespace {

constexpr InputSpec kInputs[] = {{"states", 3}};
constexpr OperatorSpec kSpec{"HalfKeyValue", kInputs, std::size(kInputs), 2,
                             ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16};

class HalfKeyValueKernel {
 public:
  explicit HalfKeyValueKernel(const Node& node) : isa_(node.isa()) {
    attributes_.n_kv_heads = node.int_attribute("kv_heads");
    attributes_.head_dim = node.int_attribute("head_dim");
    attributes_.key_offset = node.int_attribute("key_offset");
    attributes_.value_offset = node.int_attribute("value_offset");
  }

  void compute(const Call& call) const;

 private:
  HalfKeyValueParams attributes_{};
  Isa isa_;
};

// What a task needs; it lives on the calling thread's stack until all tasks are done.
struct Arguments {
  const HalfKeyValueParams& params;
  Isa isa;
};

void HalfKeyValueKernel::compute(const Call& call) const {
  const Tensor states = call.input(0);
  HalfKeyValueParams p = attributes_;
  p.states = states.floats();
  p.n_batch = states.dims[0];
  p.n_tokens = states.dims[1];
  p.width = states.dims[2];
  Tensor like;
  like.rank = 5;
  like.dims = {p.n_batch, 1, p.n_kv_heads, p.n_tokens, p.head_dim};
  p.key = call.half_output(0, like);
  p.value = call.half_output(1, like);
  require(check_half_key_value(p, isa_));
  Arguments arguments{p, isa_};
  call.parallel_for(
      half_key_value_tasks(p),
      [](void* a, size_t i) {
        const Arguments& task = *static_cast<const Arguments*>(a);
        run_half_key_value_task(task.params, task.isa, i);
      },
      &arguments);
}

}  // namespace

const OrtCustomOp& half_key_value_operator() {
  static const Operator* const op = new Operator(make_operator<HalfKeyValueKernel>(kSpec));
  return *op;
}

}  // namespace csrm::kernels
