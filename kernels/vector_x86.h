// What the two vectors of x86 share; included by vector_avx2.h and vector_avx512.h behind their
// CSRM_TARGET. Not for the portable one.
#ifndef CSRM_KERNELS_VECTOR_X86_H_
#define CSRM_KERNELS_VECTOR_X86_H_

#include "intrinsics.h"

namespace csrm::kernels {
namespace {

// to[c][r] = from[r][c] of a square of 4.
CSRM_TARGET inline void transpose_square(const float* const* from, float* const* to) {
  __m128 a = _mm_loadu_ps(from[0]), b = _mm_loadu_ps(from[1]);
  __m128 c = _mm_loadu_ps(from[2]), d = _mm_loadu_ps(from[3]);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  _mm_storeu_ps(to[0], a);
  _mm_storeu_ps(to[1], b);
  _mm_storeu_ps(to[2], c);
  _mm_storeu_ps(to[3], d);
}

// Each half added to the other until one number is left.
CSRM_TARGET inline float tree_sum_of_8(__m256 v) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

}  // namespace
}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_VECTOR_X86_H_
