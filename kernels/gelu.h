// GELU over a vector type. Included after the header that defines CSRM_TARGET and Vector
// (vector_*.h) by the text of a kernel (linear_tile.h, linear_i8_tile.h). Not for anybody else.
#ifndef CSRM_KERNELS_GELU_H_
#define CSRM_KERNELS_GELU_H_

#include "unroll.h"

namespace csrm::kernels {
namespace {

// GELU is x * (1/2 + r) with r = erf(x / sqrt(2)) / 2, and r is x * P(x^2) / Q(x^2) for x in
// +-kFlat, as at the nearer end beyond: there it comes out as +-1/2 exactly, whether sums are
// rounded once or twice, and 1/2 - |r| is less than 2^-26. P and Q were fitted for the least
// largest error of x * r, which is 3e-8; rounding makes it 1.2e-6 near x = 5, 3 ulp of the result
// (1.4e-6 with two roundings).
constexpr float kFlat = 5.5959f;
constexpr float kTop[] = {0.3989419937133789f,     0.035756830126047134f, 0.00479936134070158f,
                          0.00018909860227722675f, 6.56969041301636e-06f, 2.170616397734193e-08f};
constexpr float kBottom[] = {1.0f,
                             0.25629234313964844f,
                             0.029750589281320572f,
                             0.00199773907661438f,
                             8.059163519646972e-05f,
                             1.183410063276824e-06f};

// a * b + c as the version does it fastest, rounded once or twice.
struct Fastest {
  CSRM_TARGET static Vector::Register fma(Vector::Register a, Vector::Register b,
                                          Vector::Register c) {
    return Vector::fma(a, b, c);
  }
};

// Rounded once, so that every version gives the same bits.
struct Once {
  CSRM_TARGET static Vector::Register fma(Vector::Register a, Vector::Register b,
                                          Vector::Register c) {
    return Vector::fma_once(a, b, c);
  }
};

template <typename Sums>
CSRM_TARGET inline Vector::Register gelu(Vector::Register x) {
  const auto end = Vector::set(kFlat);
  const auto near = Vector::min(Vector::max(x, Vector::set(-kFlat)), end);
  const auto square = Vector::mul(near, near);
  auto top = Vector::set(kTop[5]), bottom = Vector::set(kBottom[5]);
  CSRM_UNROLL
  for (int i = 4; i >= 0; --i) {
    top = Sums::fma(top, square, Vector::set(kTop[i]));
    bottom = Sums::fma(bottom, square, Vector::set(kBottom[i]));
  }
  const auto r = Vector::div(Vector::mul(near, top), bottom);
  return Vector::mul(x, Vector::add(Vector::set(0.5f), r));  // NaN of NaN
}

}  // namespace
}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_GELU_H_
