// The operators of domain "csrm", one function and one ort_*.cc file each; ort_ops.cc registers
// them. Objects are made on first use and never destroyed: sessions may outlive any static.
#ifndef CSRM_KERNELS_ORT_OPERATORS_H_
#define CSRM_KERNELS_ORT_OPERATORS_H_

#include "ort_tensor.h"

namespace csrm::kernels {

const OrtCustomOp& add_norm_operator();
const OrtCustomOp& encoder_i8_operator();
const OrtCustomOp& half_key_value_operator();
const OrtCustomOp& linear_operator();
const OrtCustomOp& linear_i8_operator();
const OrtCustomOp& prefix_attention_operator();
const OrtCustomOp& reward_head_operator();
const OrtCustomOp& rope_operator();
const OrtCustomOp& swiglu_operator();

// The attribute products of attention: fp32, the default, or bf16. Throws std::invalid_argument.
bool is_bf16(const Node& node);

// The attribute activation of the linear layers. Throws std::invalid_argument.
bool has_gelu(const Node& node);

// What a linear layer of n_in to n_out columns reads off x [..., n_in]: its rows, and the shape of
// y [..., n_out]. Throws std::invalid_argument.
struct LinearRows {
  int64_t n;
  Tensor like;
};
LinearRows linear_rows(const OperatorSpec& spec, size_t input, const Tensor& x, int64_t n_in,
                       int64_t n_out);

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_ORT_OPERATORS_H_
