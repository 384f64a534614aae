// LinearI8 with AVX-512 and VNNI: see vector_avx512.h; tiles of 6 x 32. The text is
// linear_i8_tile.h.
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))

#define CSRM_TARGET_AVX512 "avx512f,avx512bw,avx512vnni,avx2,fma"
// clang-format off: the vectors come first
#include "vector_avx512.h"
#include "linear_i8_tile.h"
// clang-format on

#include <cstring>

namespace csrm::kernels {
namespace {

// Sixteen sums. What both kinds of values share.
struct Avx512 {
  using Register = __m512i;

  CSRM_TARGET static Register load(const int32_t* p) { return _mm512_loadu_si512(p); }
  CSRM_TARGET static Vector::Register to_floats(Register v) {
    return _mm512_maskz_cvtepi32_ps(Vector::kAll, v);
  }
  // The 4 bytes at `x` in every lane.
  CSRM_TARGET static Register set_bytes(const void* x) {
    int32_t bytes;
    std::memcpy(&bytes, x, sizeof(bytes));
    return _mm512_set1_epi32(bytes);
  }
  // Each lane rounded to the nearest integer, ties to even.
  CSRM_TARGET static Register rounded(Vector::Register v) {
    return _mm512_maskz_cvtps_epi32(Vector::kAll, v);
  }
};

// Two values of k at a time, as 16-bit numbers.
struct Words : Avx512 {
  using Value = int16_t;
  static constexpr int64_t kGroup = 2, kValueSize = sizeof(Value);
  static constexpr int kVectors = 1;
  static constexpr Value kOffset = 0;

  using Avx512::load;
  CSRM_TARGET static Register load(const int8_t* p) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_maskz_cvtepi8_epi16(0xFFFFFFFFu, bytes);
  }
  CSRM_TARGET static Register set(const Value* x) { return set_bytes(x); }
  CSRM_TARGET static Register dot(Register sum, Register x, Register weight) {
    return _mm512_dpwssd_epi32(sum, x, weight);
  }
  CSRM_TARGET static void store(Value* to, const Vector::Register (&v)[kVectors]) {
    const __m256i words = _mm512_maskz_cvtepi32_epi16(Vector::kAll, rounded(v[0]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), words);
  }
};

// Four at a time, as bytes: x without a sign, so 128 is added to it and the sums start lower.
struct Bytes : Avx512 {
  using Value = uint8_t;
  static constexpr int64_t kGroup = 4, kValueSize = sizeof(Value);
  static constexpr int kVectors = 1;
  static constexpr Value kOffset = 128;

  using Avx512::load;
  CSRM_TARGET static Register load(const int8_t* p) { return _mm512_loadu_si512(p); }
  CSRM_TARGET static Register set(const Value* x) { return set_bytes(x); }
  CSRM_TARGET static Register dot(Register sum, Register x, Register weight) {
    return _mm512_dpbusd_epi32(sum, x, weight);
  }
  CSRM_TARGET static void store(Value* to, const Vector::Register (&v)[kVectors]) {
    const __m128i bytes = _mm512_maskz_cvtepi32_epi8(Vector::kAll, rounded(v[0]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_xor_si128(bytes, _mm_set1_epi8(-128)));
  }
};

}  // namespace

const LinearI8Version kLinearI8Avx512Words = version<Words>();
const LinearI8Version kLinearI8Avx512Bytes = version<Bytes>();

}  // namespace csrm::kernels

#endif
