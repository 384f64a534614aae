// What the operators that exist for the CPU and for CUDA share on ONNX Runtime's side: attributes,
// and the sizes and inputs of a call, read and checked against each other. `Params` is the struct
// of a kernel, here or in cuda/: both name their members alike. Not: types of tensors (each
// operator's InputSpecs), outputs, or a kernel's own checks. All throw std::invalid_argument.
#ifndef CSRM_KERNELS_ORT_ARGUMENTS_H_
#define CSRM_KERNELS_ORT_ARGUMENTS_H_

#include <array>
#include <string>

#include "ort_tensor.h"

namespace csrm::kernels {

// The attribute kind of what has a norm.
inline bool is_rms(const Node& node) {
  const std::string kind = node.text_attribute("kind", "layer");
  if (kind == "rms") return true;
  if (kind == "layer") return false;
  throw std::invalid_argument(std::string(node.spec().name) +
                              ": attribute kind is none of layer, rms");
}

// How many rows x [..., N] has.
inline int64_t rows_of(const Tensor& x) {
  int64_t n = 1;
  for (size_t axis = 0; axis + 1 < x.rank; ++axis) n *= x.dims[axis];
  return n;
}

// AddNorm's x, residual, weight, bias. Returns x, whose shape y and sum have.
template <typename Params>
Tensor read_add_norm(const Call& call, Params* p) {
  enum Input : size_t { kX, kResidual, kWeight, kBias };
  const OperatorSpec& spec = call.spec();
  const Tensor x = call.input(kX), residual = call.input(kResidual);
  const Tensor weight = call.input(kWeight), bias = call.input(kBias);
  if (residual.data != nullptr && residual.rank != x.rank) {
    throw std::invalid_argument(std::string(spec.name) + ": input residual has rank " +
                                std::to_string(residual.rank) + "; that of x is " +
                                std::to_string(x.rank));
  }
  p->n_rows = rows_of(x);
  p->n_columns = x.dims[x.rank - 1];
  for (size_t axis = 0; axis < x.rank && residual.data != nullptr; ++axis) {
    match(spec, kResidual, residual, axis, x.dims[axis], "x");
  }
  match(spec, kWeight, weight, 0, p->n_columns, "N");
  if (bias.data != nullptr) match(spec, kBias, bias, 0, p->n_columns, "N");
  p->x = x.floats();
  p->residual = residual.floats();
  p->weight = weight.floats();
  p->bias = bias.floats();
  return x;
}

// RewardHead's hidden, pooled_at, norm_weight, norm_bias, rows, row_bias, calibration. Returns
// pooled_at, whose shape reward and compliance have.
template <typename Params>
Tensor read_reward_head(const Call& call, Params* p) {
  enum Input : size_t { kHidden, kPooledAt, kNormWeight, kNormBias, kRows, kRowBias, kCalibration };
  const OperatorSpec& spec = call.spec();
  std::array<Tensor, kCalibration + 1> in;
  for (size_t i = 0; i < in.size(); ++i) in[i] = call.input(i);
  p->n_batch = in[kHidden].dims[0];
  p->n_tokens = in[kHidden].dims[1];
  p->n_hidden = in[kHidden].dims[2];
  p->n_pooled = in[kPooledAt].dims[1];
  p->n_verbalizers = in[kRows].dims[0];
  match(spec, kPooledAt, in[kPooledAt], 0, p->n_batch, "B");
  match(spec, kNormWeight, in[kNormWeight], 0, p->n_hidden, "H");
  if (in[kNormBias].data != nullptr) match(spec, kNormBias, in[kNormBias], 0, p->n_hidden, "H");
  match(spec, kRows, in[kRows], 1, p->n_hidden, "H");
  if (in[kRowBias].data != nullptr) match(spec, kRowBias, in[kRowBias], 0, p->n_verbalizers, "V");
  match(spec, kCalibration, in[kCalibration], 0, 2, "the number of calibration values");
  p->hidden = in[kHidden].floats();
  p->pooled_at = in[kPooledAt].ints();
  p->norm_weight = in[kNormWeight].floats();
  p->norm_bias = in[kNormBias].floats();
  p->rows = in[kRows].floats();
  p->row_bias = in[kRowBias].floats();
  p->calibration = in[kCalibration].floats();
  return in[kPooledAt];
}

// PrefixAttention's heads, layer, offsets and scale.
template <typename Params>
Params attention_attributes(const Node& node) {
  Params p{};
  p.n_heads = node.int_attribute("heads");
  p.n_kv_heads = node.int_attribute("kv_heads");
  p.head_dim = node.int_attribute("head_dim");
  p.layer = node.int_attribute("layer");
  p.query_offset = node.int_attribute("query_offset");
  p.key_offset = node.int_attribute("key_offset");
  p.value_offset = node.int_attribute("value_offset");
  p.scale = node.float_attribute("scale");
  return p;
}

// What an operator still needs of PrefixAttention's tensors: context is a shape without data.
struct AttentionTensors {
  Tensor prefix_key, prefix_value, context;
};

// PrefixAttention's query, key_value, prefix_key, prefix_value, visible; *p has the attributes.
template <typename Params>
AttentionTensors read_attention(const Call& call, Params* p) {
  enum Input : size_t { kQuery, kKeyValue, kPrefixKey, kPrefixValue, kVisible };
  const OperatorSpec& spec = call.spec();
  std::array<Tensor, kVisible + 1> in;
  for (size_t i = 0; i < in.size(); ++i) in[i] = call.input(i);
  p->n_batch = in[kQuery].dims[0];
  p->n_queries = in[kQuery].dims[1];
  p->query_width = in[kQuery].dims[2];
  p->n_tokens = in[kKeyValue].dims[1];
  p->key_value_width = in[kKeyValue].dims[2];
  p->n_layers = in[kPrefixKey].dims[0];
  p->n_prefix = in[kPrefixKey].dims[2];
  match(spec, kKeyValue, in[kKeyValue], 0, p->n_batch, "B");
  match(spec, kPrefixKey, in[kPrefixKey], 1, p->n_kv_heads, "kv_heads");
  match(spec, kPrefixKey, in[kPrefixKey], 3, p->head_dim, "head_dim");
  match(spec, kPrefixValue, in[kPrefixValue], 0, p->n_layers, "L");
  match(spec, kPrefixValue, in[kPrefixValue], 1, p->n_kv_heads, "kv_heads");
  match(spec, kPrefixValue, in[kPrefixValue], 2, p->n_prefix, "P");
  match(spec, kPrefixValue, in[kPrefixValue], 3, p->head_dim, "head_dim");
  match(spec, kVisible, in[kVisible], 0, p->n_batch, "B");
  match(spec, kVisible, in[kVisible], 1, p->n_queries, "Q");
  p->query = in[kQuery].floats();
  p->key_value = in[kKeyValue].floats();
  p->prefix_key = in[kPrefixKey].data;
  p->prefix_value = in[kPrefixValue].data;
  p->visible = in[kVisible].ints();
  AttentionTensors tensors{in[kPrefixKey], in[kPrefixValue], in[kQuery]};
  tensors.context.data = nullptr;
  tensors.context.dims[2] = p->n_heads * p->head_dim;
  return tensors;
}

// Rope's heads, head_dim and epsilon.
template <typename Params>
Params rope_attributes(const Node& node) {
  Params p{};
  p.n_heads = node.int_attribute("heads");
  p.head_dim = node.int_attribute("head_dim");
  p.epsilon = node.float_attribute("epsilon");
  return p;
}

// Rope's x, positions, frequencies, weight; *p has the attributes. Returns x, whose shape y has.
template <typename Params>
Tensor read_rope(const Call& call, Params* p) {
  enum Input : size_t { kX, kPositions, kFrequencies, kWeight };
  const OperatorSpec& spec = call.spec();
  const Tensor x = call.input(kX), positions = call.input(kPositions);
  const Tensor frequencies = call.input(kFrequencies), weight = call.input(kWeight);
  if (positions.rank + 1 != x.rank) {
    throw std::invalid_argument(std::string(spec.name) + ": input positions has rank " +
                                std::to_string(positions.rank) + "; x has " +
                                std::to_string(x.rank) + ", which must be one more");
  }
  p->n_rows = rows_of(x);
  p->n_columns = x.dims[x.rank - 1];
  for (size_t axis = 0; axis + 1 < x.rank; ++axis) {
    match(spec, kPositions, positions, axis, x.dims[axis], "x");
  }
  match(spec, kFrequencies, frequencies, 0, p->head_dim / 2, "head_dim / 2");
  if (weight.data != nullptr) {
    match(spec, kWeight, weight, 0, p->n_heads * p->head_dim, "heads * head_dim");
  }
  p->x = x.floats();
  p->positions = positions.ints();
  p->frequencies = frequencies.floats();
  p->weight = weight.floats();
  return x;
}

// SwiGlu's x. Returns the shape of y.
template <typename Params>
Tensor read_swiglu(const Call& call, Params* p) {
  const Tensor x = call.input(0);
  Tensor like = x;
  like.data = nullptr;
  int64_t& last = like.dims[x.rank - 1];
  if (last % 2 != 0) {
    throw std::invalid_argument(std::string(call.spec().name) + ": input x has " +
                                std::to_string(last) +
                                " along its last axis; gate and up make an even number");
  }
  last /= 2;
  p->n_rows = rows_of(x);
  p->n_columns = last;
  p->x = x.floats();
  return like;
}

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_ORT_ARGUMENTS_H_
