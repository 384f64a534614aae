// The arithmetic of SwiGlu, written once over a vector type. Included by swiglu_portable.cc,
// _avx2.cc and _avx512.cc after the header that defines CSRM_TARGET and Vector, so that versions
// differ in width only. Not to be included anywhere else.
//
// silu(g) is g / (1 + e) of a positive g and g * e / (1 + e) of a negative one, e = exp(-|g|): no
// exponential overflows, and the smallest results stay right. +-infinity and NaN give what the
// definition gives.
#include <algorithm>
#include <cstdint>

#include "power.h"
#include "swiglu_rows.h"
#include "unroll.h"

namespace csrm::kernels {
namespace {

using Register = Vector::Register;
constexpr int kWidth = Vector::kWidth;
constexpr int kAtOnce = 4;  // exponentials side by side

// y = silu(gate) * up of M vectors.
template <int M>
CSRM_TARGET inline void gated(const float* gate, const float* up, float* y) {
  const Register zero = Vector::set(0.0f), one = Vector::set(1.0f);
  Register g[M], e[M];
  CSRM_UNROLL
  for (int j = 0; j < M; ++j) {
    g[j] = Vector::load(gate + j * kWidth);
    const Register below = Vector::if_less(g[j], zero, g[j], Vector::sub(zero, g[j]));
    e[j] = Vector::mul(below, Vector::set(kLog2E));
  }
  powers_of_two<M>(e);
  CSRM_UNROLL
  for (int j = 0; j < M; ++j) {
    const Register top = Vector::mul(g[j], Vector::if_less(g[j], zero, e[j], one));
    const Register silu = Vector::div(top, Vector::add(one, e[j]));
    Vector::store(y + j * kWidth, Vector::mul(silu, Vector::load(up + j * kWidth)));
  }
}

CSRM_TARGET void swiglu_rows(const SwiGluParams& p, int64_t first, int64_t end) {
  const int64_t n = p.n_columns;
  for (int64_t row = first; row < end; ++row) {
    const float* gate = p.x + row * 2 * n;
    const float* up = gate + n;
    float* y = p.y + row * n;
    int64_t i = 0;
    for (; i + kAtOnce * kWidth <= n; i += kAtOnce * kWidth) {
      gated<kAtOnce>(gate + i, up + i, y + i);
    }
    for (; i + kWidth <= n; i += kWidth) gated<1>(gate + i, up + i, y + i);
    if (i == n) continue;
    // The end of a row goes through vectors of its own.
    float gates[kWidth] = {}, ups[kWidth] = {};
    std::copy(gate + i, gate + n, gates);
    std::copy(up + i, up + n, ups);
    gated<1>(gates, ups, gates);
    std::copy_n(gates, n - i, y + i);
  }
}

}  // namespace
}  // namespace csrm::kernels
