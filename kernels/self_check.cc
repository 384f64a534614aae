// The small cases of self_check.h. Sizes are odd on purpose: whole vectors and panels and what is
// left over are both in them.
#include "self_check.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "add_norm.h"
#include "half.h"
#include "half_key_value.h"
#include "linear.h"
#include "linear_i8.h"
#include "prefix_attention.h"
#include "reward_head.h"
#include "rope.h"
#include "swiglu.h"

namespace csrm::kernels {
namespace {

using Floats = std::vector<float>;

// `n` numbers in [-1, 1), the same ones for the same `first`.
Floats numbers(size_t n, uint32_t first) {
  Floats result(n);
  uint32_t state = first;
  for (float& value : result) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31f;
  }
  return result;
}

bool reward_head_of(Isa isa, Floats* y) {
  constexpr int64_t kHidden = 83, kVerbalizers = 7, kPooled = 2;
  const Floats hidden = numbers(2 * kHidden, 1), rows = numbers(kVerbalizers * kHidden, 2);
  const Floats weight = numbers(kHidden, 3), bias = numbers(kHidden, 4);
  const Floats row_bias = numbers(kVerbalizers, 5);
  const int64_t pooled_at[kPooled] = {1, 0};
  const float calibration[2] = {1.25f, -0.5f};
  y->resize(4 * kPooled);
  RewardHeadParams p{};
  p.hidden = hidden.data();
  p.pooled_at = pooled_at;
  p.norm_weight = weight.data();
  p.norm_bias = bias.data();
  p.rows = rows.data();
  p.row_bias = row_bias.data();
  p.calibration = calibration;
  p.reward = y->data();
  p.compliance = y->data() + kPooled;
  p.n_batch = 1;
  p.n_tokens = p.n_pooled = kPooled;
  p.n_hidden = kHidden;
  p.n_verbalizers = kVerbalizers;
  p.n_safe = 3;
  p.epsilon = 1e-5f;
  if (!reward_head(p, isa).ok()) return false;
  p.reward += 2 * kPooled;
  p.compliance += 2 * kPooled;
  p.norm_bias = p.row_bias = nullptr;
  p.is_rms = true;
  return reward_head(p, isa).ok();
}

bool add_norm_of(Isa isa, Floats* y) {
  constexpr int64_t kRows = 3, kColumns = 83;
  const Floats x = numbers(kRows * kColumns, 6), residual = numbers(kRows * kColumns, 7);
  const Floats weight = numbers(kColumns, 8), bias = numbers(kColumns, 9);
  constexpr int64_t kSize = kRows * kColumns;
  y->resize(3 * kSize);
  AddNormParams p{x.data(),  residual.data(), weight.data(), bias.data(),
                  y->data(), kRows,           kColumns,      1e-5f};
  for (bool is_rms : {false, true}) {
    if (!check_add_norm(p, isa).ok()) return false;
    for (size_t i = 0; i < add_norm_tasks(p); ++i) run_add_norm_task(p, isa, i);
    if (is_rms) break;
    p.bias = nullptr;
    p.is_rms = true;
    p.y += kSize;
    p.sum = p.y + kSize;
  }
  return true;
}

bool rope_of(Isa isa, Floats* y) {
  constexpr int64_t kRows = 2, kHeads = 2, kDim = 42, kColumns = kHeads * kDim + 5;
  const Floats x = numbers(kRows * kColumns, 19), weight = numbers(kHeads * kDim, 20);
  const Floats frequencies = numbers(kDim / 2, 21);
  const int64_t positions[kRows] = {3, 700};
  y->resize(2 * kRows * kColumns);
  RopeParams p{};
  p.x = x.data();
  p.positions = positions;
  p.frequencies = frequencies.data();
  p.n_rows = kRows;
  p.n_columns = kColumns;
  p.n_heads = kHeads;
  p.head_dim = kDim;
  p.epsilon = 1e-5f;
  for (bool has_norm : {false, true}) {
    p.weight = has_norm ? weight.data() : nullptr;
    p.y = y->data() + (has_norm ? kRows * kColumns : 0);
    if (!check_rope(p, isa).ok()) return false;
    for (size_t i = 0; i < rope_tasks(p); ++i) run_rope_task(p, isa, i);
  }
  return true;
}

bool swiglu_of(Isa isa, Floats* y) {
  constexpr int64_t kRows = 2, kColumns = 83;
  Floats x = numbers(kRows * 2 * kColumns, 22);
  for (int64_t i = 0; i < kColumns; ++i) x[static_cast<size_t>(i)] *= 30.0f;
  y->resize(kRows * kColumns);
  const SwiGluParams p{x.data(), y->data(), kRows, kColumns};
  if (!check_swiglu(p, isa).ok()) return false;
  for (size_t i = 0; i < swiglu_tasks(p); ++i) run_swiglu_task(p, isa, i);
  return true;
}

// Rows of both linear layers: tiles of 5, 4 and 1.
constexpr int64_t kLinearRows[] = {9, 1};
constexpr int64_t kIn = 45, kOut = 167;

std::vector<int8_t> weights() {
  std::vector<int8_t> result;
  for (float value : numbers(kIn * kOut, 10)) {
    result.push_back(static_cast<int8_t>(std::lrint(127.0f * value)));
  }
  return result;
}

bool linear_of(Isa isa, Floats* y) {
  const std::vector<int8_t> values = weights();
  const Floats scale(kOut, 0.002f), bias = numbers(kOut, 11);
  const LinearParams p{values.data(), scale.data(), nullptr, bias.data(), kIn, kOut, true};
  const Result<Linear> linear = Linear::make(p, isa);
  if (!linear.ok()) return false;
  for (int64_t n_rows : kLinearRows) {
    const Floats x = numbers(static_cast<size_t>(n_rows * kIn), 12);
    Floats part(static_cast<size_t>(n_rows * kOut));
    for (size_t i = 0; i < linear.value().n_tasks(n_rows); ++i) {
      linear.value().run_task(x.data(), n_rows, part.data(), i);
    }
    y->insert(y->end(), part.begin(), part.end());
  }
  return true;
}

bool linear_i8_of(Isa isa, Floats* y) {
  if (!linear_i8_supported(isa)) return true;  // no version of its own: nobody will run it
  // Of tiles: several in depth, whole ones and parts in both other directions.
  constexpr int64_t kDepth = 150, kWidth = 45, kRows[] = {19, 1};
  const std::vector<int8_t> values = weights();
  static_assert(kDepth * kWidth <= kIn * kOut, "of the same weights");
  const Floats scale(kWidth, 0.002f), bias = numbers(kWidth, 13);
  for (int64_t levels : {kByteLevels, kWordLevels}) {
    const LinearI8Params p{values.data(), scale.data(), bias.data(), kDepth, kWidth, levels, true};
    const Result<LinearI8> linear = LinearI8::make(p, isa);
    if (!linear.ok()) return false;
    for (int64_t n_rows : kRows) {
      const Floats x = numbers(static_cast<size_t>(n_rows * kDepth), 14);
      Floats part(static_cast<size_t>(n_rows * kWidth));
      Aligned<char> scratch = aligned<char>(linear.value().scratch_size(n_rows));
      if (scratch == nullptr) return false;
      for (size_t i = 0; i < linear.value().n_round_tasks(n_rows); ++i) {
        linear.value().round_task(x.data(), n_rows, scratch.get(), i);
      }
      for (size_t i = 0; i < linear.value().n_tasks(n_rows); ++i) {
        linear.value().run_task(scratch.get(), n_rows, part.data(), i);
      }
      y->insert(y->end(), part.begin(), part.end());
    }
  }
  return true;
}

// Sizes of keys and values.
constexpr int64_t kKvHeads = 2, kDim = 11, kPrefix = 67;

std::vector<uint16_t> halves(const Floats& from) {
  std::vector<uint16_t> result;
  for (float value : from) result.push_back(to_half(value));
  return result;
}

// Appended to `y`. `given` has the prefix and what is special.
bool prefix_attention_over(const PrefixAttentionParams& given, int64_t head_dim, Isa isa,
                           Floats* y) {
  constexpr int64_t kHeads = 4, kTokens = 19;
  const int64_t query_width = kHeads * head_dim, key_width = 2 * kKvHeads * head_dim;
  const Floats query = numbers(static_cast<size_t>(kTokens * query_width), 15);
  const Floats key_value = numbers(static_cast<size_t>(kTokens * key_width), 16);
  std::vector<int64_t> visible;
  for (int64_t t = 0; t < kTokens; ++t) visible.push_back(t + 1);
  y->resize(y->size() + query.size());
  PrefixAttentionParams p = given;
  p.query = query.data();
  p.key_value = key_value.data();
  p.visible = visible.data();
  p.context = y->data() + y->size() - query.size();
  p.n_batch = p.n_layers = 1;
  p.n_queries = p.n_tokens = kTokens;
  p.n_prefix = kPrefix;
  p.n_heads = kHeads;
  p.n_kv_heads = kKvHeads;
  p.head_dim = head_dim;
  p.query_width = query_width;
  p.key_value_width = key_width;
  p.value_offset = kKvHeads * head_dim;
  p.scale = 1.5f;
  if (!check_prefix_attention(p, isa).ok()) return false;
  for (size_t i = 0; i < prefix_attention_tasks(p, isa); ++i) {
    if (!run_prefix_attention_task(p, isa, i)) return false;
  }
  return true;
}

bool prefix_attention_of(Isa isa, Floats* y) {
  const Floats key = numbers(kKvHeads * kPrefix * kDim, 17);
  const Floats value = numbers(kKvHeads * kPrefix * kDim, 18);
  const std::vector<uint16_t> half_key = halves(key), half_value = halves(value);
  PrefixAttentionParams p{};
  p.prefix_key = key.data();
  p.prefix_value = value.data();
  if (!prefix_attention_over(p, kDim, isa, y)) return false;
  p.prefix_key = half_key.data();
  p.prefix_value = half_value.data();
  p.is_half = true;
  return prefix_attention_over(p, kDim, isa, y);
}

// Products of bfloat16 where `isa` has them, which the portable version computes in fp32.
bool bf16_attention_of(Isa isa, Floats* y) {
  constexpr int64_t kTileDim = 64;
  const Floats key = numbers(kKvHeads * kPrefix * kTileDim, 23);
  const Floats value = numbers(kKvHeads * kPrefix * kTileDim, 24);
  PrefixAttentionParams p{};
  p.prefix_key = key.data();
  p.prefix_value = value.data();
  p.is_bf16 = true;
  return prefix_attention_over(p, kTileDim, isa, y);
}

bool half_key_value_of(Isa isa, Floats* y) {
  constexpr int64_t kTokens = 17, kWidth = 2 * kKvHeads * kDim;
  const Floats states = numbers(kTokens * kWidth, 19);
  std::vector<uint16_t> key(kKvHeads * kTokens * kDim), value(key.size());
  const HalfKeyValueParams p{states.data(), key.data(), value.data(), 1, kTokens,
                             kKvHeads,      kDim,       kWidth,       0, kKvHeads * kDim};
  if (!check_half_key_value(p, isa).ok()) return false;
  for (size_t i = 0; i < half_key_value_tasks(p); ++i) run_half_key_value_task(p, isa, i);
  for (const auto* part : {&key, &value}) {
    for (uint16_t half : *part) y->push_back(from_half(half));
  }
  return true;
}

// Results of numbers near 1: a few ulp of sums of some hundred terms. NaN is never near.
constexpr float kTolerance = 2e-5f;
// The same with every factor rounded by up to 2^-9 of it.
constexpr float kBf16Tolerance = 1e-2f;

bool are_near(const Floats& a, const Floats& b, float tolerance) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!(std::abs(a[i] - b[i]) <= tolerance)) return false;
  }
  return true;
}

struct Check {
  bool (*answers)(Isa isa, Floats* y);
  float tolerance = kTolerance;
};

}  // namespace

bool passes_self_check(Isa isa) noexcept {
  constexpr Check kChecks[] = {{reward_head_of},
                               {add_norm_of},
                               {linear_of},
                               {linear_i8_of},
                               {prefix_attention_of},
                               {bf16_attention_of, kBf16Tolerance},
                               {half_key_value_of},
                               {rope_of},
                               {swiglu_of}};
  try {
    for (const Check& check : kChecks) {
      Floats portable, wide;
      if (!check.answers(isa, &wide)) return false;
      if (wide.empty()) continue;
      if (!check.answers(Isa::kPortable, &portable)) return false;
      if (!are_near(wide, portable, check.tolerance)) return false;
    }
  } catch (...) {  // memory is out
    return false;
  }
  return true;
}

}  // namespace csrm::kernels
