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
CSRM_TARGET inline float added_up(const Register* partial, float* rest, int64_t n) {
  Register sums[kVectors];
  std::copy_n(partial, kVectors, sums);
  if (n > 0) {
    std::fill(rest + n, rest + kLanes, 0.0f);
    CSRM_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      sums[v] = Vector::add(sums[v], Vector::load(rest + v * kWidth));
    }
  }
  CSRM_UNROLL
  for (int step = kVectors / 2; step > 0; step /= 2) {
    for (int v = 0; v < step; ++v) sums[v] = Vector::add(sums[v], sums[v + step]);
  }
  return Vector::tree_sum(sums[0]);
}

// z = x + residual, if there is one; returns the mean of the row, or of its squares for RMSNorm.
template <bool kAdds, bool kIsRms>
CSRM_TARGET inline float read_row(const float* x, const float* residual, int64_t n, float* z) {
  Register sums[kVectors];
  CSRM_UNROLL
  for (int v = 0; v < kVectors; ++v) sums[v] = Vector::set(0.0f);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    CSRM_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const int64_t at = i + v * kWidth;
      Register one = Vector::load(x + at);
      if (kAdds) {
        one = Vector::add(one, Vector::load(residual + at));
        Vector::store(z + at, one);
      }
      sums[v] = kIsRms ? Vector::fma(one, one, sums[v]) : Vector::add(sums[v], one);
    }
  }
  float rest[kLanes];
  for (int64_t at = i; at < n; ++at) {
    const float one = kAdds ? x[at] + residual[at] : x[at];
    if (kAdds) z[at] = one;
    rest[at - i] = kIsRms ? one * one : one;
  }
  return added_up(sums, rest, n - i) / static_cast<float>(n);
}

// 1 / sqrt(variance + epsilon) of the row.
CSRM_TARGET inline float shrink(const float* z, int64_t n, float mean, float epsilon) {
  const Register means = Vector::set(mean);
  Register sums[kVectors];
  CSRM_UNROLL
  for (int v = 0; v < kVectors; ++v) sums[v] = Vector::set(0.0f);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    CSRM_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const Register d = Vector::sub(Vector::load(z + i + v * kWidth), means);
      sums[v] = Vector::fma(d, d, sums[v]);
    }
  }
  float squares[kLanes];
  for (int64_t rest = i; rest < n; ++rest) {
    const float d = z[rest] - mean;
    squares[rest - i] = d * d;
  }
  const float variance = added_up(sums, squares, n - i) / static_cast<float>(n);
  return 1.0f / std::sqrt(variance + epsilon);
}

template <bool kIsRms>
CSRM_TARGET inline void norm_vector(const float* z, const float* weight, const float* bias,
                                    float mean, float scale, float* y) {
  Register one = Vector::load(z);
  if (!kIsRms) one = Vector::sub(one, Vector::set(mean));
  one = Vector::mul(one, Vector::set(scale));
  const Register weights = Vector::load(weight);
  Vector::store(y,
                kIsRms ? Vector::mul(one, weights) : Vector::fma(one, weights, Vector::load(bias)));
}

template <bool kAdds, bool kIsRms>
CSRM_TARGET void norm_rows(const AddNormParams& p, int64_t first, int64_t end) {
  const int64_t n = p.n_columns;
  const int64_t body = n - n % kWidth;
  // The end of a row goes through vectors of its own.
  float weight[kWidth] = {}, bias[kWidth] = {};
  std::copy(p.weight + body, p.weight + n, weight);
  if (!kIsRms) std::copy(p.bias + body, p.bias + n, bias);
  for (int64_t row = first; row < end; ++row) {
    const float* x = p.x + row * n;
    float* y = p.y + row * n;
    float* sum = p.sum != nullptr ? p.sum + row * n : y;
    const float mean = read_row<kAdds, kIsRms>(x, kAdds ? p.residual + row * n : nullptr, n, sum);
    const float* z = kAdds ? sum : x;
    const float scale = kIsRms ? 1.0f / std::sqrt(mean + p.epsilon) : shrink(z, n, mean, p.epsilon);
    for (int64_t i = 0; i < body; i += kWidth) {
      norm_vector<kIsRms>(z + i, p.weight + i, kIsRms ? nullptr : p.bias + i, mean, scale, y + i);
    }
    float rest[kWidth] = {};
    std::copy(z + body, z + n, rest);
    norm_vector<kIsRms>(rest, weight, bias, mean, scale, rest);
    std::copy_n(rest, n - body, y + body);
  }
}

CSRM_TARGET void add_norm_rows(const AddNormParams& p, int64_t first, int64_t end) {
  if (p.residual == nullptr) {
    return p.is_rms ? norm_rows<false, true>(p, first, end)
                    : norm_rows<false, false>(p, first, end);
  }
  return p.is_rms ? norm_rows<true, true>(p, first, end) : norm_rows<true, false>(p, first, end);
}

}  // namespace
}  // namespace csrm::kernels
