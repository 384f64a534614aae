// How LinearI8 rounds the rows of x, written once over a vector of floats (Vector, vector_*.h) and
// a version's integers (linear_i8_tile.h). Included by linear_i8_tile.h and linear_i8_amx.cc, and
// nowhere else. Not: products.
#ifndef CSRM_KERNELS_LINEAR_I8_ROWS_H_
#define CSRM_KERNELS_LINEAR_I8_ROWS_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "linear_i8_block.h"
#include "unroll.h"

namespace csrm::kernels {
namespace {

constexpr int64_t kWidth = Vector::kWidth;
constexpr float kLeast = 1e-30f;  // a row of smaller values counts as zeros

// The largest |x| of a row; NaN if one of them is not finite.
CSRM_TARGET inline float largest(const float* x, int64_t n) {
  auto most = Vector::set(0.0f);
  int64_t k = 0;
  for (; k + kWidth <= n; k += kWidth) most = Vector::max_size(most, Vector::load(x + k));
  float lanes[kWidth] = {};
  std::copy(x + k, x + n, lanes);
  Vector::store(lanes, Vector::max_size(most, Vector::load(lanes)));
  // Without a sign floats are ordered as their bits are; those that are not finite come last.
  int32_t bits[kWidth], result = 0;
  std::memcpy(bits, lanes, sizeof(bits));
  for (int64_t i = 0; i < kWidth; ++i) result = std::max(result, bits[i]);
  float size;
  std::memcpy(&size, &result, sizeof(size));
  return size <= std::numeric_limits<float>::max() ? size : std::numeric_limits<float>::quiet_NaN();
}

// y of sums: sum * (x_scale * scale) + bias, rounded after every operation. The file that includes
// this is compiled with -ffp-contract=off (CMakeLists.txt): the compiler would make one operation
// of the last two.
CSRM_TARGET inline Vector::Register dequantised(Vector::Register sum, Vector::Register x_scale,
                                                Vector::Register scale, Vector::Register bias) {
  return Vector::add(Vector::mul(sum, Vector::mul(x_scale, scale)), bias);
}

// One row of integers: x times `factor`.
template <typename Integers>
CSRM_TARGET inline void round_row(const float* x, int64_t n_in, float factor,
                                  typename Integers::Value* out) {
  using Value = typename Integers::Value;
  constexpr int64_t kValuesEach = Integers::kValueSize / static_cast<int64_t>(sizeof(Value));
  constexpr int64_t kAtOnce = Integers::kVectors * kWidth;
  const auto factors = Vector::set(factor);
  for (int64_t k = 0; k < n_in; k += kAtOnce) {
    float rest[kAtOnce];
    const float* from = x + k;
    if (k + kAtOnce > n_in) {  // what lies behind meets weights of zero
      std::fill(std::copy(from, x + n_in, rest), rest + kAtOnce, 0.0f);
      from = rest;
    }
    Vector::Register scaled[Integers::kVectors];
    CSRM_UNROLL
    for (int i = 0; i < Integers::kVectors; ++i) {
      scaled[i] = Vector::mul(Vector::load(from + i * kWidth), factors);
    }
    Integers::store(out + k * kValuesEach, scaled);
  }
}

// Some rows at a time: finding the largest and dividing by it are long chains for each.
template <typename Integers>
CSRM_TARGET void round_rows(const RoundedRows& r, int64_t levels) {
  using Value = typename Integers::Value;
  constexpr int64_t kRows = 4;
  const auto most_levels = static_cast<float>(levels);
  for (int64_t first = r.first_row; first < r.end_row; first += kRows) {
    const int64_t n_rows = std::min(kRows, r.end_row - first);
    float factors[kRows];
    for (int64_t i = 0; i < n_rows; ++i) {
      const float most = largest(r.x + (first + i) * r.n_in, r.n_in);
      const bool is_sound = most >= kLeast;  // false for NaN
      r.scale[first + i] = is_sound || most != most ? most / most_levels : 0.0f;
      factors[i] = is_sound ? most_levels / most : 0.0f;
    }
    for (int64_t i = 0; i < n_rows; ++i) {
      const int64_t row = first + i;
      auto* out = reinterpret_cast<Value*>(r.values + row * r.row_size);
      if (factors[i] == 0.0f) {
        std::fill_n(out, r.row_size / static_cast<int64_t>(sizeof(Value)), Integers::kOffset);
      } else {
        round_row<Integers>(r.x + row * r.n_in, r.n_in, factors[i], out);
      }
    }
  }
}

}  // namespace
}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_LINEAR_I8_ROWS_H_
