// EncoderI8: embeddings and all layers of an encoder in one call, over a shared prefix: AddNorm,
// LinearI8 and PrefixAttention in turn, the last layer only for the tokens that are read. The
// result is, to the bit, what these kernels give one after another; what is new is how threads
// share them (encoder_i8_run.h). Not: the norm of the last layer or the head, nor an ONNX operator
// (ort_encoder_i8.cc wraps this one). Weights of linear layers are copied; all other arrays stay
// the caller's.
#ifndef CSRM_KERNELS_ENCODER_I8_H_
#define CSRM_KERNELS_ENCODER_I8_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "csrm/status.h"
#include "isa.h"
#include "linear_i8.h"
#include "packed_prefix.h"

namespace csrm::kernels {

// A LayerNorm's arrays, [hidden] each, read as long as EncoderI8 lives.
struct NormParams {
  const float* weight = nullptr;
  const float* bias = nullptr;
};

// The first states of a token: norm of (tokens[id] * scale[id] + positions[..]) + segments[..],
// with one rounding per operation. Read as long as EncoderI8 lives.
struct EmbeddingParams {
  const int8_t* tokens;    // [n_tokens, hidden]
  const float* scale;      // [n_tokens]
  const float* positions;  // [n_positions, hidden]
  const float* segments;   // [n_segments, hidden]
  NormParams norm;
  int64_t n_tokens, n_positions, n_segments;  // >= 1
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

struct EncoderI8Params {
  EmbeddingParams embedding;
  std::vector<EncoderLayerParams> layers;  // at least one
  int64_t n_heads, head_dim;
  float scale;    // of the products of queries and keys
  float epsilon;  // of the norms
  bool is_bf16;   // as PrefixAttentionParams has it
};

// B = n_batch, T = n_tokens, J = n_pooled, P = n_prefix, L = layers, D = head_dim.
struct EncoderI8Call {
  const int64_t* input_ids;     // [B, T] in [0, n_tokens)
  const int64_t* position_ids;  // [B, T] in [0, n_positions)
  const int64_t* segment_ids;   // [B, T] in [0, n_segments)
  const int64_t* visible;       // [B, T] own-row tokens that each sees, the first ones; in [0, T]
  const int64_t* pooled_at;     // [B, J] the tokens that are read, < T; a negative number reads 0
  const float* prefix_key;      // [L, n_heads, P, D]
  const float* prefix_value;    // [L, n_heads, P, D]
  PackedPrefix* packed_prefix;  // as PrefixAttentionParams has it; may be null
  float* key;                   // [B, L, n_heads, T, D] out; null, as value: it is not wanted
  float* value;                 // [B, L, n_heads, T, D] out
  float* pooled;                // [B, J, hidden] out: what the last layer's norm takes
  int64_t n_batch, n_tokens, n_pooled, n_prefix;
};

// Ready to run. Immutable: any number of threads may run calls at once.
class EncoderI8 {
 public:
  struct Layer {
    std::vector<LinearI8> query;  // one, of the last layer
    LinearI8 key_value, attended, up, down;
    NormParams attention_norm, output_norm;
  };

  // Packs the weights, 1 byte each. Errors: BadArgument (sizes, pointers), Unsupported (isa).
  static Result<EncoderI8> make(const EncoderI8Params& params, Isa isa = Isa::kBest);

  // Errors: BadArgument (an argument outside the ranges above).
  Status check(const EncoderI8Call& call) const;

  const EmbeddingParams& embedding() const noexcept { return embedding_; }
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
  // Whether attention reads a PackedPrefix on this CPU.
  bool reads_packed() const noexcept;

 private:
  EncoderI8() = default;

  EmbeddingParams embedding_{};
  std::vector<Layer> layers_;
  int64_t n_heads_ = 0, head_dim_ = 0;
  float scale_ = 0, epsilon_ = 0;
  bool is_bf16_ = false;
  Isa isa_ = Isa::kBest;
};

}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_ENCODER_I8_H_
