// Vectors of 16 floats in AVX-512F, for the kernels that are written once over `Vector`
// (linear_tile.h, prefix_attention_tile.h, add_norm_tile.h). Included once, by a .cc file of that
// version. Masked forms stand where gcc 12's headers for the others warn about themselves (gcc bug
// 105593).
#ifndef CSRM_KERNELS_VECTOR_AVX512_H_
#define CSRM_KERNELS_VECTOR_AVX512_H_

#include <cstdint>
#include <limits>

#include "half.h"
#include "intrinsics.h"

#ifndef CSRM_TARGET_AVX512  // a kernel may ask for more
#define CSRM_TARGET_AVX512 "avx512f,avx2,fma"
#endif
#define CSRM_TARGET CSRM_TARGET_OF(CSRM_TARGET_AVX512)

#include "vector_x86.h"  // uses CSRM_TARGET

namespace csrm::kernels {
namespace {

struct Vector {
  using Register = __m512;
  static constexpr int kWidth = 16;
  static constexpr __mmask16 kAll = 0xFFFF;

  CSRM_TARGET static Register set(float v) { return _mm512_set1_ps(v); }
  CSRM_TARGET static Register load(const float* p) { return _mm512_loadu_ps(p); }
  // The masked forms: gcc 12's headers for the others warn about themselves (gcc bug 105593).
  CSRM_TARGET static Register load(const int8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm512_maskz_cvtepi32_ps(0xFFFF, _mm512_maskz_cvtepi8_epi32(0xFFFF, bytes));
  }
  // Half precision, as to_half() and from_half() give it (half.h).
  CSRM_TARGET static Register load_half(const uint16_t* p) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_maskz_cvtph_ps(kAll, halves);
  }
  CSRM_TARGET static void store_half(uint16_t* p, Register v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), halves(v));
  }
  CSRM_TARGET static Register through_half(Register v) {
    return _mm512_maskz_cvtph_ps(kAll, halves(v));
  }
  CSRM_TARGET static void prefetch(const char* p) { _mm_prefetch(p, _MM_HINT_T1); }
  CSRM_TARGET static void store(float* p, Register v) { _mm512_storeu_ps(p, v); }
  CSRM_TARGET static Register add(Register a, Register b) { return _mm512_add_ps(a, b); }
  CSRM_TARGET static Register sub(Register a, Register b) { return _mm512_sub_ps(a, b); }
  CSRM_TARGET static Register mul(Register a, Register b) { return _mm512_mul_ps(a, b); }
  CSRM_TARGET static Register div(Register a, Register b) { return _mm512_div_ps(a, b); }
  // Each half added to the other until one number is left.
  CSRM_TARGET static float tree_sum(Register v) {
    alignas(64) float lanes[kWidth];
    store(lanes, v);
    return tree_sum_of_8(_mm256_add_ps(_mm256_load_ps(lanes), _mm256_load_ps(lanes + 8)));
  }
  CSRM_TARGET static Register fma(Register a, Register b, Register c) {
    return _mm512_fmadd_ps(a, b, c);
  }
  // The larger of each lane; `b` where one is NaN.
  CSRM_TARGET static Register max(Register a, Register b) {
    return _mm512_maskz_max_ps(kAll, a, b);
  }
  // The smaller of each lane; `b` where one is NaN.
  CSRM_TARGET static Register min(Register a, Register b) {
    return _mm512_maskz_min_ps(kAll, a, b);
  }
  // The larger |lane|, without a sign. Of those that are not finite one that is not.
  CSRM_TARGET static Register max_size(Register a, Register b) {
    const __m512i size = _mm512_set1_epi32(INT32_MAX);
    const __m512i x = _mm512_and_si512(_mm512_castps_si512(a), size);
    const __m512i y = _mm512_and_si512(_mm512_castps_si512(b), size);
    return _mm512_castsi512_ps(_mm512_maskz_max_epi32(kAll, x, y));
  }
  // a * b + c rounded once.
  CSRM_TARGET static Register fma_once(Register a, Register b, Register c) { return fma(a, b, c); }
  // Lane by lane `yes` where a < b, else (and for NaN) `no`.
  CSRM_TARGET static Register if_less(Register a, Register b, Register yes, Register no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
  }
  // Zero where a < b, else (and for NaN) `v`.
  CSRM_TARGET static Register zero_if_less(Register a, Register b, Register v) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ), v);
  }
  // The low nine bits of each lane as sign and exponent of a float.
  CSRM_TARGET static Register as_exponent(Register v) {
    return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(kAll, _mm512_castps_si512(v), 23));
  }
  // to[c][r] = from[r][c] of a square of 4.
  CSRM_TARGET static void transpose(const float* const* from, float* const* to) {
    transpose_square(from, to);
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

 private:
  CSRM_TARGET static __m256i halves(Register v) {
    constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
    v = if_below(v, kTooLargeForHalf, v, with_sign_of(set(kNan), v));
    return _mm512_maskz_cvtps_ph(kAll, v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
};

}  // namespace
}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_VECTOR_AVX512_H_
