// The arithmetic of AddNorm, written once over a vector type. Included by add_norm_portable.cc,
// _avx2.cc and _avx512.cc after the header that defines CSRM_TARGET and Vector, so that versions
// differ in width only. Not to be included anywhere else.
//
// Element i of a row is added to partial sum i % 32, whatever the width; the 32 are added up as a
// tree. So the two vector versions agree to the bit.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "add_norm_rows.h"
#include "unroll.h"

namespace csrm::kernels {
namespace {

using Register = Vector::Register;
constexpr int kWidth = Vector::kWidth;
constexpr int kLanes = 32;
constexpr int kVectors = kLanes / kWidth;

// The sum of the partial sums and of the n < 32 floats at `rest`, one more for each of the first n.
CSRM_TARGET inline float added_up(const Register* partial, const float* rest, int64_t n) {
  float lanes[kLanes];
  CSRM_UNROLL
  for (int v = 0; v < kVectors; ++v) Vector::store(lanes + v * kWidth, partial[v]);
  for (int64_t i = 0; i < n; ++i) lanes[i] += rest[i];
  for (int step = kLanes / 2; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) lanes[i] += lanes[i + step];
  }
  return lanes[0];
}

// z = x + residual -> y; returns the mean of the row.
CSRM_TARGET inline float add_row(const float* x, const float* residual, int64_t n, float* y) {
  Register sums[kVectors];
  CSRM_UNROLL
  for (int v = 0; v < kVectors; ++v) sums[v] = Vector::set(0.0f);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    CSRM_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const int64_t at = i + v * kWidth;
      const Register z = Vector::add(Vector::load(x + at), Vector::load(residual + at));
      Vector::store(y + at, z);
      sums[v] = Vector::add(sums[v], z);
    }
  }
  for (int64_t rest = i; rest < n; ++rest) y[rest] = x[rest] + residual[rest];
  return added_up(sums, y + i, n - i) / static_cast<float>(n);
}

// 1 / sqrt(variance + epsilon) of the row.
CSRM_TARGET inline float shrink(const float* y, int64_t n, float mean, float epsilon) {
  const Register means = Vector::set(mean);
  Register sums[kVectors];
  CSRM_UNROLL
  for (int v = 0; v < kVectors; ++v) sums[v] = Vector::set(0.0f);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    CSRM_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const Register d = Vector::sub(Vector::load(y + i + v * kWidth), means);
      sums[v] = Vector::fma(d, d, sums[v]);
    }
  }
  float squares[kLanes];
  for (int64_t rest = i; rest < n; ++rest) {
    const float d = y[rest] - mean;
    squares[rest - i] = d * d;
  }
  const float variance = added_up(sums, squares, n - i) / static_cast<float>(n);
  return 1.0f / std::sqrt(variance + epsilon);
}

CSRM_TARGET inline void norm_vector(float* y, const float* weight, const float* bias, float mean,
                                    float scale) {
  const Register d = Vector::sub(Vector::load(y), Vector::set(mean));
  const Register one = Vector::mul(d, Vector::set(scale));
  Vector::store(y, Vector::fma(one, Vector::load(weight), Vector::load(bias)));
}

CSRM_TARGET void add_norm_rows(const AddNormParams& p, int64_t first, int64_t end) {
  const int64_t n = p.n_columns;
  const int64_t body = n - n % kWidth;
  // The end of a row goes through vectors of its own.
  float weight[kWidth] = {}, bias[kWidth] = {};
  std::copy(p.weight + body, p.weight + n, weight);
  std::copy(p.bias + body, p.bias + n, bias);
  for (int64_t row = first; row < end; ++row) {
    float* y = p.y + row * n;
    const float mean = add_row(p.x + row * n, p.residual + row * n, n, y);
    const float scale = shrink(y, n, mean, p.epsilon);
    for (int64_t i = 0; i < body; i += kWidth) {
      norm_vector(y + i, p.weight + i, p.bias + i, mean, scale);
    }
    float rest[kWidth] = {};
    std::copy(y + body, y + n, rest);
    norm_vector(rest, weight, bias, mean, scale);
    std::copy_n(rest, n - body, y + body);
  }
}

}  // namespace
}  // namespace csrm::kernels
