// Argument checks and packing of EncoderI8. Not: how a call is run (encoder_i8_run.cc).
// Arguments come from ort_encoder_i8.cc or a C++ caller. Messages name numbers, never data.
#include "encoder_i8.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "prefix_attention.h"

namespace csrm::kernels {
namespace {

Status bad_argument(const std::string& message) {
  return {Code::kBadArgument, "EncoderI8: " + message};
}

// How many columns the linear layers of a layer have.
struct Sizes {
  int64_t hidden, inner;
};

Status check_linear(const char* name, int64_t layer, const LinearI8Params& p, int64_t n_in,
                    int64_t n_out) {
  if (p.n_in == n_in && p.n_out == n_out) return Status::success();
  return bad_argument(std::string(name) + " of layer " + std::to_string(layer) + " is " +
                      std::to_string(p.n_in) + " x " + std::to_string(p.n_out) + "; it must be " +
                      std::to_string(n_in) + " x " + std::to_string(n_out));
}

Status check_layer(const EncoderLayerParams& p, int64_t layer, bool is_last, const Sizes& sizes) {
  const int64_t hidden = sizes.hidden;
  for (Status status :
       {is_last ? check_linear("query", layer, p.query, hidden, hidden) : Status::success(),
        check_linear(is_last ? "key_value" : "query_key_value", layer, p.key_value, hidden,
                     (is_last ? 2 : 3) * hidden),
        check_linear("attended", layer, p.attended, hidden, hidden),
        check_linear("up", layer, p.up, hidden, sizes.inner),
        check_linear("down", layer, p.down, sizes.inner, hidden)}) {
    if (!status.ok()) return status;
  }
  const bool has_output_norm = p.output_norm.weight != nullptr && p.output_norm.bias != nullptr;
  if (p.attention_norm.weight == nullptr || p.attention_norm.bias == nullptr ||
      (!is_last && !has_output_norm)) {
    return bad_argument("a pointer is null; give weight and bias of every norm");
  }
  return Status::success();
}

Status check_embedding(const EmbeddingParams& p) {
  if (p.n_tokens < 1 || p.n_positions < 1 || p.n_segments < 1) {
    return bad_argument("a table of embeddings has no rows; tokens, positions and segments have " +
                        std::to_string(p.n_tokens) + ", " + std::to_string(p.n_positions) + ", " +
                        std::to_string(p.n_segments));
  }
  if (p.tokens && p.scale && p.positions && p.segments && p.norm.weight && p.norm.bias) {
    return Status::success();
  }
  return bad_argument("a pointer is null; give every array of EmbeddingParams");
}

Status check_params(const EncoderI8Params& p) {
  if (p.layers.empty()) return bad_argument("there are no layers; give at least one");
  if (p.n_heads < 1 || p.head_dim < 1) {
    return bad_argument(std::to_string(p.n_heads) + " heads of " + std::to_string(p.head_dim) +
                        "; both must be >= 1");
  }
  if (!std::isfinite(p.scale)) return bad_argument("scale is not finite");
  if (!std::isfinite(p.epsilon) || p.epsilon < 0) {
    return bad_argument("epsilon is negative or not finite");
  }
  if (Status status = check_embedding(p.embedding); !status.ok()) return status;
  const Sizes sizes{p.n_heads * p.head_dim, p.layers[0].up.n_out};
  for (size_t i = 0; i < p.layers.size(); ++i) {
    const Status status =
        check_layer(p.layers[i], static_cast<int64_t>(i), i + 1 == p.layers.size(), sizes);
    if (!status.ok()) return status;
  }
  return Status::success();
}

size_t packed_size(const EncoderI8Params& params, Isa isa) {
  size_t size = LinearI8::packed_size(params.layers.back().query, isa);
  for (const EncoderLayerParams& p : params.layers) {
    for (const LinearI8Params* linear : {&p.key_value, &p.attended, &p.up, &p.down}) {
      size += LinearI8::packed_size(*linear, isa);
    }
  }
  return size;
}

// `memory` has room for what is left of the packed_size().
Result<EncoderI8::Layer> made_layer(const EncoderLayerParams& p, bool is_last, Isa isa,
                                    WeightMemory* memory) {
  std::vector<LinearI8> query, others;
  if (is_last) {
    Result<LinearI8> linear = LinearI8::make(p.query, isa, memory);
    if (!linear.ok()) return linear.status();
    query.push_back(std::move(linear).value());
  }
  for (const LinearI8Params* params : {&p.key_value, &p.attended, &p.up, &p.down}) {
    Result<LinearI8> linear = LinearI8::make(*params, isa, memory);
    if (!linear.ok()) return linear.status();
    others.push_back(std::move(linear).value());
  }
  return EncoderI8::Layer{std::move(query),     std::move(others[0]), std::move(others[1]),
                          std::move(others[2]), std::move(others[3]), p.attention_norm,
                          p.output_norm};
}

// Of numbers [.., width]: all must be at least `least` and below `end`.
Status check_range(const char* name, const int64_t* numbers, int64_t n, int64_t width,
                   int64_t least, int64_t end) {
  const int64_t* const last = numbers + n;
  const int64_t* const found =
      std::find_if(numbers, last, [&](int64_t i) { return i < least || i >= end; });
  if (found == last) return Status::success();
  const int64_t place = found - numbers;
  return bad_argument(std::string(name) + "[" + std::to_string(place / width) + ", " +
                      std::to_string(place % width) + "] is " + std::to_string(*found) +
                      "; it must be " + (least == 0 ? "at least 0 and " : "") + "below " +
                      std::to_string(end));
}

}  // namespace

Result<EncoderI8> EncoderI8::make(const EncoderI8Params& params, Isa isa) {
  if (Status status = check_params(params); !status.ok()) return status;
  WeightMemory memory(packed_size(params, isa));
  EncoderI8 made;
  for (const EncoderLayerParams& layer : params.layers) {
    Result<Layer> one = made_layer(layer, &layer == &params.layers.back(), isa, &memory);
    if (!one.ok()) return one.status();
    made.layers_.push_back(std::move(one).value());
  }
  made.embedding_ = params.embedding;
  made.n_heads_ = params.n_heads;
  made.head_dim_ = params.head_dim;
  made.scale_ = params.scale;
  made.epsilon_ = params.epsilon;
  made.is_bf16_ = params.is_bf16;
  made.isa_ = isa;
  return made;
}

bool EncoderI8::reads_packed() const noexcept {
  PrefixAttentionParams p{};
  p.is_bf16 = is_bf16_;
  p.head_dim = head_dim_;
  return has_bf16_products(p, isa_);
}

Status EncoderI8::check(const EncoderI8Call& c) const {
  if (c.n_batch < 0 || c.n_tokens < 0 || c.n_pooled < 0 || c.n_prefix < 0) {
    return bad_argument("a batch, token, pooled or prefix count is negative; give sizes >= 0");
  }
  const int64_t n_rows = c.n_batch * c.n_tokens, n_read = c.n_batch * c.n_pooled;
  const bool has_rows =
      n_rows == 0 || (c.input_ids && c.position_ids && c.segment_ids && c.visible);
  const bool has_read = n_read == 0 || (c.pooled_at && c.pooled);
  const bool has_prefix = c.n_prefix == 0 || (c.prefix_key && c.prefix_value);
  const bool has_outputs = (c.key == nullptr) == (c.value == nullptr);
  if (!has_outputs || !has_rows || !has_read || !has_prefix) {
    return bad_argument("a pointer is null; give every array of EncoderI8Call");
  }
  if (n_read > 0 && n_rows == 0) {
    return bad_argument("rows have no tokens; there is none to read");
  }
  const int64_t n = c.n_tokens;
  for (Status status :
       {check_range("input_ids", c.input_ids, n_rows, n, 0, embedding_.n_tokens),
        check_range("position_ids", c.position_ids, n_rows, n, 0, embedding_.n_positions),
        check_range("segment_ids", c.segment_ids, n_rows, n, 0, embedding_.n_segments),
        check_range("visible", c.visible, n_rows, n, 0, n + 1),
        check_range("pooled_at", c.pooled_at, n_read, c.n_pooled, INT64_MIN, n)}) {
    if (!status.ok()) return status;
  }
  return Status::success();
}

}  // namespace csrm::kernels
