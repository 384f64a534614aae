// LinearI8 with AVX2: see vector_avx2.h; tiles of 6 x 16. The text is linear_i8_tile.h.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

// clang-format off: the vectors come first
#include "vector_avx2.h"
#include "linear_i8_tile.h"
// clang-format on

#include <cstring>

namespace csrm::kernels {
namespace {

// Eight sums, two values of k at a time, as 16-bit numbers: vpmaddubsw, which takes bytes,
// saturates at sums of two products, and keeping one side's sign apart costs what it saves.
struct Avx2 {
  using Register = __m256i;
  using Value = int16_t;
  static constexpr int64_t kGroup = 2, kValueSize = sizeof(Value);
  static constexpr int kVectors = 1;
  static constexpr Value kOffset = 0;

  CSRM_TARGET static Register load(const int32_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  CSRM_TARGET static Register load(const int8_t* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  CSRM_TARGET static Register set(const Value* x) {
    int32_t pair;
    std::memcpy(&pair, x, sizeof(pair));
    return _mm256_set1_epi32(pair);
  }
  CSRM_TARGET static Register dot(Register sum, Register x, Register weight) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(x, weight));
  }
  CSRM_TARGET static Vector::Register to_floats(Register v) { return _mm256_cvtepi32_ps(v); }
  // Each lane rounded to the nearest integer, ties to even; |v| is at most 2047.
  CSRM_TARGET static void store(Value* to, const Vector::Register (&v)[kVectors]) {
    const __m256i wide = _mm256_cvtps_epi32(v[0]);
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), words);
  }
};

}  // namespace

const LinearI8Version kLinearI8Avx2 = version<Avx2>();

}  // namespace csrm::kernels

#endif
