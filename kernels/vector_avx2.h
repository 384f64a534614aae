// Vectors of 8 floats in AVX2, FMA and F16C, for the kernels that are written once over `Vector`
// (linear_tile.h, prefix_attention_tile.h, add_norm_tile.h). Included once, by a .cc file of that
// version.
#ifndef CSRM_KERNELS_VECTOR_AVX2_H_
#define CSRM_KERNELS_VECTOR_AVX2_H_

#include <cstdint>
#include <limits>

#include "half.h"
#include "intrinsics.h"

#define CSRM_TARGET CSRM_TARGET_OF("avx2,fma,f16c")

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
  // Half precision, as to_half() and from_half() give it (half.h).
  CSRM_TARGET static Register load_half(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  CSRM_TARGET static void store_half(uint16_t* p, Register v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), halves(v));
  }
  CSRM_TARGET static Register through_half(Register v) { return _mm256_cvtph_ps(halves(v)); }
  CSRM_TARGET static void prefetch(const char* p) { _mm_prefetch(p, _MM_HINT_T1); }
  CSRM_TARGET static void store(float* p, Register v) { _mm256_storeu_ps(p, v); }
  CSRM_TARGET static Register add(Register a, Register b) { return _mm256_add_ps(a, b); }
  CSRM_TARGET static Register sub(Register a, Register b) { return _mm256_sub_ps(a, b); }
  CSRM_TARGET static Register mul(Register a, Register b) { return _mm256_mul_ps(a, b); }
  CSRM_TARGET static Register div(Register a, Register b) { return _mm256_div_ps(a, b); }
  // Each half added to the other until one number is left.
  CSRM_TARGET static float tree_sum(Register v) { return tree_sum_of_8(v); }
  CSRM_TARGET static Register fma(Register a, Register b, Register c) {
    return _mm256_fmadd_ps(a, b, c);
  }
  // The larger of each lane; `b` where one is NaN.
  CSRM_TARGET static Register max(Register a, Register b) { return _mm256_max_ps(a, b); }
  // The smaller of each lane; `b` where one is NaN.
  CSRM_TARGET static Register min(Register a, Register b) { return _mm256_min_ps(a, b); }
  // The larger |lane|, without a sign. Of those that are not finite one that is not.
  CSRM_TARGET static Register max_size(Register a, Register b) {
    const __m256i size = _mm256_set1_epi32(INT32_MAX);
    const __m256i x = _mm256_and_si256(_mm256_castps_si256(a), size);
    const __m256i y = _mm256_and_si256(_mm256_castps_si256(b), size);
    return _mm256_castsi256_ps(_mm256_max_epi32(x, y));
  }
  // a * b + c rounded once.
  CSRM_TARGET static Register fma_once(Register a, Register b, Register c) { return fma(a, b, c); }
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

 private:
  CSRM_TARGET static __m128i halves(Register v) {
    constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
    v = if_below(v, kTooLargeForHalf, v, with_sign_of(set(kNan), v));
    return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
};

}  // namespace
}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_VECTOR_AVX2_H_
