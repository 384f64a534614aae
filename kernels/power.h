// Powers of two over a vector type. Included after the header that defines CSRM_TARGET and Vector
// (vector_*.h) by the text of a kernel (prefix_attention_tile.h, swiglu_tile.h). Not for anybody
// else.
#ifndef CSRM_KERNELS_POWER_H_
#define CSRM_KERNELS_POWER_H_

#include "unroll.h"

namespace csrm::kernels {
namespace {

// 2^f = 1 + f * (c1 + ... + c6 * f^5) for |f| <= 1/2, fitted for the least relative error: 2e-9,
// 8e-8 once rounded.
constexpr float kPower[] = {1.0f,           0.693147182f,  0.240226477f,  0.0555033237f,
                            0.00961843692f, 0.0013398875f, 0.00015353362f};
constexpr float kLeastPower = -126.0f;   // 2^t is a denormal below; it becomes 0
constexpr float kRounder = 12583039.0f;  // 1.5 * 2^23 + 127: leaves the exponent in the low bits
constexpr float kLog2E = 1.44269504f;

// t[j] = 2^t[j] for t[j] <= 0; several side by side, because one is a long chain.
template <int M>
CSRM_TARGET inline void powers_of_two(Vector::Register* t) {
  Vector::Register rounded[M], f[M], p[M];
  CSRM_UNROLL
  for (int j = 0; j < M; ++j) rounded[j] = Vector::add(t[j], Vector::set(kRounder));
  CSRM_UNROLL
  for (int j = 0; j < M; ++j) {
    f[j] = Vector::sub(t[j], Vector::sub(rounded[j], Vector::set(kRounder)));
  }
  CSRM_UNROLL
  for (int j = 0; j < M; ++j) {
    const Vector::Register f2 = Vector::mul(f[j], f[j]);
    Vector::Register top = Vector::fma(f[j], Vector::set(kPower[6]), Vector::set(kPower[5]));
    const Vector::Register mid = Vector::fma(f[j], Vector::set(kPower[4]), Vector::set(kPower[3]));
    const Vector::Register low = Vector::fma(f[j], Vector::set(kPower[2]), Vector::set(kPower[1]));
    top = Vector::fma(top, f2, mid);
    top = Vector::fma(top, f2, low);
    p[j] = Vector::fma(top, f[j], Vector::set(kPower[0]));
  }
  CSRM_UNROLL
  for (int j = 0; j < M; ++j) {
    p[j] = Vector::mul(p[j], Vector::as_exponent(rounded[j]));
    t[j] = Vector::zero_if_less(t[j], Vector::set(kLeastPower), p[j]);
  }
}

}  // namespace
}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_POWER_H_
