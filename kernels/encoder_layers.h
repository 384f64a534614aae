// EncoderLayers: all layers of an encoder in one call, over a shared prefix: LinearI8,
// PrefixAttention and AddNorm in turn, the last layer only for the tokens that are read. The result
// is, to the bit, what these kernels give one after another; what is new is how threads share them
// (encoder_run.h). Not: embeddings, the norm of the last layer or the head, nor an ONNX operator
// (ort_encoder_layers.cc wraps this one). Weights are copied; all other arrays stay the caller's.
#ifndef CSRM_KERNELS_ENCODER_LAYERS_H_
#define CSRM_KERNELS_ENCODER_LAYERS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "csrm/status.h"
#include "isa.h"
#include "linear_i8.h"

namespace csrm::kernels {

// A LayerNorm's arrays, [hidden] each, read as long as EncoderLayers lives.
struct NormParams {
  const float* weight = nullptr;
  const float* bias = nullptr;
};

// One layer. hidden = n_heads * head_dim.
struct EncoderLayerParams {
  LinearI8Params query;      // [hidden, hidden]; of the last layer alone
  LinearI8Params key_value;  // [hidden, 2 * hidden] keys, values; before the last layer
                             // [hidden, 3 * hidden] queries, keys, values
  LinearI8Params attended;   // [hidden, hidden]
  NormParams attention_norm;
  LinearI8Params up, down;  // [hidden, inner], [inner, hidden]
  NormParams output_norm;   // not of the last layer
};

struct EncoderLayersParams {
  std::vector<EncoderLayerParams> layers;  // at least one
  int64_t n_heads, head_dim;
  float scale;    // of the products of queries and keys
  float epsilon;  // of the norms
  bool is_bf16;   // as PrefixAttentionParams has it
};

// B = n_batch, T = n_tokens, J = n_pooled, P = n_prefix, L = layers, D = head_dim.
struct EncoderLayersCall {
  const float* states;        // [B, T, hidden]
  const float* prefix_key;    // [L, n_heads, P, D]
  const float* prefix_value;  // [L, n_heads, P, D]
  const int64_t* visible;     // [B, T] own-row tokens that each sees, the first ones; in [0, T]
  const int64_t* pooled_at;   // [B, J] the tokens that are read, < T; a negative number reads 0
  float* key;                 // [B, L, n_heads, T, D] out
  float* value;               // [B, L, n_heads, T, D] out
  float* pooled;              // [B, J, hidden] out: what the last layer's norm takes
  int64_t n_batch, n_tokens, n_pooled, n_prefix;
};

// Ready to run. Immutable: any number of threads may run calls at once.
class EncoderLayers {
 public:
  struct Layer {
    std::vector<LinearI8> query;  // one, of the last layer
    LinearI8 key_value, attended, up, down;
    NormParams attention_norm, output_norm;
  };

  // Packs the weights, 1 byte each. Errors: BadArgument (sizes, pointers), Unsupported (isa).
  static Result<EncoderLayers> make(const EncoderLayersParams& params, Isa isa = Isa::kBest);

  // Errors: BadArgument (an argument outside the ranges above).
  Status check(const EncoderLayersCall& call) const;

  int64_t n_layers() const noexcept { return static_cast<int64_t>(layers_.size()); }
  const Layer& layer(int64_t i) const noexcept { return layers_[static_cast<size_t>(i)]; }
  bool is_last(int64_t i) const noexcept { return i + 1 == n_layers(); }
  int64_t n_heads() const noexcept { return n_heads_; }
  int64_t head_dim() const noexcept { return head_dim_; }
  int64_t hidden() const noexcept { return n_heads_ * head_dim_; }
  int64_t inner() const noexcept { return layers_[0].up.n_out(); }
  float scale() const noexcept { return scale_; }
  float epsilon() const noexcept { return epsilon_; }
  bool is_bf16() const noexcept { return is_bf16_; }
  Isa isa() const noexcept { return isa_; }

 private:
  EncoderLayers() = default;

  std::vector<Layer> layers_;
  int64_t n_heads_ = 0, head_dim_ = 0;
  float scale_ = 0, epsilon_ = 0;
  bool is_bf16_ = false;
  Isa isa_ = Isa::kBest;
};

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_ENCODER_LAYERS_H_
