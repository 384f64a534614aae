// The work of HalfKeyValue, written once over a vector type. Included by
// half_key_value_portable.cc, _avx2.cc and _avx512.cc after the header that defines CSRM_TARGET and
// Vector, so that versions differ in width only. Not to be included anywhere else.
#include <cstdint>

#include "half.h"
#include "half_key_value_rows.h"

namespace csrm::kernels {
namespace {

constexpr int64_t kWidth = Vector::kWidth;

// to[i] = to_half(from[i]).
CSRM_TARGET inline void narrow(const float* from, int64_t n, uint16_t* to) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) Vector::store_half(to + i, Vector::load(from + i));
  for (; i < n; ++i) to[i] = to_half(from[i]);
}

// Head by head, so that what is written lies together.
CSRM_TARGET void half_key_value_rows(const HalfKeyValueParams& p, int64_t batch, int64_t first,
                                     int64_t end) {
  for (int64_t head = 0; head < p.n_kv_heads; ++head) {
    const int64_t to = ((batch * p.n_kv_heads + head) * p.n_tokens + first) * p.head_dim;
    uint16_t* key = p.key + to;
    uint16_t* value = p.value + to;
    const float* from = p.states + (batch * p.n_tokens + first) * p.width + head * p.head_dim;
    for (int64_t t = first; t < end; ++t, from += p.width) {
      narrow(from + p.key_offset, p.head_dim, key);
      narrow(from + p.value_offset, p.head_dim, value);
      key += p.head_dim;
      value += p.head_dim;
    }
  }
}

}  // namespace
}  // namespace csrm::kernels
