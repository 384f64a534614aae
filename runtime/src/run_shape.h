// The shapes in which an engine on a device runs, and where their inputs lie in one block of
// memory. Tokens of a row and judged blocks are padded to a few sizes, always the same for the same
// input: so a captured graph serves many inputs, and a score never depends on whether one was
// captured. Padding is what a batch does to its shorter rows: ids of 0 that see nothing and are not
// read. Not: the tokens of a prefix, which every query sees: they cannot be padded. No memory is
// touched.
#ifndef CSRM_SRC_RUN_SHAPE_H_
#define CSRM_SRC_RUN_SHAPE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <tuple>

#include "engine.h"

namespace csrm {

constexpr size_t kIntegerInputs = 5;  // input_ids, position_ids, segment_ids, visible, pooled_at

// Tokens that a row of `n` is padded to.
constexpr int64_t padded_tokens(int64_t n) {
  const int64_t step = n <= 128 ? 16 : n <= 512 ? 32 : n <= 2048 ? 128 : 256;
  return (n + step - 1) / step * step;
}

// The next power of two.
constexpr int64_t padded_pooled(int64_t n) {
  int64_t padded = 1;
  while (padded < n) padded *= 2;
  return padded;
}

struct RunShape {
  int64_t n_rows = 0, row_tokens = 0, n_pooled = 0, n_prefix = 0;
  bool want_reward = false, want_key_value = false;

  bool operator<(const RunShape& other) const { return order() < other.order(); }
  std::tuple<int64_t, int64_t, int64_t, int64_t, bool, bool> order() const {
    return {n_rows, row_tokens, n_pooled, n_prefix, want_reward, want_key_value};
  }
  int64_t n_tokens() const { return n_rows * row_tokens; }
  int64_t n_results() const { return n_rows * n_pooled; }
};

// The shape in which `input` is run. Keys and values leave in the caller's shape, so what asks for
// them is not padded.
inline RunShape run_shape(const EncodeInput& input) {
  const bool is_padded = !input.want_key_value;
  return {input.n_rows,
          is_padded ? padded_tokens(input.row_tokens) : input.row_tokens,
          is_padded ? padded_pooled(input.n_pooled) : input.n_pooled,
          input.n_prefix_tokens,
          input.want_reward,
          input.want_key_value};
}

constexpr size_t kTensorAlignment = 256;
constexpr size_t aligned(size_t n_bytes) {
  return (n_bytes + kTensorAlignment - 1) / kTensorAlignment * kTensorAlignment;
}

// Byte offsets of the integer inputs in one block, and the block's size at the end.
inline std::array<size_t, kIntegerInputs + 1> input_offsets(const RunShape& shape) {
  std::array<size_t, kIntegerInputs + 1> offsets{};
  for (size_t i = 0; i < kIntegerInputs; ++i) {
    const int64_t n = i + 1 < kIntegerInputs ? shape.n_tokens() : shape.n_results();
    offsets[i + 1] = offsets[i] + aligned(static_cast<size_t>(n) * sizeof(int64_t));
  }
  return offsets;
}

}  // namespace csrm

#endif  // CSRM_SRC_RUN_SHAPE_H_
