// The arithmetic of Rope, written once over a vector type. Included by rope_portable.cc, _avx2.cc
// and _avx512.cc after the header that defines CSRM_TARGET and Vector, so that versions differ in
// width only. Not to be included anywhere else.
//
// An angle is position * frequency in fp32, as PyTorch and ONNX's operators round it; its cosine
// and sine are the C library's, once per row for all heads.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "rope_rows.h"

namespace csrm::kernels {
namespace {

using Register = Vector::Register;
constexpr int64_t kWidth = Vector::kWidth;

struct Rotation {
  float cosine[kMaxRopeDim / 2], sine[kMaxRopeDim / 2];
};

// 1 / sqrt(mean square + epsilon) of one head [n].
CSRM_TARGET inline float shrink(const float* x, int64_t n, float epsilon) {
  Register sums = Vector::set(0.0f);
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    const Register one = Vector::load(x + i);
    sums = Vector::fma(one, one, sums);
  }
  float lanes[kWidth];
  Vector::store(lanes, sums);
  float square = 0.0f;
  for (float lane : lanes) square += lane;
  for (; i < n; ++i) square += x[i] * x[i];
  return 1.0f / std::sqrt(square / static_cast<float>(n) + epsilon);
}

// One vector of each half of a head; w: of the halves' weights, read with kHasNorm alone.
template <bool kHasNorm>
CSRM_TARGET inline void turn_vector(const float* const x[2], const float* const w[2], float scale,
                                    const float* cosines, const float* sines, float* const y[2]) {
  Register first = Vector::load(x[0]), second = Vector::load(x[1]);
  if (kHasNorm) {
    const Register scales = Vector::set(scale);
    first = Vector::mul(Vector::mul(first, scales), Vector::load(w[0]));
    second = Vector::mul(Vector::mul(second, scales), Vector::load(w[1]));
  }
  const Register cosine = Vector::load(cosines), sine = Vector::load(sines);
  Vector::store(y[0], Vector::sub(Vector::mul(first, cosine), Vector::mul(second, sine)));
  Vector::store(y[1], Vector::fma(second, cosine, Vector::mul(first, sine)));
}

// One head: y [D] of x [D]; weight: its [D].
template <bool kHasNorm>
CSRM_TARGET void turn_head(const RopeParams& p, const float* x, const float* weight,
                           const Rotation& rotation, float* y) {
  const int64_t half = p.head_dim / 2;
  const float scale = kHasNorm ? shrink(x, p.head_dim, p.epsilon) : 1.0f;
  int64_t i = 0;
  for (; i + kWidth <= half; i += kWidth) {
    const float* const from[2] = {x + i, x + half + i};
    const float* const weights[2] = {weight + i, weight + half + i};
    float* const to[2] = {y + i, y + half + i};
    turn_vector<kHasNorm>(from, weights, scale, rotation.cosine + i, rotation.sine + i, to);
  }
  if (i == half) return;
  // The ends of the halves go through vectors of their own.
  float values[2][kWidth] = {}, weights[2][kWidth] = {}, cosine[kWidth] = {}, sine[kWidth] = {};
  for (int64_t part = 0; part < 2; ++part) {
    std::copy_n(x + part * half + i, half - i, values[part]);
    if (kHasNorm) std::copy_n(weight + part * half + i, half - i, weights[part]);
  }
  std::copy_n(rotation.cosine + i, half - i, cosine);
  std::copy_n(rotation.sine + i, half - i, sine);
  const float* const from[2] = {values[0], values[1]};
  const float* const of[2] = {weights[0], weights[1]};
  float* const to[2] = {values[0], values[1]};
  turn_vector<kHasNorm>(from, of, scale, cosine, sine, to);
  for (int64_t part = 0; part < 2; ++part) {
    std::copy_n(values[part], half - i, y + part * half + i);
  }
}

CSRM_TARGET void rope_rows(const RopeParams& p, int64_t first, int64_t end) {
  Rotation rotation;
  const int64_t width = p.n_heads * p.head_dim;
  for (int64_t row = first; row < end; ++row) {
    const auto position = static_cast<float>(p.positions[row]);
    for (int64_t i = 0; i < p.head_dim / 2; ++i) {
      const float angle = position * p.frequencies[i];
      rotation.cosine[i] = std::cos(angle);
      rotation.sine[i] = std::sin(angle);
    }
    const float* x = p.x + row * p.n_columns;
    float* y = p.y + row * p.n_columns;
    for (int64_t at = 0; at < width; at += p.head_dim) {
      if (p.weight != nullptr) {
        turn_head<true>(p, x + at, p.weight + at, rotation, y + at);
      } else {
        turn_head<false>(p, x + at, x + at, rotation, y + at);
      }
    }
    if (x != y) std::copy(x + width, x + p.n_columns, y + width);
  }
}

}  // namespace
}  // namespace csrm::kernels
