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

}  // namespace
}  // namespace csrm::kernels

#endif  // CSRM_KERNELS_VECTOR_X86_H_
