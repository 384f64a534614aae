// How LinearI8 rounds the rows of x, written once over a vector of floats (Vector, vector_*.h) and a
// version's integers (linear_i8_tile.h). Included by linear_i8_tile.h and linear_i8_amx.cc, and
// nowhere else. Not: products.
#ifndef CSRM_KERNELS_LINEAR_I8_ROWS_H_
#define CSRM_KERNELS_LINEAR_I8_ROWS_H_

#include <algorithm>
#include <cstdint>
#include <limits>

#include "linear_i8_block.h"

namespace csrm::kernels {
namespace {

constexpr int64_t kWidth = Vector::kWidth;
constexpr float kLeast = 1e-30f;  // a row of smaller values counts as zeros

// The largest |x| of a row; NaN if one of them is not finite.
CSRM_TARGET inline float largest(const float* x, int64_t n) {
  const auto zero = Vector::set(0.0f);
  auto most = zero, spoilt = zero;
  const auto look_at = [&](const float* at) CSRM_TARGET {
    const auto v = Vector::load(at);
    most = Vector::max(Vector::max(v, Vector::sub(zero, v)), most);
    spoilt = Vector::add(spoilt, Vector::mul(v, zero));
  };
  int64_t k = 0;
  for (; k + kWidth <= n; k += kWidth) look_at(x + k);
  float lanes[kWidth] = {}, spoilt_lanes[kWidth];
  std::copy(x + k, x + n, lanes);
  look_at(lanes);
  Vector::store(lanes, most);
  Vector::store(spoilt_lanes, spoilt);
  float result = 0.0f;
  for (int64_t i = 0; i < kWidth; ++i) result = std::max(result, lanes[i]);
  for (int64_t i = 0; i < kWidth; ++i) {
    if (spoilt_lanes[i] != 0.0f) result = std::numeric_limits<float>::quiet_NaN();
  }
  return result;
}

template <typename Integers>
CSRM_TARGET void round_rows(const RoundedRows& r, int64_t levels) {
  using Value = typename Integers::Value;
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
    int64_t k = 0;
    for (; k + kWidth <= r.n_in; k += kWidth) {
      Integers::store(out, k, Vector::mul(Vector::load(x + k), factor));
    }
    float rest[kWidth] = {};
    std::copy(x + k, x + r.n_in, rest);
    // What lies behind, up to the row's end, meets weights of zero.
    if (k < r.n_in) Integers::store(out, k, Vector::mul(Vector::load(rest), factor));
  }
}

}  // namespace
}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_LINEAR_I8_ROWS_H_
