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

template <typename Integers>
CSRM_TARGET void round_rows(const RoundedRows& r, int64_t levels) {
  using Value = typename Integers::Value;
  constexpr int64_t kValuesEach = Integers::kValueSize / static_cast<int64_t>(sizeof(Value));
  constexpr int64_t kAtOnce = Integers::kVectors * kWidth;
  const auto most_levels = static_cast<float>(levels);
  for (int64_t row = r.first_row; row < r.end_row; ++row) {
    const float* x = r.x + row * r.n_in;
    auto* out = reinterpret_cast<Value*>(r.values + row * r.row_size);
    const float most = largest(x, r.n_in);
    const bool is_sound = most >= kLeast;  // false for NaN
    r.scale[row] = is_sound || most != most ? most / most_levels : 0.0f;
    if (!is_sound) {
      std::fill_n(out, r.row_size / static_cast<int64_t>(sizeof(Value)), Integers::kOffset);
      continue;
    }
    const auto factor = Vector::set(most_levels / most);
    for (int64_t k = 0; k < r.n_in; k += kAtOnce) {
      float rest[kAtOnce];
      const float* from = x + k;
      if (k + kAtOnce > r.n_in) {  // what lies behind meets weights of zero
        std::fill(std::copy(from, x + r.n_in, rest), rest + kAtOnce, 0.0f);
        from = rest;
      }
      Vector::Register scaled[Integers::kVectors];
      CSRM_UNROLL
      for (int i = 0; i < Integers::kVectors; ++i) {
        scaled[i] = Vector::mul(Vector::load(from + i * kWidth), factor);
      }
      Integers::store(out + k * kValuesEach, scaled);
    }
  }
}

}  // namespace
}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_LINEAR_I8_ROWS_H_
