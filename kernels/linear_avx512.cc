// Linear with AVX-512F: vectors of 16, tiles of 6 x 32. The text is linear_tile.h.
#include "linear_block.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#include <immintrin.h>

#define CSRM_TARGET __attribute__((target("avx512f,avx2,fma")))

namespace csrm::kernels {
namespace {

struct Vector {
  using Register = __m512;
  static constexpr int kWidth = 16;

  CSRM_TARGET static Register set(float v) { return _mm512_set1_ps(v); }
  CSRM_TARGET static Register load(const float* p) { return _mm512_loadu_ps(p); }
  // The masked forms: gcc 12's headers for the others warn about themselves (gcc bug 105593).
  CSRM_TARGET static Register load(const int8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm512_maskz_cvtepi32_ps(0xFFFF, _mm512_maskz_cvtepi8_epi32(0xFFFF, bytes));
  }
  CSRM_TARGET static void store(float* p, Register v) { _mm512_storeu_ps(p, v); }
  CSRM_TARGET static void prefetch(const char* p) { _mm_prefetch(p, _MM_HINT_T1); }
  CSRM_TARGET static Register add(Register a, Register b) { return _mm512_add_ps(a, b); }
  CSRM_TARGET static Register mul(Register a, Register b) { return _mm512_mul_ps(a, b); }
  CSRM_TARGET static Register div(Register a, Register b) { return _mm512_div_ps(a, b); }
  CSRM_TARGET static Register fma(Register a, Register b, Register c) {
    return _mm512_fmadd_ps(a, b, c);
  }
  // `size` >= 0 with the sign of each lane of `v`. AVX-512F has bitwise operations on integers
  // only.
  CSRM_TARGET static Register with_sign_of(Register size, Register v) {
    const __m512i sign = _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(INT32_MIN));
    return _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(size), sign));
  }
  // Lane by lane `yes` where |v| < bound, else (and for NaN) `no`.
  CSRM_TARGET static Register if_below(Register v, float bound, Register yes, Register no) {
    const __m512i bits = _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(INT32_MAX));
    const __mmask16 below =
        _mm512_cmp_ps_mask(_mm512_castsi512_ps(bits), _mm512_set1_ps(bound), _CMP_LT_OQ);
    return _mm512_mask_blend_ps(below, no, yes);
  }
};

}  // namespace
}  // namespace csrm::kernels

#include "linear_tile.h"

namespace csrm::kernels {

const LinearVersion kLinearAvx512{kPanelWidth, run_block};

}  // namespace csrm::kernels

#endif
