// Linear with AVX2 and FMA: vectors of 8, tiles of 6 x 16. The text is linear_tile.h.
#include "linear_block.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#include <immintrin.h>

#define CSRM_TARGET __attribute__((target("avx2,fma")))

namespace csrm::kernels {
namespace {

struct Vector {
  using Register = __m256;
  static constexpr int kWidth = 8;

  CSRM_TARGET static Register set(float v) { return _mm256_set1_ps(v); }
  CSRM_TARGET static Register load(const float* p) { return _mm256_loadu_ps(p); }
  CSRM_TARGET static Register load(const int8_t* p) {
    return _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  CSRM_TARGET static void store(float* p, Register v) { _mm256_storeu_ps(p, v); }
  CSRM_TARGET static void prefetch(const char* p) { _mm_prefetch(p, _MM_HINT_T1); }
  CSRM_TARGET static Register add(Register a, Register b) { return _mm256_add_ps(a, b); }
  CSRM_TARGET static Register mul(Register a, Register b) { return _mm256_mul_ps(a, b); }
  CSRM_TARGET static Register div(Register a, Register b) { return _mm256_div_ps(a, b); }
  CSRM_TARGET static Register fma(Register a, Register b, Register c) {
    return _mm256_fmadd_ps(a, b, c);
  }
  // `size` >= 0 with the sign of each lane of `v`.
  CSRM_TARGET static Register with_sign_of(Register size, Register v) {
    return _mm256_or_ps(size, _mm256_and_ps(v, _mm256_set1_ps(-0.0f)));
  }
  // Lane by lane `yes` where |v| < bound, else (and for NaN) `no`.
  CSRM_TARGET static Register if_below(Register v, float bound, Register yes, Register no) {
    const Register size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v);
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(size, _mm256_set1_ps(bound), _CMP_LT_OQ));
  }
};

}  // namespace
}  // namespace csrm::kernels

#include "linear_tile.h"

namespace csrm::kernels {

const LinearVersion kLinearAvx2{kPanelWidth, run_block};

}  // namespace csrm::kernels

#endif
