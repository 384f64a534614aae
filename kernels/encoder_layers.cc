// Argument checks and packing of EncoderLayers. Not: how a call is run (encoder_run.cc).
// Arguments come from ort_encoder_layers.cc or a C++ caller. Messages name numbers, never data.
#include "encoder_layers.h"

#include <cmath>
#include <string>
#include <utility>

namespace csrm::kernels {
namespace {

Status bad_argument(const std::string& message) {
  return {Code::kBadArgument, "EncoderLayers: " + message};
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

Status check_params(const EncoderLayersParams& p) {
  if (p.layers.empty()) return bad_argument("there are no layers; give at least one");
  if (p.n_heads < 1 || p.head_dim < 1) {
    return bad_argument(std::to_string(p.n_heads) + " heads of " + std::to_string(p.head_dim) +
                        "; both must be >= 1");
  }
  if (!std::isfinite(p.scale)) return bad_argument("scale is not finite");
  if (!std::isfinite(p.epsilon) || p.epsilon < 0) {
    return bad_argument("epsilon is negative or not finite");
  }
  const Sizes sizes{p.n_heads * p.head_dim, p.layers[0].up.n_out};
  for (size_t i = 0; i < p.layers.size(); ++i) {
    const Status status =
        check_layer(p.layers[i], static_cast<int64_t>(i), i + 1 == p.layers.size(), sizes);
    if (!status.ok()) return status;
  }
  return Status::success();
}

Result<EncoderLayers::Layer> made_layer(const EncoderLayerParams& p, bool is_last, Isa isa) {
  std::vector<LinearI8> query, others;
  if (is_last) {
    Result<LinearI8> linear = LinearI8::make(p.query, isa);
    if (!linear.ok()) return linear.status();
    query.push_back(std::move(linear).value());
  }
  for (const LinearI8Params* params : {&p.key_value, &p.attended, &p.up, &p.down}) {
    Result<LinearI8> linear = LinearI8::make(*params, isa);
    if (!linear.ok()) return linear.status();
    others.push_back(std::move(linear).value());
  }
  return EncoderLayers::Layer{std::move(query),     std::move(others[0]), std::move(others[1]),
                              std::move(others[2]), std::move(others[3]), p.attention_norm,
                              p.output_norm};
}

// The first of `n` numbers that is not below `end`, and with `least` not below it; n if there is
// none.
int64_t first_outside(const int64_t* numbers, int64_t n, int64_t least, int64_t end) {
  for (int64_t i = 0; i < n; ++i) {
    if (numbers[i] < least || numbers[i] >= end) return i;
  }
  return n;
}

}  // namespace

Result<EncoderLayers> EncoderLayers::make(const EncoderLayersParams& params, Isa isa) {
  if (Status status = check_params(params); !status.ok()) return status;
  EncoderLayers made;
  for (const EncoderLayerParams& layer : params.layers) {
    Result<Layer> one = made_layer(layer, &layer == &params.layers.back(), isa);
    if (!one.ok()) return one.status();
    made.layers_.push_back(std::move(one).value());
  }
  made.n_heads_ = params.n_heads;
  made.head_dim_ = params.head_dim;
  made.scale_ = params.scale;
  made.epsilon_ = params.epsilon;
  made.is_bf16_ = params.is_bf16;
  made.isa_ = isa;
  return made;
}

Status EncoderLayers::check(const EncoderLayersCall& c) const {
  if (c.n_batch < 0 || c.n_tokens < 0 || c.n_pooled < 0 || c.n_prefix < 0) {
    return bad_argument("a batch, token, pooled or prefix count is negative; give sizes >= 0");
  }
  const int64_t n_rows = c.n_batch * c.n_tokens, n_read = c.n_batch * c.n_pooled;
  const bool has_rows = n_rows == 0 || (c.states && c.visible && c.key && c.value);
  const bool has_read = n_read == 0 || (c.pooled_at && c.pooled);
  const bool has_prefix = c.n_prefix == 0 || (c.prefix_key && c.prefix_value);
  if (!has_rows || !has_read || !has_prefix) {
    return bad_argument("a pointer is null; give every array of EncoderLayersCall");
  }
  if (n_read > 0 && n_rows == 0) {
    return bad_argument("rows have no tokens; there is none to read");
  }
  if (const int64_t i = first_outside(c.visible, n_rows, 0, c.n_tokens + 1); i < n_rows) {
    return bad_argument("visible[" + std::to_string(i / c.n_tokens) + ", " +
                        std::to_string(i % c.n_tokens) + "] is " + std::to_string(c.visible[i]) +
                        "; give a number from 0 to " + std::to_string(c.n_tokens) +
                        ", the tokens of a row");
  }
  const int64_t i = first_outside(c.pooled_at, n_read, INT64_MIN, c.n_tokens);
  if (i == n_read) return Status::success();
  return bad_argument("pooled_at[" + std::to_string(i / c.n_pooled) + ", " +
                      std::to_string(i % c.n_pooled) + "] is " + std::to_string(c.pooled_at[i]) +
                      "; rows have " + std::to_string(c.n_tokens) + " tokens");
}

}  // namespace csrm::kernels
