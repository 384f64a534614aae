// Vectors of 8 floats in AVX2 and FMA, for the kernels that are written once over `Vector`
// (linear_tile.h, prefix_attention_tile.h, add_norm_tile.h). Included once, by a .cc file of that
// version.
#ifndef CSRM_KERNELS_VECTOR_AVX2_H_
#define CSRM_KERNELS_VECTOR_AVX2_H_

#include <cstdint>

#include "intrinsics.h"

#define CSRM_TARGET CSRM_TARGET_OF("avx2,fma")

#include "vector_x86.h"  // uses CSRM_TARGET

namespace csrm::kernels {
namespace {

struct Vector {
  using Register = __m256;
  static constexpr int kWidth = 8;

  CSRM_TARGET static Register set(float v) { return _mm256_set1_ps(v); }
  CSRM_TARGET static Register load(const float* p) { return _mm256_loadu_ps(p); }
  CSRM_TARGET static Register load(const int8_t* p) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
  }
  CSRM_TARGET static void prefetch(const char* p) { _mm_prefetch(p, _MM_HINT_T1); }
  CSRM_TARGET static void store(float* p, Register v) { _mm256_storeu_ps(p, v); }
  CSRM_TARGET static Register add(Register a, Register b) { return _mm256_add_ps(a, b); }
  CSRM_TARGET static Register sub(Register a, Register b) { return _mm256_sub_ps(a, b); }
  CSRM_TARGET static Register mul(Register a, Register b) { return _mm256_mul_ps(a, b); }
  CSRM_TARGET static Register div(Register a, Register b) { return _mm256_div_ps(a, b); }
  CSRM_TARGET static Register fma(Register a, Register b, Register c) {
    return _mm256_fmadd_ps(a, b, c);
  }
  // The larger of each lane; `b` where one is NaN.
  CSRM_TARGET static Register max(Register a, Register b) { return _mm256_max_ps(a, b); }
  // Lane by lane `yes` where a < b, else (and for NaN) `no`.
  CSRM_TARGET static Register if_less(Register a, Register b, Register yes, Register no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
  }
  // Zero where a < b, else (and for NaN) `v`.
  CSRM_TARGET static Register zero_if_less(Register a, Register b, Register v) {
    return _mm256_andnot_ps(_mm256_cmp_ps(a, b, _CMP_LT_OQ), v);
  }
  // The low nine bits of each lane as sign and exponent of a float.
  CSRM_TARGET static Register as_exponent(Register v) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(v), 23));
  }
  // to[c][r] = from[r][c] of a square of 4.
  CSRM_TARGET static void transpose(const float* const* from, float* const* to) {
    transpose_square(from, to);
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

#endif  // CSRM_KERNELS_VECTOR_AVX2_H_
